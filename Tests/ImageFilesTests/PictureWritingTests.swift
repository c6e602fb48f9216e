import LatentDiffusionFiles
import Foundation
import ImageFiles
import Tensor
import Testing

@Suite struct PictureWritingTests {
  private let picture: Picture
  private let scratch = FileManager.default.temporaryDirectory.appending(path: "picture-writing-" + UUID().uuidString)

  init() throws { picture = try Picture(contentsOf: folder.appending(path: "sampling-444.jpg")) }

  private func inScratch(_ body: () throws -> Void) throws {
    try FileManager.default.createDirectory(at: scratch, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: scratch) }
    try body()
    let left = try FileManager.default.contentsOfDirectory(atPath: scratch.path(percentEncoded: false)).filter { $0.hasPrefix(".") }
    #expect(left.isEmpty)
  }

  @Test(arguments: ["colour2-depth8.png", "colour6-depth8.png", "one-pixel.png", "wide.png", "orientation5.png"])
  func pngComesBackExactly(_ file: String) throws {
    let picture = try Picture(contentsOf: folder.appending(path: file))
    #expect(try Picture(data: picture.pngData()) == picture)
    #expect(try Picture(data: picture.pngData(parameters: "x")) == picture)
  }

  @Test func noiseThatCannotBeCompressedFits() throws {
    var generator = SystemRandomNumberGenerator()
    for (width, height) in [(1, 1), (1, 3000), (3000, 1), (700, 500)] {
      let noise = Picture(
        width: width, height: height, pixels: (0..<width * height * 3).map { _ in .random(in: 0...255, using: &generator) })
      #expect(try Picture(data: noise.pngData()) == noise)
    }
  }

  @Test func jpegIsNearAndNearerWithQuality() throws {
    func error(_ quality: Int) throws -> Double {
      let back = try Picture(data: picture.jpegData(quality: quality))
      #expect((back.width, back.height) == (picture.width, picture.height))
      let squares = zip(back.pixels, picture.pixels).map { pow(Double($0) - Double($1), 2) }
      return (squares.reduce(0, +) / Double(squares.count)).squareRoot()
    }
    let errors = try [95, 70, 10].map(error)
    // The picture has noise of ±8 levels, so 2 levels say that its detail is there.
    #expect(errors[0] < 2 && errors[0] < errors[1] && errors[1] < errors[2], "\(errors)")
    #expect(try error(1000) <= errors[0])
    #expect(try error(-5) >= errors[2])
  }

  @Test func jpegIsOnWhiteWhereTransparent() throws {
    let clear = Picture(width: 8, height: 8, pixels: .init(repeating: 0, count: 192), alpha: .init(repeating: 0, count: 64))
    let back = try Picture(data: clear.jpegData())
    #expect(back.pixels.allSatisfy { $0 > 250 })
  }

  @Test func jpegHasALimit() throws {
    let long = Picture(width: 65536, height: 1, pixels: .init(repeating: 0, count: 65536 * 3))
    #expect(throws: ImageFileError.self) { try long.jpegData() }
  }

  @Test func extensionChoosesTheFormat() throws {
    try inScratch {
      for (name, start) in [("a.png", [0x89, 0x50]), ("b.JPG", [0xFF, 0xD8]), ("c.jpeg", [0xFF, 0xD8])] as [(String, [UInt8])] {
        let url = scratch.appending(path: name)
        try picture.write(to: url)
        #expect(try Array(Data(contentsOf: url).prefix(2)) == start)
        #expect(try Picture(contentsOf: url).width == picture.width)
      }
      for (name, format) in [("a.webp", "WebP"), ("b.AVIF", "AVIF"), ("a", nil), ("png", nil), (".png", nil)] as [(String, String?)] {
        let path = scratch.appending(path: name).path(percentEncoded: false)
        #expect(throws: ImageFileError.unknownExtension(name: path, format: format)) {
          try picture.write(to: scratch.appending(path: name))
        }
      }
    }
  }

  @Test func aFailedWriteKeepsWhatWasThere() throws {
    try inScratch {
      let url = scratch.appending(path: "a.png")
      try picture.write(to: url)
      #expect(throws: FileWriteError.self) { try picture.write(to: scratch.appending(path: "none/a.png")) }
      let long = Picture(width: 65536, height: 1, pixels: .init(repeating: 0, count: 65536 * 3))
      let kept = scratch.appending(path: "kept.jpg")
      try picture.write(to: kept)
      #expect(throws: ImageFileError.self) { try long.write(to: kept) }
      #expect(try Picture(contentsOf: kept).width == picture.width)
    }
  }
}
