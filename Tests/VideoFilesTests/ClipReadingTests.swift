import Foundation
import ImageFiles
import LatentDiffusionTestSupport
import LatentDiffusionVideoFiles
import Testing

private let folder = fixtures.appending(path: "clips")

/// What `make_clips.py` says about the animations beside it.
private struct ClipCase: Decodable, Sendable, CustomTestStringConvertible {
  let file: String
  let width, height, tolerance: Int
  let milliseconds: [Double]
  /// Red, green, blue and alpha of all frames.
  let frames: Data

  var url: URL { folder.appending(path: file) }
  var testDescription: String { file }

  static let all: [ClipCase] = {
    do {
      return try JSONDecoder().decode([ClipCase].self, from: Data(contentsOf: folder.appending(path: "clips.json")))
    } catch {
      preconditionFailure("clips.json cannot be read: \(error)")
    }
  }()
}

@Suite struct ClipReadingTests {
  @Test(.compares("Animations with every disposal and blending", in: .files, with: "pillow", unit: .absolute), arguments: ClipCase.all)
  private func readsAsPillowDoes(_ reference: ClipCase) throws {
    let clip = try Clip(contentsOf: reference.url)
    #expect((clip.width, clip.height, clip.frames.count) == (reference.width, reference.height, reference.milliseconds.count))
    for (frame, milliseconds) in zip(clip.frames, reference.milliseconds) {
      // What has no time is shown for a tenth of a second.
      #expect(abs(frame.duration * 1000 - (milliseconds > 0 ? milliseconds : 100)) < 0.01)
    }
    let samples = clip.frames.flatMap(\.picture.samples)
    try #require(samples.count == reference.frames.count)
    let expected = Array(reference.frames)
    var worst = (difference: 0, index: 0)
    for index in samples.indices {
      // The colours of transparent pixels are nobody's business.
      guard index % 4 == 3 || expected[index | 3] > 0 else { continue }
      let difference = abs(Int(samples[index]) - Int(expected[index]))
      if difference > worst.difference { worst = (difference, index) }
    }
    let size = reference.width * reference.height * 4
    expect(
      error: Float(worst.difference), atMost: Float(reference.tolerance),
      "frame \(worst.index / size), sample \(worst.index % size) is \(samples[worst.index]), not \(expected[worst.index])")
  }

  @Test func aTextOfOtherProgramsIsFound() throws {
    #expect(try Clip(contentsOf: folder.appending(path: "comment.webp")).parameters == "ein Baum 🌳\nSteps: 3")
    #expect(try Clip(contentsOf: folder.appending(path: "local.gif")).parameters == "how it was made")
    #expect(try Clip(contentsOf: folder.appending(path: "palette.png")).parameters == nil)
  }

  @Test func aStillPictureIsAClipOfOneFrame() throws {
    let still = Picture(width: 3, height: 2, pixels: (0..<18).map { UInt8($0 * 14) })
    for data in [try still.pngData(parameters: "x"), try still.webpData()] {
      let clip = try Clip(data: data)
      #expect(clip.frames == [.init(still, duration: 0.1)])
    }
    #expect(try Clip(data: still.pngData(parameters: "x")).parameters == "x")
  }

  @Test func whatIsNoClipIsRefused() throws {
    for data in [Data(), Data("GI".utf8), try Picture(width: 1, height: 1, pixels: [1, 2, 3]).jpegData()] {
      #expect(throws: ClipError.unknownFormat(name: "The clip")) { try Clip(data: data) }
    }
    #expect(throws: ImageFileError.self) { try Clip(contentsOf: folder.appending(path: "missing.gif")) }
    let script = folder.appending(path: "make_clips.py")
    #expect(throws: ClipError.unknownFormat(name: script.path(percentEncoded: false))) { try Clip(contentsOf: script) }
  }

  /// Cut anywhere, a file is an error.
  @Test(arguments: ClipCase.all) private func aFileThatBreaksOffIsAnError(_ reference: ClipCase) throws {
    let whole = try Data(contentsOf: reference.url)
    for length in stride(from: 0, to: whole.count, by: max(1, whole.count / 200)) {
      #expect(throws: (any Error).self, "cut to \(length) of \(whole.count) bytes") { try Clip(data: whole.prefix(length)) }
    }
  }

  /// With any byte changed it is an error or a clip, and nothing else.
  @Test(arguments: ClipCase.all) private func aDamagedFileEndsNothing(_ reference: ClipCase) throws {
    let whole = try [UInt8](Data(contentsOf: reference.url))
    var generator = Lehmer(state: UInt64(whole.count) | 1)
    for round in 0..<400 {
      var damaged = whole
      // The beginning, where sizes are, is damaged more often.
      let range = round.isMultiple(of: 2) ? min(120, whole.count) : whole.count
      for _ in 0..<Int.random(in: 1...3, using: &generator) {
        damaged[Int.random(in: 0..<range, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
      }
      guard let clip = try? Clip(data: Data(damaged)) else { continue }
      #expect(clip.width > 0 && clip.height > 0)
    }
  }

  @Test func aSizeThatFillsAllMemoryIsRefused() throws {
    // A GIF of 65535×65535 in 13 bytes and a PNG of a billion frames.
    let gif = Data("GIF89a".utf8) + Data([255, 255, 255, 255, 0x80, 0, 0]) + Data(repeating: 0, count: 6)
    #expect(throws: ClipError.tooLarge(name: "The clip", width: 65535, height: 65535, frames: 1)) { try Clip(data: gif) }
    let file = try PNGChunks([UInt8](Data(contentsOf: folder.appending(path: "hidden.png"))), name: "")
    let control = try #require(file.chunks.first { $0.type == "acTL" })
    let cases: [(Int, ClipError)] = [
      (1 << 31, .tooLarge(name: "The clip", width: 16, height: 12, frames: 1 << 31)),
      (4, .damaged(name: "The clip", reason: "it has 3 frames and says that it has 4")),
    ]
    for (count, error) in cases {
      let other = PNGChunks.chunk("acTL", count.bigEndian(bytes: 4) + 0.bigEndian(bytes: 4))
      let bytes = Array(file.bytes[..<control.whole.lowerBound]) + other + Array(file.bytes[control.whole.upperBound...])
      #expect(throws: error) { try Clip(data: Data(bytes)) }
    }
  }
}

/// Numbers that are the same each time.
struct Lehmer: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state = state &* 0xda94_2042_e4dd_58b5 &+ 0x9E37_79B9_7F4A_7C15
    return state ^ (state >> 29)
  }
}

extension Picture {
  /// Red, green, blue and alpha.
  var samples: [UInt8] {
    var result: [UInt8] = []
    for pixel in 0..<width * height {
      result += pixels[pixel * 3..<pixel * 3 + 3]
      result.append(alpha?[pixel] ?? 255)
    }
    return result
  }
}
