import Foundation
import ImageFiles
import LatentDiffusionTestSupport
import LatentDiffusionVideoFiles
import Tensor
import Testing

/// A ball that goes over a ramp with noise; the same for the same arguments.
private func walk(_ count: Int, width: Int = 24, height: Int = 18, colours: Int? = nil, hasAlpha: Bool = false) -> [Picture] {
  var generator = Lehmer(state: 5)
  let noise = (0..<width * height * 3).map { _ in Int.random(in: -6...6, using: &generator) }
  return (0..<count).map { index in
    let values = (0..<width * height * 3).map { position -> UInt8 in
      let (x, y, channel) = (position / 3 % width, position / 3 / width, position % 3)
      let isBall = abs(x - index * width / count) < 4 && abs(y - height / 2) < 4
      let value = isBall ? 250 - 80 * channel : (channel == 0 ? x * 255 / width : channel == 1 ? y * 255 / height : 90) + noise[position]
      let level = min(max(value, 0), 255)
      // So many levels a channel leave their cube of colours.
      return UInt8(colours.map { level * $0 / 256 * (255 / max($0 - 1, 1)) } ?? level)
    }
    return Picture(
      width: width, height: height, pixels: values, alpha: hasAlpha ? (0..<width * height).map { UInt8(($0 * 5 + index * 40) % 256) } : nil)
  }
}

/// The root of the mean square of all differences, in levels.
private func distance(_ a: [Picture], _ b: [Picture]) -> Double {
  let squares = zip(a, b).flatMap { first, second in zip(first.pixels, second.pixels).map { pow(Double($0) - Double($1), 2) } }
  return (squares.reduce(0, +) / Double(squares.count)).squareRoot()
}

@Suite struct ClipWritingTests {
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private func written(_ clip: Clip, _ name: String, quality: Int? = nil) throws -> Clip {
    let url = folder.url.appending(path: name)
    try clip.write(to: url, quality: quality)
    let left = try FileManager.default.contentsOfDirectory(atPath: folder.url.path(percentEncoded: false)).filter { $0.hasPrefix(".") }
    #expect(left.isEmpty)
    return try Clip(contentsOf: url)
  }

  @Test(arguments: ["clip.webp", "clip.png", "clip.PNG", "clip.apng"], [false, true])
  func everyFrameComesBackExactly(_ name: String, hasAlpha: Bool) throws {
    // Two frames are the same and stay two.
    let pictures = walk(7, hasAlpha: hasAlpha) + [walk(7, hasAlpha: hasAlpha)[6]]
    for parameters in [nil, "a red apple, ein Baum 🌳\nSteps: 3, Seed: 1"] {
      let clip = try Clip(pictures, framesPerSecond: 12, parameters: parameters)
      let back = try written(clip, name)
      #expect(back.frames.map(\.picture) == pictures)
      #expect(back.parameters == parameters)
      // WebP counts in thousandths of a second.
      #expect(abs(try #require(back.framesPerSecond) - 12) < 0.01)
    }
  }

  @Test func framesWithAndWithoutAlphaMix() throws {
    let pictures = [walk(2)[0], walk(2, hasAlpha: true)[1]]
    for name in ["mixed.webp", "mixed.png"] {
      #expect(try written(Clip(pictures, framesPerSecond: 5), name).frames.map(\.picture) == pictures)
    }
  }

  @Test(arguments: ["time.webp", "time.png", "time.gif"]) func everyFrameHasItsTime(_ name: String) throws {
    let times = [0.05, 0.5, 0.04, 3, 0.1]
    let clip = try Clip(zip(walk(5, colours: 3), times).map { Clip.Frame($0, duration: $1) })
    let back = try written(clip, name)
    for (frame, time) in zip(back.frames, times) { #expect(abs(frame.duration - time) < 1e-9) }
    #expect(back.framesPerSecond == nil)
  }

  /// What one frame is rounded to is made up for by a later one.
  @Test(arguments: [("rate.webp", 0.001), ("rate.gif", 0.01), ("rate.png", 1e-9)]) func timesAddUp(_ name: String, unit: Double) throws {
    for rate in [0.5, 7, 12, 23.976, 24, 30, 50] {
      let clip = try Clip(walk(40, colours: 3), framesPerSecond: rate)
      let back = try written(clip, name)
      #expect(abs(back.duration - 40 / rate) <= max(unit / 2, 40 * 5e-5 * (unit < 1e-6 ? 1 : 0)) + 1e-9, "\(rate)")
      #expect(abs(try #require(back.framesPerSecond) - rate) < 0.01 * rate)
    }
  }

  @Test func aGIFOfFewColoursIsExact() throws {
    let pictures = walk(6, colours: 6)
    let colours = Set(
      pictures.flatMap { picture in stride(from: 0, to: picture.pixels.count, by: 3).map { Array(picture.pixels[$0..<$0 + 3]) } })
    #expect((30...256).contains(colours.count))
    let back = try written(Clip(pictures, framesPerSecond: 10, parameters: "how ü"), "few.gif")
    #expect(back.frames.map(\.picture) == pictures)
    #expect(back.parameters == "how ü")
  }

  /// One palette of Pillow's median cut for all of these frames misses them by 4.8 levels without dithering and by 5.2 with its own, which flickers.
  @Test func aGIFOfManyColoursIsNearAndDoesNotFlicker() throws {
    let pictures = walk(6, width: 64, height: 48)
    let back = try written(Clip(pictures, framesPerSecond: 10), "many.gif").frames.map(\.picture)
    let found = distance(back, pictures)
    print("GIF of many colours: \(found) levels")
    #expect(found < 5.5)
    // Pixels that are the same in two frames of the clip are so in the file.
    var same = 0
    for (index, pair) in zip(pictures, pictures.dropFirst()).enumerated() {
      for pixel in stride(from: 0, to: pair.0.pixels.count, by: 3)
      where pair.0.pixels[pixel..<pixel + 3] == pair.1.pixels[pixel..<pixel + 3] {
        same += 1
        #expect(back[index].pixels[pixel..<pixel + 3] == back[index + 1].pixels[pixel..<pixel + 3])
      }
    }
    #expect(same > 10_000)
  }

  @Test func aLossyWebPIsNearAndSmaller() throws {
    let clip = try Clip(walk(6, width: 64, height: 48), framesPerSecond: 10)
    let back = try written(clip, "lossy.webp", quality: 80)
    #expect(distance(back.frames.map(\.picture), clip.frames.map(\.picture)) < 12)
    #expect(try clip.encoded(as: .webp, quality: 80).files[0].count < clip.encoded(as: .webp).files[0].count / 2)
  }

  @Test(arguments: ["frames/", "frames", "a.b/frames"]) func aFolderHasNumberedPictures(_ name: String) throws {
    let clip = try Clip(walk(3), framesPerSecond: 10, parameters: "x")
    if name.hasPrefix("a.b") {
      try FileManager.default.createDirectory(at: folder.url.appending(path: "a.b"), withIntermediateDirectories: true)
    }
    let url = folder.url.appending(path: name)
    try clip.write(to: url)
    let names = try FileManager.default.contentsOfDirectory(atPath: url.path(percentEncoded: false)).sorted()
    #expect(names == ["frame-0001.png", "frame-0002.png", "frame-0003.png"])
    for (name, frame) in zip(names, clip.frames) { #expect(try Picture(contentsOf: url.appending(path: name)) == frame.picture) }
    // What is there is not replaced.
    #expect(throws: (any Error).self) { try clip.write(to: url) }
  }

  @Test func aTensorBecomesAClip() throws {
    let clip = try Clip(walk(4), framesPerSecond: 8)
    #expect(try Clip(clip.tensor(), framesPerSecond: 8) == clip)
    #expect(clip.tensor().shape == [4, 18, 24, 3])
    #expect(throws: ClipError.unexpectedShape([4, 18, 24])) { try Clip(Tensor(shape: [4, 18, 24]), framesPerSecond: 8) }
    #expect(throws: ClipError.noFrames) { try Clip(Tensor(shape: [0, 18, 24, 3]), framesPerSecond: 8) }
  }

  @Test func whatCannotBeAClipIsRefused() throws {
    #expect(throws: ClipError.noFrames) { try Clip([Picture](), framesPerSecond: 10) }
    for rate in [0, -1, 1e9, 1e-9, .nan, .infinity] as [Double] {
      #expect(throws: ClipError.self) { try Clip(walk(2), framesPerSecond: rate) }
      #expect(throws: ClipError.self) { try ClipFormat.webp.check(framesPerSecond: rate) }
    }
    #expect(throws: ClipError.differentSizes(frame: 2, width: 5, height: 4, firstWidth: 24, firstHeight: 18)) {
      try Clip([walk(1)[0], walk(1, width: 5, height: 4)[0]], framesPerSecond: 10)
    }
    for time in [0, -1, 1e9, .nan] as [Double] {
      #expect(throws: ClipError.self) { try Clip([Clip.Frame(walk(1)[0], duration: time)]) }
    }
    let clip = try Clip(walk(2), framesPerSecond: 60)
    #expect(throws: ClipError.self) { try clip.encoded(as: .gif) }
    #expect(throws: ClipError.self) { try ClipFormat.gif.check(framesPerSecond: 60) }
    let long = try Clip([Picture(width: 16384, height: 1, pixels: .init(repeating: 0, count: 16384 * 3))], framesPerSecond: 10)
    #expect(throws: ImageFileError.self) { try long.encoded(as: .webp) }
    for name in ["clip.jpg", "clip.avi", "clip.x"] {
      #expect(throws: ClipError.self) { try clip.write(to: folder.url.appending(path: name)) }
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.url.path(percentEncoded: false)).isEmpty)
  }

  @Test func cancellingEndsTheEncoding() async throws {
    let clip = try Clip(walk(30, width: 128, height: 128), framesPerSecond: 10)
    for format in [ClipFormat.webp, .png, .gif, .folder] {
      let encoding = Task {
        withUnsafeCurrentTask { $0?.cancel() }
        return try clip.encoded(as: format)
      }
      await #expect(throws: CancellationError.self) { try await encoding.value }
    }
  }
}
