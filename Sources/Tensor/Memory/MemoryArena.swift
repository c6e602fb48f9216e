import Foundation

/// Address space from which large buffers are cut, and to which they return.
///
/// What is free stays in order of its addresses, and neighbours become one, so that memory of one size serves for another: a pass of a network
/// asks for the same sizes again, but in an order that lists by size answer with ever more memory, or by clearing pages anew. The memory that
/// is ever touched is little more than the most that was in use at once.
package struct MemoryArena {
  package init() {}

  /// A run of free bytes.
  private struct Gap {
    var start: UnsafeMutableRawPointer
    var bytes: Int
    /// How much of it, from its beginning, may have been used since the system last had it, and then takes memory.
    var touched: Int
    var end: UnsafeMutableRawPointer { start + bytes }
  }

  /// By address. Gaps of different reservations may touch, but never become one.
  private var gaps: [Gap] = []
  /// Where reservations begin.
  private var borders: Set<UnsafeMutableRawPointer> = []

  /// Address space costs nothing until it is touched.
  private static let reservation = 4 << 30
  private static let page = 4096

  private static func rounded(_ bytes: Int) -> Int { (bytes + page - 1) / page * page }

  /// Bytes that are free and take memory.
  package var idleBytes: Int { gaps.reduce(0) { $0 + $1.touched } }

  /// The smallest gap that is large enough, at the lowest address. Nil where the system has no more.
  package mutating func take(_ bytes: Int) -> UnsafeMutableRawPointer? {
    let bytes = Self.rounded(bytes)
    let fitting = gaps.indices.filter { gaps[$0].bytes >= bytes }
    guard let index = fitting.min(by: { gaps[$0].bytes < gaps[$1].bytes }) ?? reserve(bytes) else { return nil }
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

  /// Makes one of a gap and the next where they touch.
  private mutating func joinNext(_ index: Int) {
    guard index + 1 < gaps.count, gaps[index].end == gaps[index + 1].start, !borders.contains(gaps[index + 1].start) else { return }
    let next = gaps.remove(at: index + 1)
    if next.touched > 0 || gaps[index].touched == gaps[index].bytes { gaps[index].touched = gaps[index].bytes + next.touched }
    gaps[index].bytes += next.bytes
  }

  private mutating func reserve(_ bytes: Int) -> Int? {
    // A system that counts address space as memory may refuse more than is wanted at once.
    for size in [max(Self.reservation, bytes), bytes] {
      guard let block = mmap(nil, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0), block != MAP_FAILED else {
        continue
      }
      #if os(Linux)
        // In pages of 4 KiB the matrix kernel would spend its time on address translation.
        madvise(block, size, MADV_HUGEPAGE)
      #endif
      borders.insert(block)
      insert(Gap(start: block, bytes: size, touched: 0))
      return gaps.firstIndex { $0.start == block }
    }
    return nil
  }

  /// Gives the memory of all gaps back to the system; their addresses stay.
  package mutating func release() {
    for index in gaps.indices where gaps[index].touched > 0 {
      madvise(gaps[index].start, gaps[index].touched, MADV_DONTNEED)
      gaps[index].touched = 0
    }
  }
}
