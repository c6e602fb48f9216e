import Foundation
import ImageFiles

#if canImport(ImageIO)
  extension Clip {
    func webpData(quality: Int?) throws -> Data {
      throw ClipError.notEncodable(reason: "this system has no encoder for WebP; write a .png file")
    }

    init(webp bytes: [UInt8], name: String) throws {
      throw ClipError.damaged(name: name, reason: "this system does not read animated WebP")
    }
  }
#else
  import CLatentDiffusionWebPAnimation

  /// libwebpmux puts frames that are WebP files of their own together, and libwebpdemux draws what is shown.
  extension Clip {
    func webpData(quality: Int?) throws -> Data {
      guard let mux = WebPMuxNew() else { throw ClipError.notEncodable(reason: "libwebpmux is of another version") }
      defer { WebPMuxDelete(mux) }
      for (frame, duration) in zip(frames, durations(units: 1000)) {
        try Task.checkCancellation()
        var info = WebPMuxFrameInfo()
        // Each frame takes the place of the last.
        (info.id, info.duration) = (WEBP_CHUNK_ANMF, Int32(duration))
        (info.dispose_method, info.blend_method) = (WEBP_MUX_DISPOSE_NONE, WEBP_MUX_NO_BLEND)
        try check(
          [UInt8](frame.picture.webpData(quality: quality)).withWebPData { data in
            info.bitstream = data
            return WebPMuxPushFrame(mux, &info, 1)
          })
      }
      // It is shown again and again, on nothing.
      var animation = WebPMuxAnimParams(bgcolor: 0, loop_count: 0)
      try check(WebPMuxSetAnimationParams(mux, &animation))
      if let parameters {
        try check(
          ExifComment.block(parameters).withWebPData { data in withUnsafePointer(to: data) { WebPMuxSetChunk(mux, "EXIF", $0, 1) } })
      }
      var file = WebPData()
      try check(WebPMuxAssemble(mux, &file))
      defer { WebPDataClear(&file) }
      return Data(UnsafeBufferPointer(start: file.bytes, count: file.size))
    }

    private func check(_ status: WebPMuxError) throws(ClipError) {
      guard status != WEBP_MUX_OK else { return }
      throw .notEncodable(reason: status == WEBP_MUX_MEMORY_ERROR ? "there is not enough memory" : "WebP cannot hold it")
    }

    init(webp bytes: [UInt8], name: String) throws { self = try bytes.withWebPData { data in try Clip(webp: data, name: name) } }

    private init(webp data: WebPData, name: String) throws {
      var data = data
      guard let file = WebPDemux(&data) else { throw ClipError.damaged(name: name, reason: "it is no whole WebP file") }
      defer { WebPDemuxDelete(file) }
      let (width, height) = (WebPDemuxGetI(file, WEBP_FF_CANVAS_WIDTH), WebPDemuxGetI(file, WEBP_FF_CANVAS_HEIGHT))
      let count = Int(WebPDemuxGetI(file, WEBP_FF_FRAME_COUNT))
      try Self.checkSize(width: Int(width), height: Int(height), frames: count, name: name)
      var options = WebPAnimDecoderOptions()
      guard WebPAnimDecoderOptionsInit(&options) != 0, let decoder = WebPAnimDecoderNew(&data, &options) else {
        throw ClipError.damaged(name: name, reason: "it cannot be decoded")
      }
      defer { WebPAnimDecoderDelete(decoder) }
      var (frames, last) = ([Frame](), Int32(0))
      while WebPAnimDecoderHasMoreFrames(decoder) != 0 {
        var (samples, end) = (UnsafeMutablePointer<UInt8>?.none, Int32(0))
        guard WebPAnimDecoderGetNext(decoder, &samples, &end) != 0, let samples else {
          throw ClipError.damaged(name: name, reason: "frame \(frames.count + 1) cannot be decoded")
        }
        let shown = UnsafeBufferPointer(start: samples, count: Int(width) * Int(height) * 4)
        let picture = Picture(width: Int(width), height: Int(height), rgba: Array(shown)).withoutFullAlpha
        frames.append(Frame(picture, duration: Double(end &- last) / 1000))
        last = end
      }
      guard frames.count == count else { throw ClipError.damaged(name: name, reason: "it has \(frames.count) frames of \(count)") }
      try self.init(read: frames, parameters: Self.parameters(of: file), name: name)
    }

    private static func parameters(of file: OpaquePointer) -> String? {
      var chunk = WebPChunkIterator()
      guard WebPDemuxGetChunk(file, "EXIF", 1, &chunk) != 0 else { return nil }
      defer { WebPDemuxReleaseChunkIterator(&chunk) }
      return ExifComment.text(of: Array(UnsafeBufferPointer(start: chunk.chunk.bytes, count: chunk.chunk.size)))
    }
  }

  extension [UInt8] {
    fileprivate func withWebPData<Result>(_ body: (WebPData) throws -> Result) rethrows -> Result {
      try withUnsafeBufferPointer { try body(WebPData(bytes: $0.baseAddress, size: $0.count)) }
    }
  }
#endif
