#if !canImport(ImageIO)
  import CLatentDiffusionPNG

  /// libpng's simplified interface, which reports errors as values.
  extension Picture {
    init(png file: PNGChunks, name: String) throws(ImageFileError) {
      let samples =
        file.depth == 16
        ? try narrowed(decoded(file, format: linearFlag, name: name), hasAlpha: file.hasAlpha)
        : try decoded(file, format: 0, name: name)
      self =
        file.hasAlpha
        ? Picture(width: file.width, height: file.height, rgba: samples)
        : Picture(width: file.width, height: file.height, pixels: samples)
    }

    func encodedPNG() throws(ImageFileError) -> [UInt8] {
      guard width <= 1_000_000, height <= 1_000_000 else {
        throw .notEncodable(reason: "\(width)×\(height) pixels are too many for a PNG file")
      }
      var image = png_image()
      image.version = UInt32(PNG_IMAGE_VERSION)
      (image.width, image.height) = (UInt32(width), UInt32(height))
      image.format = rgbFormat | (alpha == nil ? 0 : alphaFlag)
      defer { png_image_free(&image) }
      let samples = rgba ?? pixels
      // Pixels that do not compress take a filter byte per row more, and under a hundredth for the headers of deflate and of chunks.
      var size = samples.count + samples.count / 64 + height + 4096
      var bytes = [UInt8](repeating: 0, count: size)
      guard png_image_write_to_memory(&image, &bytes, &size, 0, samples, Int32(samples.count / height), nil) != 0 else {
        throw .notEncodable(reason: image.sentence)
      }
      return Array(bytes.prefix(size))
    }
  }

  private let rgbFormat = UInt32(PNG_FORMAT_FLAG_COLOR)
  private let alphaFlag = UInt32(PNG_FORMAT_FLAG_ALPHA)
  private let linearFlag = UInt32(PNG_FORMAT_FLAG_LINEAR)

  /// Red, green, blue and, if there is any, alpha of each pixel: one byte each, or two if the format is linear.
  private func decoded<Sample: FixedWidthInteger>(_ file: PNGChunks, format: UInt32, name: String) throws(ImageFileError) -> [Sample] {
    let rowLength = file.width * (file.hasAlpha ? 4 : 3)
    var samples = [Sample](repeating: 0, count: file.height * rowLength)
    var image = png_image()
    image.version = UInt32(PNG_IMAGE_VERSION)
    defer { png_image_free(&image) }
    // The second call still reads from the address that the first call was given.
    let isWhole = file.withoutColourSpace.withUnsafeBufferPointer { bytes in
      guard png_image_begin_read_from_memory(&image, bytes.baseAddress, bytes.count) != 0,
        Int(image.width) == file.width, Int(image.height) == file.height
      else { return false }
      image.format = format | rgbFormat | (file.hasAlpha ? alphaFlag : 0)
      return png_image_finish_read(&image, nil, &samples, Int32(rowLength), nil) != 0
    }
    guard isWhole else { throw .damaged(name: name, reason: image.sentence) }
    return samples
  }

  /// The higher byte of 16 bits, as Pillow takes it.
  ///
  /// libpng must not do this itself: it takes samples of 16 bits for linear light and converts them, and several of its versions write
  /// past the end of their output when the file is interlaced. Samples read as linear are unchanged, except that they are multiplied by
  /// alpha, so the colours of fully transparent pixels are lost.
  private func narrowed(_ samples: [UInt16], hasAlpha: Bool) -> [UInt8] {
    guard hasAlpha else { return samples.map { UInt8($0 >> 8) } }
    return samples.indices.map { index in
      let opacity = Int(samples[index | 3])
      if index & 3 == 3 || opacity == 0 { return UInt8(samples[index] >> 8) }
      return UInt8(min(65535, (Int(samples[index]) * 65535 + opacity / 2) / opacity) >> 8)
    }
  }

  extension png_image {
    /// The message without the zeros at its end.
    fileprivate var sentence: String {
      withUnsafeBytes(of: message) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
  }
#endif
