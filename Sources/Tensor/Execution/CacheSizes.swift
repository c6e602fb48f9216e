import Foundation

/// The processor's caches, by which loops choose how much they work on at once.
///
/// Only the numbers of rows and tiles depend on them, which change no result. The lengths of the parts of sums are the same on all machines.
package struct CacheSizes {
  /// Bytes of a core's own second-level cache.
  package let secondLevel: Int
  /// Bytes of a last-level cache, and the number of processors that share it.
  package let lastLevel: Int
  package let sharing: Int

  /// Those of the first processor, or usual ones where the system does not tell. Where cores are unequal, the first is one of the fast ones, whose
  /// caches are larger, so slower cores may read a little from farther away.
  package static let machine = CacheSizes()

  /// Bytes of the last-level cache for each of so many threads.
  package func lastLevel(for threads: Int) -> Int { lastLevel / max(1, min(threads, sharing)) }

  private init() {
    let (second, last) = (Self.system(level: 2), Self.system(level: 3))
    secondLevel = second?.bytes ?? 1 << 20
    (lastLevel, sharing) = last ?? (bytes: 16 << 20, sharing: 8)
  }

  private static func system(level: Int) -> (bytes: Int, sharing: Int)? {
    #if os(Linux)
      // `sysconf` adds up the last-level caches of all chips.
      for index in 0..<8 {
        let folder = "/sys/devices/system/cpu/cpu0/cache/index\(index)/"
        func text(_ name: String) -> String {
          ((try? String(contentsOfFile: folder + name, encoding: .utf8)) ?? "").trimmingCharacters(in: .whitespacesAndNewlines)
        }
        guard text("level") == String(level), text("type") != "Instruction", let size = bytes(text("size")) else { continue }
        return (size, max(1, count(text("shared_cpu_list"))))
      }
      return nil
    #else
      var size = 0, length = MemoryLayout<Int>.size
      guard sysctlbyname("hw.l\(level)cachesize", &size, &length, nil, 0) == 0, size > 0 else { return nil }
      return (size, ProcessInfo.processInfo.processorCount)
    #endif
  }

  /// The bytes that a size such as 512K names; nil if it is none.
  package static func bytes(_ size: String) -> Int? {
    let units: [Character: Int] = ["K": 1 << 10, "M": 1 << 20, "G": 1 << 30]
    let unit = size.last.flatMap { units[$0] }
    guard let count = Int(unit == nil ? size : String(size.dropLast())), (1..<1 << 30).contains(count) else { return nil }
    return count * (unit ?? 1)
  }

  /// The number of processors that a list such as 0-7,64-71 names; 0 if it is none.
  package static func count(_ list: String) -> Int {
    list.split(separator: ",").reduce(0) { sum, run in
      let ends = run.split(separator: "-").compactMap { Int($0) }.filter { (0..<1 << 20).contains($0) }
      guard let first = ends.first, let last = ends.last, first <= last else { return sum }
      return sum + last - first + 1
    }
  }
}
