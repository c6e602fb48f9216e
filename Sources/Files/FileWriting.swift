import Foundation

/// Why a file could not be written. No error leaves a half-written file behind.
public enum FileWriteError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The argument is not the path of a file.
  case notAPath(String)
  /// There is a folder at the path of the file.
  case isFolder(path: String)
  /// There is something at the path of the new folder.
  case exists(path: String)
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
    case .exists(let path): "\(path) exists already; give a name that is not taken."
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
  /// Writes a whole file or nothing: see `FileWriting.writeBesideThenRename`.
  ///
  /// - Throws: `FileWriteError`; an existing file at `url` is then unchanged.
  public func writeBesideThenRename(to url: URL) throws(FileWriteError) {
    do {
      try FileWriting.writeBesideThenRename(to: url) { append in try append(self) }
    } catch let error as FileWriteError {
      throw error
    } catch {
      throw .failed(path: url.path(percentEncoded: false), reason: "\(error)")
    }
  }
}

/// Writes whole files and folders, or nothing.
public enum FileWriting {
  /// Writes a file piece by piece: into a new file beside it, which is then renamed.
  ///
  /// A link is followed and stays a link. An existing file keeps its permissions, and a new one gets those of the process. Anything but an ordinary file (a
  /// device, a pipe) is written to and never replaced. If the reader of a pipe goes away, the process's own signal setting decides what happens.
  ///
  /// - Parameter contents: calls `append` with the file's bytes, from the first to the last.
  /// - Throws: `FileWriteError`, and what `contents` throws; an existing file at `url` is then unchanged.
  public static func writeBesideThenRename(
    to url: URL, _ contents: (_ append: (Data) throws(FileWriteError) -> Void) throws -> Void
  ) throws {
    let path = url.path(percentEncoded: false)
    guard url.isFileURL, !path.isEmpty, !path.utf8.contains(0) else { throw FileWriteError.notAPath(url.absoluteString) }
    var status = stat()
    guard stat(path, &status) == 0 else {
      guard errno == ENOENT else { throw FileWriteError(path: path, code: errno) }
      return try replace(endOfLinks(from: path), permissions: nil, reportedAs: path, contents)
    }
    switch status.st_mode & S_IFMT {
    case S_IFDIR:
      throw FileWriteError.isFolder(path: path)
    case S_IFREG:
      // Renaming checks only the folder's permission, but a write-protected file must not be replaced.
      guard access(path, W_OK) == 0, let resolved = realpath(path, nil) else { throw FileWriteError(path: path, code: errno) }
      defer { free(resolved) }
      try replace(String(cString: resolved), permissions: status.st_mode & 0o777, reportedAs: path, contents)
    default:
      try write(to: open(path, O_WRONLY | O_CLOEXEC), permissions: nil, synchronizing: false, reportedAs: path, contents)
    }
  }

  private static func replace(
    _ destination: String, permissions: mode_t?, reportedAs path: String, _ contents: ((Data) throws(FileWriteError) -> Void) throws -> Void
  ) throws {
    let temporary = unusedName(beside: destination)
    let descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else { throw FileWriteError(path: path, code: errno) }
    do {
      try write(to: descriptor, permissions: permissions, synchronizing: true, reportedAs: path, contents)
      try check(rename(temporary, destination), path: path)
    } catch {
      unlink(temporary)
      throw error
    }
  }

  /// How many bytes are written between calls of `fsync`. A full disk may show only there, and without it a crash could leave a name without contents.
  /// Synchronising a large file in one call would delay a cancellation.
  private static let synchronizedBytes = 8 << 20

  /// Writes everything and closes the descriptor.
  private static func write(
    to descriptor: Int32, permissions: mode_t?, synchronizing: Bool, reportedAs path: String,
    _ contents: ((Data) throws(FileWriteError) -> Void) throws -> Void
  ) throws {
    guard descriptor >= 0 else { throw FileWriteError(path: path, code: errno) }
    func synchronize() throws(FileWriteError) {
      if synchronizing, fsync(descriptor) != 0, errno != EINVAL, errno != ENOTSUP { throw FileWriteError(path: path, code: errno) }
    }
    do {
      if let permissions { try check(fchmod(descriptor, permissions), path: path) }
      var pending = 0
      try contents { data throws(FileWriteError) in
        try check(data.withUnsafeBytes { writeAll($0, to: descriptor) }, path: path)
        pending += data.count
        guard pending >= synchronizedBytes else { return }
        try synchronize()
        pending = 0
      }
      try synchronize()
    } catch {
      close(descriptor)
      throw error
    }
    if close(descriptor) != 0, errno != EINTR { throw FileWriteError(path: path, code: errno) }
  }
}

/// A hidden name in the same folder, so that renaming moves nothing.
func unusedName(beside path: String) -> String {
  folder(of: path) + "/." + String(UInt64.random(in: .min ... .max), radix: 36) + ".partial"
}

/// - Returns: 0, or -1 with the reason in `errno`.
private func writeAll(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32) -> Int32 {
  var rest = bytes[...]
  while !rest.isEmpty {
    // One call takes less than 2 GiB.
    let piece = UnsafeRawBufferPointer(rebasing: rest.prefix(1 << 30))
    let written = write(descriptor, piece.baseAddress, piece.count)
    if written >= 0 {
      rest = rest.dropFirst(written)
    } else if errno != EINTR {
      return -1
    }
  }
  return 0
}

/// The path at the end of a chain of links that ends at nothing.
private func endOfLinks(from path: String) -> String {
  var path = path
  for _ in 0..<40 {
    guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: path) else { break }
    path = target.hasPrefix("/") ? target : folder(of: path) + "/" + target
  }
  return path
}

func folder(of path: String) -> String {
  guard let slash = path.lastIndex(of: "/") else { return "." }
  return slash == path.startIndex ? "/" : String(path[..<slash])
}

/// - Parameter result: the result of a system call that leaves its reason in `errno`.
func check(_ result: Int32, path: String) throws(FileWriteError) {
  if result != 0 { throw FileWriteError(path: path, code: errno) }
}
