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

  /// Buffers from this size on give back what is not read any more.
  static let forgettableBytes = 64 << 20

  /// Lets the system have the memory of the first floats back, which nobody reads any more, where it is much.
  func forget(first count: Int) {
    guard capacity * 4 >= Self.forgettableBytes else { return }
    // Whole huge pages: parts of one would only be taken out of sight.
    let page = 2 << 20
    let begin = (Int(bitPattern: pointer) + 4095) / 4096 * 4096
    let end = (Int(bitPattern: pointer) + count * 4) / page * page
    if end > begin { AlignedMemory.forget(begin..<end) }
  }

  deinit { BufferPool.giveBack(pointer, capacity: capacity) }
}

/// Keeps buffers that were given back, so that a denoising loop allocates next to nothing after its first step.
///
/// One pool for the process: buffers are anonymous, and two generations that run at once can use each other's. Before a large buffer comes from
/// the system, those that have been idle longest go back to it, as far as buffers in use and idle ones would together take more than buffers in
/// use ever did: what is kept for reuse never raises the peak. `releaseIdle()` gives all idle ones back.
public enum BufferPool {
  private struct Buffer {
    let pointer: UnsafeMutableRawPointer
    let capacity: Int
  }

  private struct State {
    /// By capacity, those that came back first at the beginning. Each with a number that grows with every return.
    var idle: [Int: [(turn: Int, pointer: UnsafeMutableRawPointer)]] = [:]
    var turn = 0
    /// Bytes of all idle buffers.
    var idleBytes = 0
    /// Bytes of the large buffers in use, idle, and in use at most since the last release.
    var used = 0, idleLarge = 0, peak = 0
  }

  nonisolated(unsafe) private static var state = State()
  private static let lock = Mutex<Void>(())

  /// Buffers are rounded up to classes an eighth of a power of two apart, so that shapes a little apart share them.
  private static func capacity(for count: Int) -> Int {
    let wanted = max(count, 16)
    let power = Int.bitWidth - 1 - wanted.leadingZeroBitCount
    let grain = max(16, 1 << max(0, power - 3))
    return (wanted + grain - 1) / grain * grain
  }

  /// Bytes that a buffer of so many floats takes.
  static func bytes(for count: Int) -> Int { capacity(for: count) * 4 }

  private static func isLarge(_ capacity: Int) -> Bool { capacity * 4 >= AlignedMemory.large }

  static func take(_ count: Int) -> (UnsafeMutablePointer<Float>, Int) {
    let wanted = capacity(for: count)
    let (reused, superfluous) = lock.withLock { _ -> (Buffer?, [Buffer]) in
      if let found = takeIdle(wanted) { return (found, []) }
      guard isLarge(wanted) else { return (nil, []) }
      state.used += wanted * 4
      state.peak = max(state.peak, state.used)
      return (nil, takeSuperfluous())
    }
    for buffer in superfluous { AlignedMemory.deallocate(buffer.pointer, bytes: buffer.capacity * 4) }
    let buffer = reused ?? Buffer(pointer: AlignedMemory.allocate(bytes: wanted * 4), capacity: wanted)
    return (buffer.pointer.bindMemory(to: Float.self, capacity: buffer.capacity), buffer.capacity)
  }

  /// An idle buffer of this capacity, or of one up to half as large again: the one used last, which may still be in a cache.
  private static func takeIdle(_ capacity: Int) -> Buffer? {
    let fitting = state.idle.keys.filter { $0 >= capacity && $0 <= capacity + capacity / 2 }
    guard let found = fitting.min(), let last = state.idle[found]?.popLast() else { return nil }
    if state.idle[found]?.isEmpty ?? false { state.idle[found] = nil }
    state.idleBytes -= found * 4
    if isLarge(found) {
      state.idleLarge -= found * 4
      state.used += found * 4
      state.peak = max(state.peak, state.used)
    }
    return Buffer(pointer: last.pointer, capacity: found)
  }

  /// The large buffers that have been idle longest, as many as exceed the peak.
  private static func takeSuperfluous() -> [Buffer] {
    var result: [Buffer] = []
    while state.used + state.idleLarge > state.peak {
      let oldest = state.idle.filter { isLarge($0.key) }.min { ($0.value.first?.turn ?? .max) < ($1.value.first?.turn ?? .max) }
      guard let capacity = oldest?.key, let buffer = state.idle[capacity]?.removeFirst() else { break }
      if state.idle[capacity]?.isEmpty ?? false { state.idle[capacity] = nil }
      state.idleLarge -= capacity * 4
      state.idleBytes -= capacity * 4
      result.append(Buffer(pointer: buffer.pointer, capacity: capacity))
    }
    return result
  }

  static func giveBack(_ pointer: UnsafeMutablePointer<Float>, capacity: Int) {
    lock.withLock { _ in
      state.turn += 1
      state.idle[capacity, default: []].append((state.turn, UnsafeMutableRawPointer(pointer)))
      state.idleBytes += capacity * 4
      if isLarge(capacity) {
        state.idleLarge += capacity * 4
        state.used -= capacity * 4
      }
    }
  }

  /// Bytes that are kept for reuse and hold nothing.
  public static var idleBytes: Int { lock.withLock { _ in state.idleBytes } }

  /// Gives every idle buffer back to the system; call it where the sizes change for good, as between the denoising
  /// loop and the decoder.
  public static func releaseIdle() {
    let buffers = lock.withLock { _ in
      defer {
        (state.idle, state.idleBytes, state.idleLarge) = ([:], 0, 0)
        state.peak = state.used
      }
      return state.idle
    }
    for (capacity, buffers) in buffers {
      for buffer in buffers { AlignedMemory.deallocate(buffer.pointer, bytes: capacity * 4) }
    }
  }
}
