import Foundation
import ImageFiles

/// Animated PNG: `acTL` says how many frames there are, and before each frame `fcTL` says where, how and how long it is shown. The pixels of the first are in
/// `IDAT`, so that programs which know no animations show it, and those of the others in `fdAT`. Source: the third edition of W3C's Portable Network Graphics.
extension Clip {
  func pngData() throws -> Data {
    let pictures = uniformPictures
    var (bytes, sequence) = (PNGChunks.signature, 0)
    for (index, frame) in frames.enumerated() {
      try Task.checkCancellation()
      let file = try PNGChunks(Array(pictures[index].pngData()), name: "The frame")
      if index == 0 {
        for chunk in file.chunks.prefix(while: { $0.type != "IDAT" }) { bytes += file.bytes[chunk.whole] }
        // It is shown again and again.
        bytes += PNGChunks.chunk("acTL", frames.count.bigEndian(bytes: 4) + 0.bigEndian(bytes: 4))
        if let parameters { bytes += PNGChunks.chunk(text: parameters, keyword: "parameters") }
      }
      bytes += PNGChunks.chunk("fcTL", FrameControl(wholeFrameOf: self, duration: frame.duration).payload(sequence: sequence))
      sequence += 1
      let pixels = file.chunks.filter { $0.type == "IDAT" }.flatMap { file.bytes[$0.payload] }
      if index == 0 {
        bytes += PNGChunks.chunk("IDAT", pixels)
      } else {
        bytes += PNGChunks.chunk("fdAT", sequence.bigEndian(bytes: 4) + pixels)
        sequence += 1
      }
    }
    return Data(bytes + PNGChunks.chunk("IEND", []))
  }

  init(png bytes: [UInt8], name: String) throws {
    let file = try PNGChunks(bytes, name: name)
    guard let control = file.chunks.first(where: { ["acTL", "IDAT"].contains($0.type) }), control.type == "acTL" else {
      try self.init(read: [Frame(try Picture(data: Data(bytes), name: name), duration: 0)], parameters: file.text("parameters"), name: name)
      return
    }
    guard control.payload.count == 8, file.isIntact(control), let count = bytes.integer(at: control.payload.lowerBound, bytes: 4) else {
      throw ClipError.damaged(name: name, reason: "the number of its frames is damaged")
    }
    try Self.checkSize(width: file.width, height: file.height, frames: count, name: name)
    let parts = try AnimatedPNGFrame.all(of: file, name: name)
    guard parts.count == count else {
      throw ClipError.damaged(name: name, reason: "it has \(parts.count) frames and says that it has \(count)")
    }
    var canvas = Canvas(width: file.width, height: file.height)
    let frames = try parts.enumerated().map { index, part in
      let picture = try part.picture(in: file, name: name), control = part.control
      // There is nothing before the first frame.
      let disposal = index == 0 && control.disposal == .previous ? .background : control.disposal
      return Frame(canvas.show(picture, at: control.place, blends: control.blends, disposal: disposal), duration: control.duration)
    }
    try self.init(read: frames, parameters: file.text("parameters"), name: name)
  }
}

/// A frame of an animated PNG: its `fcTL`, and its pixels as deflate left them.
private struct AnimatedPNGFrame {
  let control: FrameControl
  var pixels: [UInt8] = []

  /// - Throws: `ClipError.damaged`.
  static func all(of file: PNGChunks, name: String) throws(ClipError) -> [AnimatedPNGFrame] {
    var frames: [AnimatedPNGFrame] = []
    var sequence = 0
    for chunk in file.chunks where ["fcTL", "fdAT", "IDAT"].contains(chunk.type) {
      guard file.isIntact(chunk) else { throw .damaged(name: name, reason: "the checksum of its part \(chunk.type) is wrong") }
      let payload = file.bytes[chunk.payload]
      if chunk.type == "IDAT" {
        // Pixels before the first `fcTL` are for programs that know no animations.
        if !frames.isEmpty { frames[frames.count - 1].pixels += payload }
        continue
      }
      guard file.bytes.integer(at: chunk.payload.lowerBound, bytes: 4) == sequence else {
        throw .damaged(name: name, reason: "its frames are not in order")
      }
      sequence += 1
      if chunk.type == "fcTL" {
        guard let control = FrameControl(Array(payload)), control.place.fits(width: file.width, height: file.height) else {
          throw .damaged(name: name, reason: "frame \(frames.count + 1) does not fit")
        }
        frames.append(AnimatedPNGFrame(control: control))
      } else if frames.isEmpty {
        throw .damaged(name: name, reason: "its frames are not in order")
      } else {
        frames[frames.count - 1].pixels += payload.dropFirst(4)
      }
    }
    return frames
  }

  /// The pixels as a PNG of their own, of the same kind as the whole file.
  func picture(in file: PNGChunks, name: String) throws -> Picture {
    var bytes = PNGChunks.signature
    for chunk in file.chunks.prefix(while: { $0.type != "IDAT" }) where ["IHDR", "PLTE", "tRNS"].contains(chunk.type) {
      let payload = Array(file.bytes[chunk.payload])
      let size = control.place.width.bigEndian(bytes: 4) + control.place.height.bigEndian(bytes: 4)
      bytes += PNGChunks.chunk(chunk.type, chunk.type == "IHDR" ? size + payload.dropFirst(8) : payload)
    }
    return try Picture(data: Data(bytes + PNGChunks.chunk("IDAT", pixels) + PNGChunks.chunk("IEND", [])), name: name)
  }
}

/// What `fcTL` says.
private struct FrameControl {
  let place: Canvas.Place
  /// Seconds.
  let duration: Double
  let disposal: Canvas.Disposal
  let blends: Bool

  /// A frame that takes the place of all that was shown before.
  init(wholeFrameOf clip: Clip, duration: Double) {
    place = Canvas.Place(x: 0, y: 0, width: clip.width, height: clip.height)
    (self.duration, disposal, blends) = (duration, .none, false)
  }

  init?(_ payload: [UInt8]) {
    guard payload.count == 26 else { return nil }
    let numbers = (1...4).compactMap { payload.integer(at: $0 * 4, bytes: 4) }
    guard numbers.count == 4, let numerator = payload.integer(at: 20, bytes: 2), let denominator = payload.integer(at: 22, bytes: 2),
      let disposal = ([.none, .background, .previous] as [Canvas.Disposal]).dropFirst(Int(payload[24])).first, payload[25] < 2
    else { return nil }
    place = Canvas.Place(x: numbers[2], y: numbers[3], width: numbers[0], height: numbers[1])
    duration = Double(numerator) / Double(denominator == 0 ? 100 : denominator)
    (self.disposal, blends) = (disposal, payload[25] == 1)
  }

  func payload(sequence: Int) -> [UInt8] {
    let (numerator, denominator) = fraction
    return [sequence, place.width, place.height, place.x, place.y].flatMap { $0.bigEndian(bytes: 4) }
      + numerator.bigEndian(bytes: 2) + denominator.bigEndian(bytes: 2) + [0, 0]
  }

  /// The duration as two numbers of 16 bits: exact for whole numbers of frames a second.
  private var fraction: (Int, Int) {
    let rate = (1 / duration).rounded()
    if rate >= 1, abs(duration * rate - 1) < 1e-9 { return (1, Int(rate)) }
    let denominator = duration < 6 ? 10_000 : 600
    return (Int((duration * Double(denominator)).rounded()), denominator)
  }
}
