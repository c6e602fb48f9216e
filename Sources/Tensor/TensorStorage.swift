import Synchronization

/// A run of floats aligned for SIMD, taken from `BufferPool` and handed back when the last tensor lets go of it.
final class TensorStorage: @unchecked Sendable {
  let pointer: UnsafeMutablePointer<Float>
  let count: Int
  private let capacity: Int

  init(count: Int) {
    (pointer, capacity) = BufferPool.take(count)
    self.count = count
  }

  deinit { BufferPool.giveBack(pointer, capacity: capacity) }
}

/// Keeps buffers that were given back, so that a denoising loop allocates nothing after its first step.
///
/// One pool for the process: buffers are anonymous, and two generations that run at once can use each other's.
/// Of each size there are never more buffers than were in use at once, and `releaseIdle()` gives the idle ones back to the system.
public enum BufferPool {
  private struct Idle {
    var buffers: [Int: [UnsafeMutableRawPointer]] = [:]
    var bytes = 0
  }

  nonisolated(unsafe) private static var idle = Idle()
  private static let lock = Mutex<Void>(())

  /// Buffers are rounded up to classes an eighth of a power of two apart, so that shapes a little apart share them.
  private static func capacity(for count: Int) -> Int {
    let wanted = max(count, 16)
    let power = Int.bitWidth - 1 - wanted.leadingZeroBitCount
    let grain = max(16, 1 << max(0, power - 3))
    return (wanted + grain - 1) / grain * grain
  }

  /// An idle buffer of this capacity, or of one up to half as large again.
  private static func takeIdle(_ capacity: Int) -> (UnsafeMutableRawPointer, Int)? {
    lock.withLock { _ in
      let fitting = idle.buffers.filter { $0.key >= capacity && $0.key <= capacity + capacity / 2 && !$0.value.isEmpty }
      guard let found = fitting.keys.min(), let buffer = idle.buffers[found]?.popLast() else { return nil }
      idle.bytes -= found * 4
      return (buffer, found)
    }
  }

  static func take(_ count: Int) -> (UnsafeMutablePointer<Float>, Int) {
    let wanted = capacity(for: count)
    let (raw, capacity) = takeIdle(wanted) ?? (AlignedMemory.allocate(bytes: wanted * 4), wanted)
    return (raw.bindMemory(to: Float.self, capacity: capacity), capacity)
  }

  static func giveBack(_ pointer: UnsafeMutablePointer<Float>, capacity: Int) {
    let raw = UnsafeMutableRawPointer(pointer)
    lock.withLock { _ in
      idle.buffers[capacity, default: []].append(raw)
      idle.bytes += capacity * 4
    }
  }

  /// Bytes that are kept for reuse and hold nothing.
  public static var idleBytes: Int { lock.withLock { _ in idle.bytes } }

  /// Gives every idle buffer back to the system; call it where the sizes change for good, as between the denoising
  /// loop and the decoder.
  public static func releaseIdle() {
    let buffers = lock.withLock { _ in
      defer { idle = Idle() }
      return idle.buffers
    }
    for (capacity, buffers) in buffers {
      for buffer in buffers { AlignedMemory.deallocate(buffer, bytes: capacity * 4) }
    }
  }
}
