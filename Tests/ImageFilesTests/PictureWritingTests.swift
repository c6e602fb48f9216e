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

  @Test(arguments: ["colour2-depth8.png", "colour6-depth8.png", "one-pixel.png", "wide.png", "orientation5.png", "lossy-alpha.webp"])
  func webpWithoutLossComesBackExactly(_ file: String) throws {
    let picture = try Picture(contentsOf: folder.appending(path: file))
    #expect(try Picture(data: picture.webpData()) == picture)
  }

  @Test func webpIsNearAndNearerWithQuality() throws {
    let errors = try [100, 60, 5].map { quality in try loss { try picture.webpData(quality: quality) } }
    // Colours have half the resolution at any quality.
    #expect(errors[0] < 5 && errors[0] < errors[1] && errors[1] < errors[2], "\(errors)")
    #expect(try picture.webpData(quality: 1000) == picture.webpData(quality: 100))
    #expect(try picture.webpData(quality: -5) == picture.webpData(quality: 0))
    let veiled = Picture(
      width: picture.width, height: picture.height, pixels: picture.pixels,
      alpha: (0..<picture.width * picture.height).map { UInt8($0 % 256) })
    #expect(try Picture(data: veiled.webpData(quality: 60)).alpha == veiled.alpha)
  }

  @Test(arguments: [(16384, 1), (1, 16384)]) func webpHasALimit(_ width: Int, _ height: Int) throws {
    let long = Picture(width: width, height: height, pixels: .init(repeating: 0, count: 16384 * 3))
    let error = #expect(throws: ImageFileError.self) { try long.webpData() }
    #expect(try #require(error).description.contains("write a PNG file"))
  }

  @Test func noiseThatCannotBeCompressedFits() throws {
    var generator = SystemRandomNumberGenerator()
    for (width, height) in [(1, 1), (1, 3000), (3000, 1), (700, 500)] {
      let noise = Picture(
        width: width, height: height, pixels: (0..<width * height * 3).map { _ in .random(in: 0...255, using: &generator) })
      #expect(try Picture(data: noise.pngData()) == noise)
    }
  }

  /// The root of the mean square, in levels.
  private func loss(of encoded: () throws -> Data) throws -> Double {
    let back = try Picture(data: encoded())
    #expect((back.width, back.height) == (picture.width, picture.height))
    let squares = zip(back.pixels, picture.pixels).map { pow(Double($0) - Double($1), 2) }
    return (squares.reduce(0, +) / Double(squares.count)).squareRoot()
  }

  @Test func jpegIsNearAndNearerWithQuality() throws {
    func error(_ quality: Int) throws -> Double { try loss { try picture.jpegData(quality: quality) } }
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
      for (name, start) in [("a.png", [0x89, 0x50]), ("b.JPG", [0xFF, 0xD8]), ("c.jpeg", [0xFF, 0xD8]), ("d.WebP", [0x52, 0x49])]
        as [(String, [UInt8])]
      {
        let url = scratch.appending(path: name)
        try picture.write(to: url)
        #expect(try Array(Data(contentsOf: url).prefix(2)) == start)
        #expect(try Picture(contentsOf: url).width == picture.width)
      }
      for (name, format) in [("a.gif", "GIF"), ("b.AVIF", "AVIF"), ("a", nil), ("png", nil), (".png", nil)] as [(String, String?)] {
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
