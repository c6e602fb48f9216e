import Foundation

/// Why a file could not be written. Nothing half-written is left behind by any of them.
public enum FileWriteError: Error, Sendable, Equatable, CustomStringConvertible {
  /// What was given names no file.
  case notAPath(String)
  /// A folder is where the file would be.
  case isFolder(path: String)
  /// The folder that the file would be in does not exist.
  case missingFolder(path: String, folder: String)
  /// The permissions of the file or its folder forbid it.
  case notPermitted(path: String)
  /// There is no room for the whole file.
  case diskFull(path: String)
  /// The system refused for another reason.
  case failed(path: String, reason: String)

  public var description: String {
    switch self {
    case .notAPath(let name): "\(name) is not the path of a file; give a path such as folder/name.png."
    case .isFolder(let path): "\(path) is a folder; give the name of a file to write."
    case .missingFolder(let path, let folder): "\(path) cannot be written because there is no folder \(folder); create it first."
    case .notPermitted(let path): "\(path) cannot be written because its permissions or its folder's forbid it; choose another place."
    case .diskFull(let path): "\(path) cannot be written because no space is left on its disk; free some or choose another place."
    case .failed(let path, let reason): "\(path) cannot be written: \(reason)."
    }
  }

  init(path: String, code: Int32) {
    switch code {
    case ENOENT where access(folder(of: path), F_OK) != 0, ENOTDIR: self = .missingFolder(path: path, folder: folder(of: path))
    case EISDIR: self = .isFolder(path: path)
    case EACCES, EPERM, EROFS: self = .notPermitted(path: path)
    case ENOSPC, EDQUOT: self = .diskFull(path: path)
    default: self = .failed(path: path, reason: String(cString: strerror(code)))
    }
  }
}

extension Data {
  /// Writes a file so that it is there as a whole or not at all: into a new file beside it, which then takes its name.
  ///
  /// A link is followed and stays a link; a file that exists keeps its permissions, a new one gets those of the process. What is no
  /// ordinary file (a device, a pipe) is never replaced but written to; the process's own setting says what becomes of it when the reader
  /// of a pipe goes away.
  /// - Throws: `FileWriteError`; what was at `url` before is then still there.
  public func writeBesideThenRename(to url: URL) throws(FileWriteError) {
    let path = url.path(percentEncoded: false)
    guard url.isFileURL, !path.isEmpty, !path.utf8.contains(0) else { throw .notAPath(url.absoluteString) }
    var status = stat()
    guard stat(path, &status) == 0 else {
      guard errno == ENOENT else { throw FileWriteError(path: path, code: errno) }
      return try replace(endOfLinks(from: path), permissions: nil, reportedAs: path)
    }
    switch status.st_mode & S_IFMT {
    case S_IFDIR:
      throw .isFolder(path: path)
    case S_IFREG:
      // Renaming asks only for the folder's permission; a file that is write-protected is meant to stay.
      guard access(path, W_OK) == 0, let resolved = realpath(path, nil) else { throw FileWriteError(path: path, code: errno) }
      defer { free(resolved) }
      try replace(String(cString: resolved), permissions: status.st_mode & 0o777, reportedAs: path)
    default:
      try check(write(to: open(path, O_WRONLY | O_CLOEXEC), permissions: nil, synchronizing: false), path: path)
    }
  }

  private func replace(_ destination: String, permissions: mode_t?, reportedAs path: String) throws(FileWriteError) {
    let name = "." + String(UInt64.random(in: .min ... .max), radix: 36) + ".partial"
    let temporary = folder(of: destination) + "/" + name
    let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else { throw FileWriteError(path: path, code: errno) }
    var code = write(to: descriptor, permissions: permissions, synchronizing: true)
    if code == 0, rename(temporary, destination) != 0 { code = errno }
    if code != 0 { unlink(temporary) }
    try check(code, path: path)
  }

  /// Writes everything and closes the descriptor; the code of the first error, or 0.
  private func write(to descriptor: Int32, permissions: mode_t?, synchronizing: Bool) -> Int32 {
    guard descriptor >= 0 else { return errno }
    var code: Int32 = 0
    if let permissions, fchmod(descriptor, permissions) != 0 { code = errno }
    if code == 0 { code = withUnsafeBytes { writeAll($0, to: descriptor) } }
    // A full disk may show only now; without this a crash of the machine could leave the name with nothing behind it.
    if code == 0, synchronizing, fsync(descriptor) != 0, errno != EINVAL, errno != ENOTSUP { code = errno }
    if close(descriptor) != 0, code == 0, errno != EINTR { code = errno }
    return code
  }
}

private func writeAll(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32) -> Int32 {
  var rest = bytes[...]
  while !rest.isEmpty {
    // One call takes less than 2 GiB.
    let piece = UnsafeRawBufferPointer(rebasing: rest.prefix(1 << 30))
    let written = write(descriptor, piece.baseAddress, piece.count)
    if written >= 0 {
      rest = rest.dropFirst(written)
    } else if errno != EINTR {
      return errno
    }
  }
  return 0
}

/// Where a chain of links that ends at nothing would put a new file.
private func endOfLinks(from path: String) -> String {
  var path = path
  for _ in 0..<40 {
    guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: path) else { break }
    path = target.hasPrefix("/") ? target : folder(of: path) + "/" + target
  }
  return path
}

private func folder(of path: String) -> String {
  guard let slash = path.lastIndex(of: "/") else { return "." }
  return slash == path.startIndex ? "/" : String(path[..<slash])
}

private func check(_ code: Int32, path: String) throws(FileWriteError) {
  if code != 0 { throw FileWriteError(path: path, code: code) }
}
