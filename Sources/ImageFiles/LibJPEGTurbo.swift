#if !canImport(ImageIO)
  import CLatentDiffusionTurboJPEG

  /// libjpeg-turbo's TurboJPEG interface, which reports errors as values.
  extension Picture {
    init(jpeg bytes: [UInt8], header: JPEGMarkers, name: String) throws(ImageFileError) {
      guard let decoder = tjInitDecompress() else { throw .damaged(name: name, reason: "the decoder cannot start") }
      defer { tjDestroy(decoder) }
      let isInk = header.components == 4
      let channels = isInk ? 4 : 3
      let format = isInk ? TJPF_CMYK : TJPF_RGB
      var samples = [UInt8](repeating: 0, count: header.width * header.height * channels)
      // Given this size, the decoder fails rather than write more. Pillow uses the accurate transform, too.
      let result = tjDecompress2(
        decoder, bytes, UInt(bytes.count), &samples, Int32(header.width), Int32(header.width * channels), Int32(header.height),
        format.rawValue, TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS)
      // Some cameras leave stray bytes between segments, which are harmless.
      if result != 0, !sentence(of: decoder).contains("extraneous") { throw .damaged(name: name, reason: sentence(of: decoder)) }
      let pixels = isInk ? rgb(ofInks: samples) : samples
      self.init(width: header.width, height: header.height, pixels: pixels)
    }

    func encodedJPEG(quality: Int) throws(ImageFileError) -> [UInt8] {
      guard width <= 65535, height <= 65535 else {
        throw .notEncodable(reason: "\(width)×\(height) pixels are too many for a JPEG file; write a PNG file")
      }
      guard let encoder = tjInitCompress() else { throw .notEncodable(reason: "the encoder cannot start") }
      defer { tjDestroy(encoder) }
      var bytes: UnsafeMutablePointer<UInt8>?
      var count: UInt = 0
      let sampling = quality >= 90 ? TJSAMP_444 : TJSAMP_420
      let result = tjCompress2(
        encoder, pixels, Int32(width), Int32(width * 3), Int32(height), TJPF_RGB.rawValue, &bytes, &count, Int32(sampling.rawValue),
        Int32(quality), TJFLAG_ACCURATEDCT)
      defer { tjFree(bytes) }
      guard result == 0, let bytes else { throw .notEncodable(reason: sentence(of: encoder)) }
      return Array(UnsafeBufferPointer(start: bytes, count: Int(count)))
    }
  }

  private func sentence(of handle: tjhandle) -> String { tjGetErrorStr2(handle).map { String(cString: $0) } ?? "unknown error" }

  /// Converts inks without a profile in the simple way: each ink absorbs its colour, and black absorbs all. They are stored inverted, as
  /// Adobe's programs store them and Pillow assumes.
  private func rgb(ofInks samples: [UInt8]) -> [UInt8] {
    var pixels: [UInt8] = []
    pixels.reserveCapacity(samples.count / 4 * 3)
    for pixel in stride(from: 0, to: samples.count - 3, by: 4) {
      let light = Int(samples[pixel + 3])
      for ink in 0..<3 {
        let amount = 255 - Int(samples[pixel + ink])
        pixels.append(UInt8(max(0, light - dividedBy255(amount * light))))
      }
    }
    return pixels
  }
#endif
