import Foundation

/// Address space from which large buffers are allocated.
///
/// Free gaps are kept in the order of their addresses, and neighbours are merged, so that memory freed in one size serves another. A pass of a
/// network asks for the same sizes again, but in an order for which free lists by size would take ever more memory, or would have pages cleared
/// again. The memory that is ever touched is little more than the peak in use.
package struct MemoryArena {
  /// Whether addresses are made up, and no memory belongs to them: for counting what an arena would take.
  private let isImaginary: Bool

  package init(isImaginary: Bool = false) { self.isImaginary = isImaginary }

  /// A run of free bytes.
  private struct Gap {
    var start: UnsafeMutableRawPointer
    var bytes: Int
    /// The bytes from its start that may have been used since the system last cleared them, and so take memory.
    var touched: Int
    var end: UnsafeMutableRawPointer { start + bytes }
  }

  /// In the order of addresses. Gaps of different reservations may be adjacent, but are never merged.
  private var gaps: [Gap] = []
  /// The start addresses of reservations.
  private var borders: Set<UnsafeMutableRawPointer> = []

  /// The bytes to reserve at once. Address space costs nothing until it is touched.
  private static let reservation = 4 << 30
  private static let page = 4096

  private static func rounded(_ bytes: Int) -> Int { (bytes + page - 1) / page * page }

  /// Free bytes that take memory.
  package var idleBytes: Int { gaps.reduce(0) { $0 + $1.touched } }

  /// Takes bytes from the smallest gap that is large enough, of equal ones the first; nil if the system has no more memory.
  package mutating func take(_ bytes: Int) -> UnsafeMutableRawPointer? {
    let bytes = Self.rounded(bytes)
    var fitting: Int?
    for index in gaps.indices where gaps[index].bytes >= bytes {
      if fitting.map({ gaps[index].bytes < gaps[$0].bytes }) ?? true { fitting = index }
    }
    guard let index = fitting ?? reserve(bytes) else { return nil }
    let start = gaps[index].start
    if gaps[index].bytes == bytes {
      gaps.remove(at: index)
    } else {
      gaps[index].start += bytes
      gaps[index].bytes -= bytes
      gaps[index].touched = max(0, gaps[index].touched - bytes)
    }
    return start
  }

  package mutating func giveBack(_ start: UnsafeMutableRawPointer, bytes: Int) {
    insert(Gap(start: start, bytes: Self.rounded(bytes), touched: Self.rounded(bytes)))
  }

  private mutating func insert(_ gap: Gap) {
    var index = gaps.firstIndex { $0.start > gap.start } ?? gaps.count
    gaps.insert(gap, at: index)
    joinNext(index)
    if index > 0 {
      index -= 1
      joinNext(index)
    }
  }

  /// Merges a gap with the next one if they are adjacent parts of one reservation.
  private mutating func joinNext(_ index: Int) {
    guard index + 1 < gaps.count, gaps[index].end == gaps[index + 1].start, !borders.contains(gaps[index + 1].start) else { return }
    let next = gaps.remove(at: index + 1)
    if next.touched > 0 || gaps[index].touched == gaps[index].bytes { gaps[index].touched = gaps[index].bytes + next.touched }
    gaps[index].bytes += next.bytes
  }

  private mutating func reserve(_ bytes: Int) -> Int? {
    if isImaginary {
      // Reservations lie apart, so that they are never merged.
      guard let block = UnsafeMutableRawPointer(bitPattern: 1 << 46 + borders.count << 41), bytes < 1 << 40 else { return nil }
      borders.insert(block)
      insert(Gap(start: block, bytes: 1 << 40, touched: 0))
      return gaps.firstIndex { $0.start == block }
    }
    // A system that counts address space as memory may refuse a large reservation. Then only the needed bytes are reserved.
    for size in [max(Self.reservation, bytes), bytes] {
      guard let block = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0), block != MAP_FAILED else {
        continue
      }
      #if os(Linux)
        // With pages of 4 KiB the matrix kernel would spend its time on address translation.
        madvise(block, size, MADV_HUGEPAGE)
      #endif
      borders.insert(block)
      insert(Gap(start: block, bytes: size, touched: 0))
      return gaps.firstIndex { $0.start == block }
    }
    return nil
  }

  /// Returns the memory of all gaps to the system. Their addresses stay reserved.
  package mutating func release() {
    for index in gaps.indices where gaps[index].touched > 0 {
      madvise(gaps[index].start, gaps[index].touched, MADV_DONTNEED)
      gaps[index].touched = 0
    }
  }
}
