import Foundation

extension FileWriting {
  /// Makes a folder under another name beside it, fills it, and then renames it.
  ///
  /// - Parameter fill: writes files and folders into the folder that it is given.
  /// - Throws: `FileWriteError`, and what `fill` throws; nothing is left then.
  public static func makeFolder(at url: URL, _ fill: (_ folder: URL) throws -> Void) throws {
    var path = url.path(percentEncoded: false)
    while path.count > 1, path.hasSuffix("/") { path.removeLast() }
    guard url.isFileURL, !path.isEmpty, !path.utf8.contains(0) else { throw FileWriteError.notAPath(url.absoluteString) }
    var status = stat()
    guard lstat(path, &status) != 0 else { throw FileWriteError.exists(path: path) }
    let temporary = unusedName(beside: path)
    try check(mkdir(temporary, 0o777), path: path)
    do {
      try fill(URL(filePath: temporary, directoryHint: .isDirectory))
      guard rename(temporary, path) == 0 else {
        throw errno == ENOTEMPTY || errno == EEXIST || errno == ENOTDIR
          ? FileWriteError.exists(path: path) : FileWriteError(path: path, code: errno)
      }
    } catch {
      try? FileManager.default.removeItem(atPath: temporary)
      throw (error as? FileWriteError)?.moved(from: temporary, to: path) ?? error
    }
  }
}

extension FileWriteError {
  /// The same error with the final path instead of the temporary one.
  fileprivate func moved(from old: String, to new: String) -> FileWriteError {
    func moved(_ path: String) -> String {
      path.hasPrefix(old + "/") ? new + "/" + path.dropFirst(old.count + 1).drop { $0 == "/" } : path
    }
    return switch self {
    case .notAPath(let path): .notAPath(moved(path))
    case .isFolder(let path): .isFolder(path: moved(path))
    case .exists(let path): .exists(path: moved(path))
    case .missingFolder(let path, let folder): .missingFolder(path: moved(path), folder: moved(folder))
    case .notPermitted(let path): .notPermitted(path: moved(path))
    case .diskFull(let path): .diskFull(path: moved(path))
    case .failed(let path, let reason): .failed(path: moved(path), reason: reason)
    }
  }
}
