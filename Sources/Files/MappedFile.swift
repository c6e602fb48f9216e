import Foundation

extension Data {
  /// A file's bytes, mapped into memory. The system reads pages when they are used, and may drop them again.
  ///
  /// - Throws: `FileReadError`.
  public init(mapping url: URL) throws(FileReadError) {
    let path = url.path(percentEncoded: false)
    // O_NONBLOCK: opening a pipe must not wait for a writer. A pipe cannot be mapped anyway.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else { throw errno == ENOENT ? .missing(path: path) : .notPermitted(path: path) }
    defer { close(descriptor) }
    var information = stat()
    guard fstat(descriptor, &information) == 0, information.st_mode & S_IFMT == S_IFREG else {
      throw .notMappable(path: path)
    }
    let size = Int(information.st_size)
    guard size > 0 else {
      self.init()
      return
    }
    guard let start = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0), start != MAP_FAILED else {
      throw .notMappable(path: path)
    }
    #if os(Linux)
      // A file system may cache a file in folios of megabytes. Mapped whole, they would stay in memory beside a page that is dropped.
      _ = madvise(start, size, Int32(MADV_NOHUGEPAGE))
    #endif
    self.init(bytesNoCopy: start, count: size, deallocator: .custom { pointer, count in munmap(pointer, count) })
  }
}

/// Why a file cannot be read.
public enum FileReadError: Error, Sendable, Equatable, CustomStringConvertible {
  /// There is nothing at the path.
  case missing(path: String)
  /// The permissions of the file or its folder forbid it.
  case notPermitted(path: String)
  /// A folder, a pipe or a device; or a file that the system has no room to map.
  case notMappable(path: String)

  public var description: String {
    switch self {
    case .missing(let path), .notPermitted(let path), .notMappable(let path): "\(path) cannot be read: \(reason)."
    }
  }

  /// The same as a clause, for errors that name the path themselves.
  public var reason: String {
    switch self {
    case .missing: "there is no such file"
    case .notPermitted: "its permissions forbid it"
    case .notMappable: "it is no ordinary file, or there is not enough memory to map it"
    }
  }
}
