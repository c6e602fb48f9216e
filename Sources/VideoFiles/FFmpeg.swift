import Foundation
import ImageFiles

/// The program that encodes MP4 and WebM. It is given raw frames and nothing of a shell.
struct FFmpeg {
  let program: URL
  let format: ClipFormat

  /// - Throws: `ClipError.missingProgram` where the program is not on the `PATH`.
  init(for format: ClipFormat) throws(ClipError) {
    let folders = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
    let places = folders.map { URL(filePath: String($0), directoryHint: .isDirectory).appending(path: "ffmpeg") }
    guard let program = places.first(where: { FileManager.default.isExecutableFile(atPath: $0.path(percentEncoded: false)) }) else {
      throw .missingProgram(format: format)
    }
    (self.program, self.format) = (program, format)
  }

  /// The bytes of the video.
  ///
  /// The program writes to a file that has no name any more, so that nothing is left behind, however this ends.
  func encode(_ clip: Clip) throws -> Data {
    guard let rate = clip.framesPerSecond else {
      throw ClipError.notEncodable(reason: "\(format.name) needs frames that are all shown for the same time; write a .webp file")
    }
    let (output, messages) = (try namelessFile(), try namelessFile())
    let input = try Input()
    let process = Process()
    process.executableURL = program
    process.arguments = arguments(for: clip, framesPerSecond: rate)
    (process.standardInput, process.standardOutput, process.standardError) = (input.readingEnd, output, messages)
    do { try process.run() } catch { throw ClipError.programFailed(reason: "\(program.path(percentEncoded: false)) cannot be started") }
    try? input.readingEnd.close()
    for frame in clip.frames where !Task.isCancelled {
      // Where the program has gone away, its status says why.
      guard input.write(frame.picture.flattened().pixels) else { break }
    }
    input.end()
    while process.isRunning {
      if Task.isCancelled { process.terminate() }
      Thread.sleep(forTimeInterval: 0.005)
    }
    try Task.checkCancellation()
    guard process.terminationReason == .exit, process.terminationStatus == 0 else {
      throw ClipError.programFailed(reason: reason(process, messages))
    }
    return try contents(of: output)
  }

  private func arguments(for clip: Clip, framesPerSecond: Double) -> [String] {
    // Players want colours at half the resolution, which needs even sides.
    let isEven = clip.width.isMultiple(of: 2) && clip.height.isMultiple(of: 2)
    let coding =
      format == .mp4
      ? ["-c:v", "libx264", "-crf", "16", "-movflags", "+faststart", "-f", "mp4"]
      : ["-c:v", "libvpx-vp9", "-crf", "20", "-b:v", "0", "-row-mt", "1", "-f", "webm"]
    return [
      "-hide_banner", "-nostats", "-loglevel", "error", "-y", "-f", "rawvideo", "-pixel_format", "rgb24", "-video_size",
      "\(clip.width)x\(clip.height)", "-framerate", "\(framesPerSecond)", "-i", "pipe:0",
      // The matrix of ITU-R 709, which players take for granted.
      "-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709",
      "-pix_fmt", isEven ? "yuv420p" : "yuv444p", "-fflags", "+bitexact", "-flags:v", "+bitexact",
    ] + (clip.parameters.map { ["-metadata", "comment=\($0)"] } ?? []) + coding + ["/dev/fd/1"]
  }

  private func reason(_ process: Process, _ messages: FileHandle) -> String {
    guard process.terminationReason == .exit else { return "signal \(process.terminationStatus) ended it" }
    let text = String(decoding: (try? contents(of: messages)) ?? Data(), as: UTF8.self)
    let line = text.split(whereSeparator: \.isNewline).last.map { $0.prefix(300) } ?? "it says nothing"
    return "\(line) (status \(process.terminationStatus))"
  }

  private func contents(of file: FileHandle) throws -> Data {
    try file.seek(toOffset: 0)
    return try file.readToEnd() ?? Data()
  }

  /// A file that is gone when it is closed.
  private func namelessFile() throws(ClipError) -> FileHandle {
    let folder = FileManager.default.temporaryDirectory.path(percentEncoded: false)
    var name = Array((folder + "/clip-XXXXXX").utf8CString)
    let descriptor = mkstemp(&name)
    guard descriptor >= 0 else { throw .programFailed(reason: "no temporary file can be made in \(folder)") }
    unlink(name)
    _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    return FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
  }
}

/// What the program reads: a socket, since a program that has gone away would end the writer to a pipe by a signal.
private final class Input {
  let readingEnd: FileHandle
  private var descriptor: Int32

  init() throws(ClipError) {
    var ends: [Int32] = [0, 0]
    #if canImport(Darwin)
      let kind = SOCK_STREAM
    #else
      let kind = Int32(SOCK_STREAM.rawValue)
    #endif
    guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else { throw .programFailed(reason: "no socket can be made") }
    // The program must not hold the writing end itself, or it would never see the end.
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    (descriptor, readingEnd) = (ends[0], FileHandle(fileDescriptor: ends[1], closeOnDealloc: true))
    #if canImport(Darwin)
      var isQuiet: Int32 = 1
      setsockopt(descriptor, SOL_SOCKET, SO_NOSIGPIPE, &isQuiet, socklen_t(MemoryLayout<Int32>.size))
    #endif
  }

  deinit { end() }

  /// - Returns: false if nobody reads any more.
  func write(_ bytes: [UInt8]) -> Bool {
    #if canImport(Darwin)
      let flags: Int32 = 0
    #else
      let flags = Int32(MSG_NOSIGNAL)
    #endif
    return bytes.withUnsafeBytes { bytes in
      var rest = bytes[...]
      while !rest.isEmpty {
        let piece = UnsafeRawBufferPointer(rebasing: rest)
        let sent = send(descriptor, piece.baseAddress, piece.count, flags)
        if sent >= 0 {
          rest = rest.dropFirst(sent)
        } else if errno != EINTR {
          return false
        }
      }
      return true
    }
  }

  func end() {
    if descriptor >= 0 { close(descriptor) }
    descriptor = -1
  }
}
