import Foundation
import ImageFiles
import LatentDiffusionTestSupport
import Testing

@Suite struct PictureReadingTests {
  @Test(.compares("Pictures of every kind", in: .files, with: "pillow", unit: .absolute), arguments: ImageCases.all.reading)
  func readsAsPillowDoes(_ expected: ImageCases.Case) throws {
    let picture = try Picture(contentsOf: expected.url)
    #expect(picture.width == expected.width)
    #expect(picture.height == expected.height)
    expectSamples(picture.pixels, equal: expected.pixels, within: expected.tolerance ?? 0)
    #expect((picture.alpha == nil) == (expected.alpha == nil))
    if let alpha = picture.alpha, let expectedAlpha = expected.alpha { expectSamples(alpha, equal: expectedAlpha) }
  }

  @Test(arguments: ImageCases.all.broken) func refusesBrokenFiles(_ file: String) throws {
    let error = #expect(throws: ImageFileError.self) { try Picture(contentsOf: folder.appending(path: file)) }
    let sentence = try #require(error).description
    #expect(sentence.hasPrefix(folder.appending(path: file).path(percentEncoded: false)))
    #expect(sentence.hasSuffix("."))
    #expect(sentence.contains { !$0.isASCII || $0 == ";" }, "\(sentence) does not say what to do")
  }

  @Test(arguments: [
    ("huge.png", 0x7FFF_FFFF, 0x7FFF_FFFF), ("long.png", 16385, 1), ("many.png", 16384, 16385), ("huge.jpg", 65000, 65000),
    ("long.webp", 16385, 1), ("huge.webp", 1 << 24, 1 << 24),
  ])
  func refusesHugeSizesBeforeMemoryIsTaken(_ file: String, _ width: Int, _ height: Int) throws {
    let url = folder.appending(path: file)
    #expect(throws: ImageFileError.tooLarge(name: url.path(percentEncoded: false), width: width, height: height)) {
      try Picture(contentsOf: url)
    }
  }

  @Test func namesTheWrongChecksum() throws {
    let data = try Data(contentsOf: folder.appending(path: "checksum.png"))
    #expect(throws: ImageFileError.damaged(name: "x", reason: "the checksum of its part IDAT is wrong")) {
      try Picture(data: data, name: "x")
    }
  }

  @Test(arguments: [
    "colour2-depth8.png", "colour3-depth4-interlaced.png", "sampling-420.jpg", "progressive.jpg", "orientation6.jpg",
    "lossless-alpha.webp", "lossy-80.webp", "lossy-alpha.webp", "orientation6.webp",
  ])
  func refusesAFileThatEndsEarlyWhereverItEnds(_ file: String) throws {
    let data = try Data(contentsOf: folder.appending(path: file))
    for length in 0..<data.count {
      let picture = try? Picture(data: data.prefix(length))
      #expect(picture?.width == nil, "\(length) of \(data.count) bytes were enough")
    }
  }

  /// Damage may go unnoticed (JPEG has no checksums), but it must never end the process.
  @Test func survivesDamage() throws {
    var state: UInt64 = 1
    func random(below bound: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33) % bound
    }
    for name in Set(ImageCases.all.reading.map(\.file)).sorted() {
      let whole = try Array(Data(contentsOf: folder.appending(path: name)))
      for _ in 0..<40 {
        var bytes = whole
        for _ in 0...random(below: 4) { bytes[random(below: min(bytes.count, 400))] = UInt8(random(below: 256)) }
        _ = try? Picture(data: Data(bytes))
      }
    }
  }

  @Test func saysThatAnimationsAreRefused() throws {
    let data = try Data(contentsOf: folder.appending(path: "animated.webp"))
    #expect(throws: ImageFileError.damaged(name: "x", reason: "it is an animation")) { try Picture(data: data, name: "x") }
  }

  @Test func refusesWhatIsNoPicture() throws {
    let path = folder.path(percentEncoded: false)
    #expect(throws: ImageFileError.isFolder(name: path)) { try Picture(contentsOf: folder) }
    #expect(throws: ImageFileError.notFound(name: path + "/none.png")) { try Picture(contentsOf: folder.appending(path: "none.png")) }
    #expect(throws: ImageFileError.empty(name: "/dev/null")) { try Picture(contentsOf: URL(filePath: "/dev/null")) }
    #expect(throws: ImageFileError.unknownFormat(name: "/dev/zero", found: nil)) { try Picture(contentsOf: URL(filePath: "/dev/zero")) }
    #expect(throws: ImageFileError.empty(name: "The picture")) { try Picture(data: Data()) }
    #expect(throws: ImageFileError.unknownFormat(name: path + "/images.json", found: nil)) {
      try Picture(contentsOf: folder.appending(path: "images.json"))
    }
  }

  @Test(arguments: [
    ("GIF89a", "GIF"), ("BM", "BMP"), ("II*\0", "TIFF"), ("MM\0*", "TIFF"),
    ("\0\0\0\u{1C}ftypavif", "AVIF"), ("\0\0\0\u{18}ftypheic", "HEIC"), ("%PDF-1.4", "PDF"), ("<svg ", "SVG or XML"),
  ])
  func namesOtherFormats(_ start: String, _ format: String) {
    #expect(throws: ImageFileError.unknownFormat(name: "The picture", found: format)) { try Picture(data: Data(start.utf8)) }
  }

  /// Pillow writes the orientation big-endian and as the second entry; other writers differ.
  @Test(
    arguments: [
      ([0x49, 0x49, 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0], true),
      ([0x49, 0x49, 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 4, 0, 1, 0, 0, 0, 6, 0, 0, 0], true),
      ([0x4D, 0x4D, 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0], true),
      // Out of range, of another type, an offset behind the end, more entries than there are, another magic number, nothing at all.
      ([0x49, 0x49, 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 9, 0, 0, 0], false),
      ([0x49, 0x49, 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 2, 0, 1, 0, 0, 0, 6, 0, 0, 0], false),
      ([0x49, 0x49, 42, 0, 0xFF, 0xFF, 0xFF, 0xFF], false),
      ([0x49, 0x49, 42, 0, 8, 0, 0, 0, 0xFF, 0xFF, 1, 1], false),
      ([0x49, 0x49, 43, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0], false),
      ([], false),
    ] as [([UInt8], Bool)])
  func readsOrientationOfAnyWriter(_ exif: [UInt8], isTurned: Bool) throws {
    let payload = Array("Exif\0\0".utf8) + exif
    let segment = [0xFF, 0xE1, 0, UInt8(payload.count + 2)] + payload
    var bytes = try Array(Data(contentsOf: folder.appending(path: "sampling-444.jpg")))
    bytes.insert(contentsOf: segment, at: 2)
    let picture = try Picture(data: Data(bytes))
    #expect((picture.width, picture.height) == (isTurned ? (21, 29) : (29, 21)))
    // In WebP files, the block may have the mark of JPEG before it.
    for block in [exif, payload] {
      var file = try Array(Data(contentsOf: folder.appending(path: "lossless.webp")))
      file += Array("EXIF".utf8) + [UInt8(block.count), 0, 0, 0] + block + Array(repeating: 0, count: block.count % 2)
      (file[4], file[5]) = (UInt8((file.count - 8) & 255), UInt8((file.count - 8) >> 8))
      let picture = try Picture(data: Data(file))
      #expect((picture.width, picture.height) == (isTurned ? (21, 29) : (29, 21)))
    }
  }
}
