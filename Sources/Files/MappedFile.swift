import Foundation

extension Data {
  /// A file's bytes, mapped into memory. The system reads pages when they are used, and may drop them again.
  ///
  /// - Throws: `CocoaError` if the file cannot be opened or mapped.
  public init(mapping url: URL) throws {
    // O_NONBLOCK: opening a pipe must not wait for a writer. A pipe cannot be mapped anyway.
    let descriptor = open(url.path(percentEncoded: false), O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard descriptor >= 0 else {
      throw CocoaError(errno == ENOENT ? .fileReadNoSuchFile : .fileReadNoPermission, userInfo: [NSFilePathErrorKey: url.path])
    }
    defer { close(descriptor) }
    var information = stat()
    guard fstat(descriptor, &information) == 0, information.st_mode & S_IFMT == S_IFREG else {
      throw CocoaError(.fileReadUnknown, userInfo: [NSFilePathErrorKey: url.path])
    }
    let size = Int(information.st_size)
    guard size > 0 else {
      self.init()
      return
    }
    guard let start = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0), start != MAP_FAILED else {
      throw CocoaError(.fileReadUnknown, userInfo: [NSFilePathErrorKey: url.path])
    }
    #if os(Linux)
      // A file system may cache a file in folios of megabytes. Mapped whole, they would stay in memory beside a page that is dropped.
      _ = madvise(start, size, Int32(MADV_NOHUGEPAGE))
    #endif
    self.init(bytesNoCopy: start, count: size, deallocator: .custom { pointer, count in munmap(pointer, count) })
  }
}
