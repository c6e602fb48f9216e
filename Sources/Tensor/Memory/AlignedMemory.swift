import Foundation

/// Memory aligned for SIMD.
///
/// Large blocks come from the system and go back to it at once: an allocator would keep them, and in pages of 4 KiB the matrix kernel would
/// spend its time on address translation.
enum AlignedMemory {
  /// Blocks from this size on come from the system.
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

  /// Gives back the pages at these addresses of a large block, which stays allocated: it reads as zeros then.
  static func forget(_ addresses: Range<Int>) {
    guard let pointer = UnsafeMutableRawPointer(bitPattern: addresses.lowerBound) else { return }
    madvise(pointer, addresses.count, MADV_DONTNEED)
  }

  static func deallocate(_ block: UnsafeMutableRawPointer, bytes: Int) {
    if bytes >= large { munmap(block, bytes) } else { block.deallocate() }
  }
}
