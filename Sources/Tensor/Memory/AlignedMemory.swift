import Foundation

/// Memory aligned for SIMD.
///
/// Large blocks are mapped from the system and unmapped immediately, because an allocator would keep them. They ask for huge pages: with pages of
/// 4 KiB the matrix kernel would spend its time on address translation.
enum AlignedMemory {
  /// The size in bytes from which blocks are mapped from the system.
  static let large = 1 << 20

  static func allocate(bytes: Int) -> UnsafeMutableRawPointer {
    guard bytes >= large else { return .allocate(byteCount: bytes, alignment: 64) }
    guard let block = mmap(nil, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0), block != MAP_FAILED else {
      preconditionFailure("The system has no \(bytes) bytes of memory left.")
    }
    #if os(Linux)
      madvise(block, bytes, MADV_HUGEPAGE)
    #endif
    return block
  }

  /// Returns the pages at these addresses of a large block to the system. The block stays allocated, and the pages read as zeros.
  static func forget(_ addresses: Range<Int>) {
    guard let pointer = UnsafeMutableRawPointer(bitPattern: addresses.lowerBound) else { return }
    madvise(pointer, addresses.count, MADV_DONTNEED)
  }

  static func deallocate(_ block: UnsafeMutableRawPointer, bytes: Int) {
    if bytes >= large { munmap(block, bytes) } else { block.deallocate() }
  }
}
