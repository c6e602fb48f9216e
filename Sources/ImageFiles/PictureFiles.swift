import LatentDiffusionFiles
import Foundation
import Tensor

/// The formats that can be read and written.
public enum PictureFormat: Sendable, Equatable {
  /// Portable Network Graphics, the Joint Photographic Experts Group's format, and WebP.
  case png, jpeg, webp

  /// The format that a file's extension names. Check it before a long computation whose result is written there.
  /// - Throws: `ImageFileError.unknownExtension`.
  public init(extensionOf url: URL) throws(ImageFileError) {
    switch url.pathExtension.lowercased() {
    case "png": self = .png
    case "jpg", "jpeg": self = .jpeg
    case "webp": self = .webp
    case let other: throw .unknownExtension(name: url.path(percentEncoded: false), format: Self.foreignFormats[other])
    }
  }

  /// The format that the first bytes of a file identify.
  init(signatureOf bytes: [UInt8], name: String) throws(ImageFileError) {
    guard !bytes.isEmpty else { throw .empty(name: name) }
    if bytes.starts(with: PNGChunks.signature) {
      self = .png
    } else if bytes.starts(with: JPEGMarkers.signature) {
      self = .jpeg
    } else if WebPChunks.isSignature(of: bytes) {
      self = .webp
    } else {
      throw .unknownFormat(name: name, found: Self.foreignFormat(of: bytes))
    }
  }

  /// Known formats that cannot be written, by extension.
  private static let foreignFormats = [
    "gif": "GIF", "bmp": "BMP", "tif": "TIFF", "tiff": "TIFF", "avif": "AVIF", "heic": "HEIC", "heif": "HEIC",
    "jxl": "JPEG XL",
    "jp2": "JPEG 2000", "svg": "SVG", "pdf": "PDF", "psd": "Photoshop", "ppm": "PPM", "tga": "TGA", "ico": "icon",
  ]

  private static func foreignFormat(of bytes: [UInt8]) -> String? {
    func has(_ text: String, at offset: Int) -> Bool { bytes.has(text, at: offset) }
    if has("GIF8", at: 0) { return "GIF" }
    if has("BM", at: 0) { return "BMP" }
    if has("II*\0", at: 0) || has("MM\0*", at: 0) { return "TIFF" }
    if has("JXL ", at: 4) || bytes.starts(with: [0xFF, 0x0A]) { return "JPEG XL" }
    if has("ftypavi", at: 4) { return "AVIF" }
    if ["ftyphei", "ftyphev", "ftypmif"].contains(where: { has($0, at: 4) }) { return "HEIC" }
    if has("%PDF", at: 0) { return "PDF" }
    if has("<svg", at: 0) || has("<?xml", at: 0) { return "SVG or XML" }
    return nil
  }
}

extension Picture {
  /// Reads a PNG, JPEG or WebP file, whatever its extension, and turns the picture by its EXIF orientation.
  ///
  /// All colour types of PNG become 8-bit RGB as they are stored: the colour space that a file names is ignored, and 16 bits are cut
  /// to 8. Grey and CMYK JPEGs become RGB. Animations are refused.
  /// - Throws: `ImageFileError`.
  public init(contentsOf url: URL) throws(ImageFileError) {
    let name = url.isFileURL ? url.path(percentEncoded: false) : url.absoluteString
    try self.init(bytes: pictureBytes(at: url, name: name), name: name)
  }

  /// Reads the contents of a PNG, JPEG or WebP file.
  /// - Parameter name: the name in errors.
  /// - Throws: `ImageFileError`.
  public init(data: Data, name: String = "The picture") throws(ImageFileError) { try self.init(bytes: Array(data), name: name) }

  /// The width and height that the header of a PNG, JPEG or WebP file states, before it is turned: for programs that limit what they decode.
  /// - Parameter name: the name in errors.
  /// - Throws: `ImageFileError`.
  public static func statedSize(of data: Data, name: String = "The picture") throws(ImageFileError) -> (width: Int, height: Int) {
    let bytes = Array(data)
    switch try PictureFormat(signatureOf: bytes, name: name) {
    case .png:
      let file = try PNGChunks(bytes, name: name)
      return (file.width, file.height)
    case .jpeg:
      let file = try JPEGMarkers(bytes, name: name)
      return (file.width, file.height)
    case .webp:
      let file = try WebPChunks(bytes, name: name)
      return (file.width, file.height)
    }
  }

  private init(bytes: [UInt8], name: String) throws(ImageFileError) {
    switch try PictureFormat(signatureOf: bytes, name: name) {
    case .png:
      let file = try PNGChunks(bytes, name: name)
      try Self.checkSize(width: file.width, height: file.height, name: name)
      let picture = try Picture(png: file, name: name)
      self = file.orientation?.upright(picture) ?? picture
    case .jpeg:
      let file = try JPEGMarkers(bytes, name: name)
      try Self.checkSize(width: file.width, height: file.height, name: name)
      let picture = try Picture(jpeg: bytes, header: file, name: name)
      self = file.orientation?.upright(picture) ?? picture
    case .webp:
      let file = try WebPChunks(bytes, name: name)
      try Self.checkSize(width: file.width, height: file.height, name: name)
      guard !file.isAnimated else { throw .damaged(name: name, reason: "it is an animation") }
      let picture = try Picture(webp: bytes, header: file, name: name)
      self = file.orientation?.upright(picture) ?? picture
    }
  }

  /// A file of a few bytes can claim a size that fills all memory.
  static func checkSize(width: Int, height: Int, name: String) throws(ImageFileError) {
    guard width <= largestSide, height <= largestSide, width * height <= largestPixelCount
    else { throw .tooLarge(name: name, width: width, height: height) }
  }

  /// A PNG file, with alpha if the picture has it.
  /// - Parameter parameters: text for the chunk `parameters`, such as `GenerationParameters.text`: stable-diffusion-webui and many
  ///   other programs show it.
  /// - Throws: `ImageFileError.notEncodable`.
  public func pngData(parameters: String? = nil) throws(ImageFileError) -> Data {
    let encoded = try encodedPNG()
    guard let parameters else { return Data(encoded) }
    return Data(try PNGChunks(encoded, name: "The picture").adding(text: parameters, keyword: "parameters"))
  }

  /// A JPEG file, on white if the picture is transparent. Colours keep their full resolution from a quality of 90 on.
  /// - Parameters:
  ///   - quality: 1…100; values outside are clamped.
  ///   - parameters: text for the comment of its EXIF block, where stable-diffusion-webui keeps it.
  /// - Throws: `ImageFileError.notEncodable`, also for a text that is longer than the format allows, some 32,000 letters.
  public func jpegData(quality: Int = 95, parameters: String? = nil) throws(ImageFileError) -> Data {
    let encoded = try flattened().encodedJPEG(quality: min(max(quality, 1), 100))
    guard let parameters else { return Data(encoded) }
    guard let file = JPEGMarkers.adding(exif: ExifComment.block(parameters), to: encoded) else {
      throw .notEncodable(reason: "the text that tells how it was made is too long for a JPEG file")
    }
    return Data(file)
  }

  /// A WebP file, with alpha if the picture has it. Without loss, the colours of transparent pixels are kept, too.
  /// - Parameters:
  ///   - quality: 0…100, values outside are clamped; nil: without loss.
  ///   - parameters: text for the comment of its EXIF block, where stable-diffusion-webui keeps it.
  /// - Throws: `ImageFileError.notEncodable`.
  public func webpData(quality: Int? = nil, parameters: String? = nil) throws(ImageFileError) -> Data {
    let encoded = try encodedWebP(quality: quality.map { min(max($0, 0), 100) })
    guard let parameters else { return Data(encoded) }
    return Data(try WebPChunks.adding(exif: ExifComment.block(parameters), to: Array(encoded)))
  }

  /// Writes a PNG, JPEG or WebP file, depending on the extension; PNG and WebP without loss. The file is written as a whole or not at all.
  /// - Parameter parameters: text that tells how the picture was made, such as `GenerationParameters.text`.
  /// - Throws: `ImageFileError` if the extension is none of these or the picture is too large for the format, and `FileWriteError`.
  public func write(to url: URL, parameters: String? = nil) throws {
    let data =
      switch try PictureFormat(extensionOf: url) {
      case .png: try pngData(parameters: parameters)
      case .jpeg: try jpegData(parameters: parameters)
      case .webp: try webpData(parameters: parameters)
      }
    try data.writeBesideThenRename(to: url)
  }
}

extension GenerationParameters {
  /// Reads how a picture was made from its file; nil if the file does not say it.
  /// - Throws: `ImageFileError` if the file cannot be read or is no picture.
  public init?(contentsOf url: URL) throws(ImageFileError) {
    let name = url.path(percentEncoded: false)
    try self.init(data: Data(pictureBytes(at: url, name: name)), name: name)
  }

  /// Reads a file's contents: the chunk `parameters` of a PNG, or else ComfyUI's chunk `prompt`; the EXIF comment of a JPEG or WebP. Nil if there is none.
  /// - Throws: `ImageFileError` if it is no whole picture.
  public init?(data: Data, name: String = "The picture") throws(ImageFileError) {
    let bytes = Array(data)
    let text: String?
    switch try PictureFormat(signatureOf: bytes, name: name) {
    case .png:
      let chunks = try PNGChunks(bytes, name: name)
      text = chunks.text("parameters")
      if text == nil, let workflow = chunks.text("prompt"), let read = GenerationParameters(comfyUI: workflow) {
        self = read
        return
      }
    case .jpeg: text = try JPEGMarkers(bytes, name: name).exif.flatMap(ExifComment.text)
    case .webp: text = try WebPChunks(bytes, name: name).exif.flatMap(ExifComment.text)
    }
    guard let text else { return nil }
    self.init(parsing: text)
  }
}

private func pictureBytes(at url: URL, name: String) throws(ImageFileError) -> [UInt8] {
  try fileBytes(at: url, name: name) { start throws(ImageFileError) in _ = try PictureFormat(signatureOf: start, name: name) }
}

/// The contents of a file.
/// - Parameter check: throws where the first bytes are not those of a file that can be read.
package func fileBytes(
  at url: URL, name: String, check: ([UInt8]) throws(ImageFileError) -> Void
) throws(ImageFileError) -> [UInt8] {
  guard url.isFileURL else { throw .notFound(name: name) }
  var isFolder: ObjCBool = false
  guard FileManager.default.fileExists(atPath: name, isDirectory: &isFolder) else { throw .notFound(name: name) }
  guard !isFolder.boolValue else { throw .isFolder(name: name) }
  var data = Data()
  do {
    let handle = try FileHandle(forReadingFrom: url)
    defer { try? handle.close() }
    // The file is read in pieces up to a limit, because a device such as /dev/zero has no end.
    while let piece = try handle.read(upToCount: data.isEmpty ? 64 : 1 << 24), !piece.isEmpty {
      if data.isEmpty { try check(Array(piece)) }
      guard data.count + piece.count <= Picture.largestFile else { throw ImageFileError.fileTooLarge(name: name) }
      data.append(piece)
    }
  } catch let error as ImageFileError {
    throw error
  } catch {
    throw .notReadable(name: name, reason: "its permissions or its disk forbid it")
  }
  return Array(data)
}
