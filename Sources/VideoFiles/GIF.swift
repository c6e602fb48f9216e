import Foundation
import ImageFiles

#if canImport(ImageIO)
  extension Clip {
    func gifData() throws -> Data { throw ClipError.notEncodable(reason: "this system has no encoder for GIF; write a .png file") }
    init(gif bytes: [UInt8], name: String) throws { throw ClipError.damaged(name: name, reason: "this system does not read GIF") }
  }
#else
  import CLatentDiffusionGIF

  extension Clip {
    /// A GIF of one palette, which is made for all frames.
    func gifData() throws -> Data {
      guard width <= 65535, height <= 65535 else {
        throw ClipError.notEncodable(reason: "\(width)×\(height) pixels are too many for a GIF; write a .png file")
      }
      try ClipFormat.gif.checkGIF(shortest: frames.map(\.duration).min() ?? 1)
      let pictures = frames.map { $0.picture.flattened() }
      let palette = try Palette(of: pictures)
      let sink = Bytes([])
      var error: Int32 = 0
      // giflib returns less than it was given where writing fails, and this does not.
      let write: OutputFunc = { file, bytes, count in
        guard let file, let bytes, let sink = Bytes.of(file) else { return 0 }
        sink.values += UnsafeBufferPointer(start: bytes, count: Int(count))
        return count
      }
      guard let file = EGifOpen(Unmanaged.passUnretained(sink).toOpaque(), write, &error) else {
        throw ClipError.notEncodable(reason: sentence(error))
      }
      let isWritten = try gifFrames(pictures, palette, to: file)
      let reason = sentence(file.pointee.Error)
      guard EGifCloseFile(file, &error) == GIF_OK, isWritten else {
        throw ClipError.notEncodable(reason: isWritten ? sentence(error) : reason)
      }
      return Data(sink.values)
    }

    /// - Returns: false if the library fails; `Error` says why.
    private func gifFrames(_ pictures: [Picture], _ palette: Palette, to file: UnsafeMutablePointer<GifFileType>) throws -> Bool {
      // The library takes powers of two.
      let colours = palette.colours + Array(repeating: Palette.Colour(), count: 256 - palette.colours.count)
      let map = GifMakeMapObject(256, colours.map { GifColorType(Red: $0.red, Green: $0.green, Blue: $0.blue) })
      defer { GifFreeMapObject(map) }
      EGifSetGifVersion(file, true)
      // It is shown again and again: Netscape's extension with 0 rounds.
      let application = Array("NETSCAPE2.0".utf8), rounds: [UInt8] = [1, 0, 0]
      guard EGifPutScreenDesc(file, Int32(width), Int32(height), 8, 0, map) == GIF_OK,
        EGifPutExtensionLeader(file, Int32(APPLICATION_EXT_FUNC_CODE)) == GIF_OK,
        EGifPutExtensionBlock(file, Int32(application.count), application) == GIF_OK,
        EGifPutExtensionBlock(file, Int32(rounds.count), rounds) == GIF_OK, EGifPutExtensionTrailer(file) == GIF_OK
      else { return false }
      if let parameters, EGifPutComment(file, parameters) != GIF_OK { return false }
      var lookup = Palette.Lookup(palette)
      for (picture, duration) in zip(pictures, durations(units: 100)) {
        try Task.checkCancellation()
        var control = GraphicsControlBlock(
          DisposalMode: DISPOSE_DO_NOT, UserInputFlag: false, DelayTime: Int32(duration), TransparentColor: NO_TRANSPARENT_COLOR)
        var block = [UInt8](repeating: 0, count: 4)
        _ = EGifGCBToExtension(&control, &block)
        guard EGifPutExtension(file, Int32(GRAPHICS_EXT_FUNC_CODE), 4, block) == GIF_OK,
          EGifPutImageDesc(file, 0, 0, Int32(width), Int32(height), false, nil) == GIF_OK
        else { return false }
        var indices = lookup.indices(of: picture)
        // The library codes a whole picture as one row as well.
        guard EGifPutLine(file, &indices, Int32(indices.count)) == GIF_OK else { return false }
      }
      return true
    }
  }

  /// The bytes that giflib's callbacks write and read.
  private final class Bytes {
    var values: [UInt8]
    var offset = 0

    init(_ values: [UInt8]) { self.values = values }

    static func of(_ file: UnsafeMutablePointer<GifFileType>) -> Bytes? {
      file.pointee.UserData.map { Unmanaged<Bytes>.fromOpaque($0).takeUnretainedValue() }
    }
  }

  private func sentence(_ error: Int32) -> String { GifErrorString(error).map { String(cString: $0).lowercased() } ?? "giflib fails" }

  extension Clip {
    init(gif bytes: [UInt8], name: String) throws {
      let source = Bytes(bytes)
      var error: Int32 = 0
      let read: InputFunc = { file, target, count in
        guard let file, let target, let source = Bytes.of(file) else { return 0 }
        let piece = source.values.dropFirst(source.offset).prefix(Int(count))
        _ = UnsafeMutableBufferPointer(start: target, count: piece.count).update(fromContentsOf: piece)
        source.offset += piece.count
        return Int32(piece.count)
      }
      guard let file = DGifOpen(Unmanaged.passUnretained(source).toOpaque(), read, &error) else {
        throw ClipError.damaged(name: name, reason: sentence(error))
      }
      defer { DGifCloseFile(file, &error) }
      var reader = try GIFReader(file: file, name: name)
      try withExtendedLifetime(source) { try reader.readAll() }
      try self.init(read: reader.frames, parameters: reader.comment, name: name)
    }
  }

  /// Draws the pictures of a GIF one after the other.
  private struct GIFReader {
    let file: UnsafeMutablePointer<GifFileType>
    let name: String
    var canvas: Canvas
    var frames: [Clip.Frame] = []
    var comment: String?
    /// What holds for the next picture.
    private var control = GraphicsControlBlock(DisposalMode: 0, UserInputFlag: false, DelayTime: 0, TransparentColor: NO_TRANSPARENT_COLOR)

    init(file: UnsafeMutablePointer<GifFileType>, name: String) throws(ClipError) {
      let (width, height) = (Int(file.pointee.SWidth), Int(file.pointee.SHeight))
      try Clip.checkSize(width: width, height: height, frames: 1, name: name)
      (self.file, self.name, canvas) = (file, name, Canvas(width: width, height: height))
    }

    mutating func readAll() throws(ClipError) {
      while true {
        var record = UNDEFINED_RECORD_TYPE
        try check(DGifGetRecordType(file, &record))
        switch record {
        case IMAGE_DESC_RECORD_TYPE: try readPicture()
        case EXTENSION_RECORD_TYPE: try readExtension()
        case TERMINATE_RECORD_TYPE: return
        default: throw .damaged(name: name, reason: "it has a part of an unknown kind")
        }
      }
    }

    private func check(_ status: Int32) throws(ClipError) {
      guard status == GIF_OK else { throw .damaged(name: name, reason: sentence(file.pointee.Error)) }
    }

    private mutating func readExtension() throws(ClipError) {
      var (code, block) = (Int32(0), UnsafeMutablePointer<UInt8>?.none)
      try check(DGifGetExtension(file, &code, &block))
      var text: [UInt8] = []
      // The first byte of a block is its length.
      while let bytes = block {
        if code == GRAPHICS_EXT_FUNC_CODE, DGifExtensionToGCB(Int(bytes[0]), bytes + 1, &control) != GIF_OK {
          throw .damaged(name: name, reason: "the time of a frame is damaged")
        }
        if code == COMMENT_EXT_FUNC_CODE { text += UnsafeBufferPointer(start: bytes + 1, count: Int(bytes[0])) }
        try check(DGifGetExtensionNext(file, &block))
      }
      if code == COMMENT_EXT_FUNC_CODE, comment == nil { comment = String(decoding: text, as: UTF8.self) }
    }

    private mutating func readPicture() throws(ClipError) {
      try check(DGifGetImageDesc(file))
      let image = file.pointee.Image
      let place = Canvas.Place(x: Int(image.Left), y: Int(image.Top), width: Int(image.Width), height: Int(image.Height))
      try Clip.checkSize(width: canvas.width, height: canvas.height, frames: frames.count + 1, name: name)
      guard place.fits(width: canvas.width, height: canvas.height), let map = image.ColorMap ?? file.pointee.SColorMap else {
        throw .damaged(name: name, reason: "frame \(frames.count + 1) does not fit")
      }
      var rgba = [UInt8](repeating: 0, count: place.width * place.height * 4)
      var row = [UInt8](repeating: 0, count: place.width)
      for line in Self.lines(of: place.height, isInterlaced: image.Interlace) {
        try check(DGifGetLine(file, &row, Int32(place.width)))
        for (column, index) in row.enumerated() where Int32(index) != control.TransparentColor {
          guard Int(index) < map.pointee.ColorCount else { throw .damaged(name: name, reason: "a colour is missing") }
          let colour = map.pointee.Colors[Int(index)], start = (line * place.width + column) * 4
          (rgba[start], rgba[start + 1], rgba[start + 2], rgba[start + 3]) = (colour.Red, colour.Green, colour.Blue, 255)
        }
      }
      let disposal: Canvas.Disposal = [DISPOSE_BACKGROUND: .background, DISPOSE_PREVIOUS: .previous][control.DisposalMode] ?? .none
      let shown = canvas.show(
        Picture(width: place.width, height: place.height, rgba: rgba), at: place, blends: true, disposal: disposal)
      frames.append(Clip.Frame(shown, duration: Double(control.DelayTime) / 100))
      control = GraphicsControlBlock(DisposalMode: 0, UserInputFlag: false, DelayTime: 0, TransparentColor: NO_TRANSPARENT_COLOR)
    }

    /// The rows in the order of the file: interlaced ones come in four passes.
    private static func lines(of height: Int, isInterlaced: Bool) -> [Int] {
      guard isInterlaced else { return Array(0..<height) }
      return [(0, 8), (4, 8), (2, 4), (1, 2)].flatMap { Array(stride(from: $0, to: height, by: $1)) }
    }
  }
#endif
