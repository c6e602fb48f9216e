#if canImport(ImageIO)
  import Accelerate
  import CoreGraphics
  import Foundation
  import ImageIO

  /// ImageIO decodes and encodes on Apple's systems; vImage brings the samples into our form, since a bitmap context would multiply
  /// colours by alpha.
  extension Picture {
    init(png file: PNGChunks, name: String) throws(ImageFileError) {
      let image = try decoded(file.withoutColourSpace, name: name)
      self = try Picture(image, width: file.width, height: file.height, hasAlpha: file.hasAlpha, name: name)
    }

    init(jpeg bytes: [UInt8], header: JPEGMarkers, name: String) throws(ImageFileError) {
      let image = try decoded(bytes, name: name)
      self = try Picture(image, width: header.width, height: header.height, hasAlpha: false, name: name)
    }

    init(webp bytes: [UInt8], header: WebPChunks, name: String) throws(ImageFileError) {
      let image = try decoded(bytes, name: name)
      self = try Picture(image, width: header.width, height: header.height, hasAlpha: header.hasAlpha, name: name)
    }

    func encodedPNG() throws(ImageFileError) -> [UInt8] { try encoded(as: "public.png", quality: nil) }

    func encodedJPEG(quality: Int) throws(ImageFileError) -> [UInt8] { try encoded(as: "public.jpeg", quality: Double(quality) / 100) }

    func encodedWebP(quality: Int?) throws(ImageFileError) -> [UInt8] {
      throw .notEncodable(reason: "this system has no encoder for WebP; write a PNG file")
    }

    private init(_ image: CGImage, width: Int, height: Int, hasAlpha: Bool, name: String) throws(ImageFileError) {
      guard image.width == width, image.height == height else { throw .damaged(name: name, reason: "its header is wrong") }
      // Colours are taken as they are stored: an RGB picture is declared sRGB whatever its profile, and a grey one keeps its space.
      let model = image.colorSpace?.model
      let isGrey = model == .monochrome && !hasAlpha
      let stored = model == .rgb ? sRGB().flatMap { image.copy(colorSpace: $0) } ?? image : image
      let alphaInfo: CGImageAlphaInfo = isGrey ? .none : .last
      let channels = isGrey ? 1 : 4
      guard let space = isGrey ? image.colorSpace : sRGB(),
        let format = vImage_CGImageFormat(
          bitsPerComponent: 8, bitsPerPixel: 8 * channels, colorSpace: space, bitmapInfo: CGBitmapInfo(rawValue: alphaInfo.rawValue)),
        let buffer = try? vImage_Buffer(cgImage: stored, format: format)
      else { throw .damaged(name: name, reason: "its pixels cannot be converted to RGB") }
      defer { buffer.free() }
      // Rows may be padded.
      let samples = (0..<height).flatMap { row in
        UnsafeRawBufferPointer(start: buffer.data + row * buffer.rowBytes, count: width * channels)
      }
      if isGrey {
        self.init(width: width, height: height, pixels: samples.flatMap { [$0, $0, $0] })
      } else {
        let picture = Picture(width: width, height: height, rgba: samples)
        self = hasAlpha ? picture : picture.withoutAlpha
      }
    }

    /// The picture as Core Graphics has it, in sRGB; nil where the system has no memory for it.
    public var cgImage: CGImage? {
      let samples = rgba ?? pixels
      let channels = alpha == nil ? 3 : 4
      let alphaInfo: CGImageAlphaInfo = alpha == nil ? .none : .last
      guard let space = sRGB(), let provider = CGDataProvider(data: Data(samples) as CFData) else { return nil }
      return CGImage(
        width: width, height: height, bitsPerComponent: 8, bitsPerPixel: channels * 8, bytesPerRow: width * channels, space: space,
        bitmapInfo: CGBitmapInfo(rawValue: alphaInfo.rawValue), provider: provider, decode: nil, shouldInterpolate: false,
        intent: .defaultIntent)
    }

    /// A picture of Core Graphics: its colours as they are stored, and its alpha if it has some.
    /// - Throws: `ImageFileError`.
    public init(_ image: CGImage) throws(ImageFileError) {
      let hasAlpha = ![.none, .noneSkipFirst, .noneSkipLast].contains(image.alphaInfo)
      try Self.checkSize(width: image.width, height: image.height, name: "The picture")
      self = try Picture(image, width: image.width, height: image.height, hasAlpha: hasAlpha, name: "The picture")
    }

    private func encoded(as type: String, quality: Double?) throws(ImageFileError) -> [UInt8] {
      let result = NSMutableData()
      guard let image = cgImage,
        let destination = CGImageDestinationCreateWithData(result as CFMutableData, type as CFString, 1, nil)
      else { throw .notEncodable(reason: "\(width)×\(height) pixels may be too many for this format") }
      let options = quality.map { [kCGImageDestinationLossyCompressionQuality: $0] as CFDictionary }
      CGImageDestinationAddImage(destination, image, options)
      guard CGImageDestinationFinalize(destination) else {
        throw .notEncodable(reason: "\(width)×\(height) pixels may be too many for this format")
      }
      return Array(result as Data)
    }
  }

  private func sRGB() -> CGColorSpace? { CGColorSpace(name: CGColorSpace.sRGB) }

  private func decoded(_ bytes: [UInt8], name: String) throws(ImageFileError) -> CGImage {
    let options = [kCGImageSourceShouldCacheImmediately: true] as CFDictionary
    guard let source = CGImageSourceCreateWithData(Data(bytes) as CFData, nil),
      let image = CGImageSourceCreateImageAtIndex(source, 0, options)
    else { throw .damaged(name: name, reason: "it cannot be decoded") }
    guard CGImageSourceGetStatusAtIndex(source, 0) == .statusComplete else { throw .damaged(name: name, reason: "the file ends early") }
    return image
  }
#endif
