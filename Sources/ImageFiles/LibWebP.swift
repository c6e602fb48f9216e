#if !canImport(ImageIO)
  import CLatentDiffusionWebP

  /// libwebp's advanced interface, which says what is wrong.
  extension Picture {
    init(webp bytes: [UInt8], header: WebPChunks, name: String) throws(ImageFileError) {
      var options = WebPDecoderConfig()
      guard WebPInitDecoderConfig(&options) != 0 else { throw .damaged(name: name, reason: "the decoder is of another version") }
      let channels = header.hasAlpha ? 4 : 3
      var samples = [UInt8](repeating: 0, count: header.width * header.height * channels)
      options.output.colorspace = header.hasAlpha ? MODE_RGBA : MODE_RGB
      options.output.is_external_memory = 1
      options.output.u.RGBA.stride = Int32(header.width * channels)
      options.output.u.RGBA.size = samples.count
      // Given this size, the decoder fails rather than write more.
      let status = samples.withUnsafeMutableBufferPointer { target in
        options.output.u.RGBA.rgba = target.baseAddress
        return WebPDecode(bytes, bytes.count, &options)
      }
      guard status == VP8_STATUS_OK, Int(options.output.width) == header.width, Int(options.output.height) == header.height
      else { throw .damaged(name: name, reason: sentence(status)) }
      self =
        header.hasAlpha
        ? Picture(width: header.width, height: header.height, rgba: samples)
        : Picture(width: header.width, height: header.height, pixels: samples)
    }

    /// - Parameter quality: 0…100; nil: without loss.
    func encodedWebP(quality: Int?) throws(ImageFileError) -> [UInt8] {
      guard width <= WEBP_MAX_DIMENSION, height <= WEBP_MAX_DIMENSION else {
        throw .notEncodable(reason: "\(width)×\(height) pixels are too many for a WebP file; write a PNG file")
      }
      var options = WebPConfig()
      var image = WebPPicture()
      guard WebPConfigInit(&options) != 0, WebPPictureInit(&image) != 0 else {
        throw .notEncodable(reason: "the encoder is of another version")
      }
      options.lossless = quality == nil ? 1 : 0
      // Without loss, this is the effort.
      options.quality = Float(quality ?? 75)
      // The colours of transparent pixels are kept.
      options.exact = 1
      image.use_argb = 1
      (image.width, image.height) = (Int32(width), Int32(height))
      defer { WebPPictureFree(&image) }
      let samples = rgba ?? pixels, rowLength = Int32(samples.count / height)
      let isImported = alpha == nil ? WebPPictureImportRGB(&image, samples, rowLength) : WebPPictureImportRGBA(&image, samples, rowLength)
      guard isImported != 0 else { throw .notEncodable(reason: sentence(image.error_code)) }
      var writer = WebPMemoryWriter()
      WebPMemoryWriterInit(&writer)
      defer { WebPMemoryWriterClear(&writer) }
      image.writer = WebPMemoryWrite
      let isEncoded = withUnsafeMutablePointer(to: &writer) { writer in
        image.custom_ptr = UnsafeMutableRawPointer(writer)
        return WebPEncode(&options, &image)
      }
      guard isEncoded != 0 else { throw .notEncodable(reason: sentence(image.error_code)) }
      return Array(UnsafeBufferPointer(start: writer.mem, count: writer.size))
    }
  }

  private func sentence(_ status: VP8StatusCode) -> String {
    switch status {
    case VP8_STATUS_OK: "its header is wrong"
    case VP8_STATUS_OUT_OF_MEMORY: "there is not enough memory"
    case VP8_STATUS_NOT_ENOUGH_DATA, VP8_STATUS_SUSPENDED: "the file ends early"
    case VP8_STATUS_UNSUPPORTED_FEATURE: "it uses a feature that is not supported"
    default: "its pixels cannot be decoded"
    }
  }

  private func sentence(_ error: WebPEncodingError) -> String {
    switch error {
    case VP8_ENC_ERROR_OUT_OF_MEMORY, VP8_ENC_ERROR_BITSTREAM_OUT_OF_MEMORY: "there is not enough memory"
    case VP8_ENC_ERROR_PARTITION0_OVERFLOW, VP8_ENC_ERROR_PARTITION_OVERFLOW, VP8_ENC_ERROR_FILE_TOO_BIG:
      "it is too large for a WebP file; write a PNG file"
    default: "the encoder refuses it (error \(error.rawValue))"
    }
  }
#endif
