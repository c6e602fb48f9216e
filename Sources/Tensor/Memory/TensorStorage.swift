import Synchronization

/// A run of floats aligned for SIMD, taken from `BufferPool` and handed back when the last tensor lets go of it; or one that is only counted as long as it
/// lives, and has no memory.
final class TensorStorage: @unchecked Sendable {
  /// Of a counted one: of a place that holds nothing, and that nobody reads or writes.
  let pointer: UnsafeMutablePointer<Float>
  let count: Int
  private let capacity: Int
  /// Who counts this; nil where there is memory.
  let counter: WorkCounter?

  init(count: Int) {
    (pointer, capacity) = BufferPool.take(count)
    (self.count, counter) = (count, nil)
  }

  init(count: Int, countedBy counter: WorkCounter) {
    (pointer, capacity) = (WorkCounter.nowhere, BufferPool.bytes(for: count) / 4)
    (self.count, self.counter) = (count, counter)
    counter.hold(bytes)
  }

  /// That the memory of these floats takes, or would take.
  var bytes: Int { capacity * 4 }

  /// Buffers from this size on give back what is not read any more.
  static let forgettableBytes = 64 << 20

  var isForgettable: Bool { capacity * 4 >= Self.forgettableBytes }

  /// Lets the system have the memory of the first floats back, which nobody reads any more, where it is much.
  func forget(first count: Int) {
    guard isForgettable, counter == nil else { return }
    // Whole huge pages: parts of one would only be taken out of sight.
    let page = 2 << 20
    let begin = (Int(bitPattern: pointer) + 4095) / 4096 * 4096
    let end = (Int(bitPattern: pointer) + count * 4) / page * page
    if end > begin { AlignedMemory.forget(begin..<end) }
  }

  deinit {
    if let counter { counter.drop(bytes) } else { BufferPool.giveBack(pointer, capacity: capacity) }
  }
}

/// Keeps buffers that were given back, so that a denoising loop takes no memory from the system after its first step.
///
/// One pool for the process: buffers are anonymous, and two generations that run at once can use each other's. Large ones are cut from one
/// arena, so that what is kept takes little more than what was in use at once; `releaseIdle()` gives the memory of all idle ones back.
public enum BufferPool {
  private struct State {
    var arena = MemoryArena()
    /// Small ones, by capacity.
    var idle: [Int: [UnsafeMutableRawPointer]] = [:]
    var idleBytes = 0
  }

  nonisolated(unsafe) private static var state = State()
  private static let lock = Mutex<Void>(())
  /// Bytes from which on a buffer comes from the arena.
  private static let large = 1 << 18

  /// Floats of a buffer for `count`. Small ones are rounded up to classes an eighth of a power of two apart, so that shapes a little apart
  /// share them.
  private static func capacity(for count: Int) -> Int {
    let wanted = max(count, 16)
    guard wanted * 4 < large else { return (wanted + 15) / 16 * 16 }
    let power = Int.bitWidth - 1 - wanted.leadingZeroBitCount
    let grain = max(16, 1 << max(0, power - 3))
    return (wanted + grain - 1) / grain * grain
  }

  /// Bytes that a buffer of so many floats takes.
  static func bytes(for count: Int) -> Int { capacity(for: count) * 4 }

  static func take(_ count: Int) -> (UnsafeMutablePointer<Float>, Int) {
    let capacity = capacity(for: count)
    let bytes = capacity * 4
    let found = lock.withLock { _ -> UnsafeMutableRawPointer? in
      if bytes >= large { return state.arena.take(bytes) }
      guard let idle = state.idle[capacity]?.popLast() else { return nil }
      state.idleBytes -= bytes
      return idle
    }
    guard found != nil || bytes < large else { preconditionFailure("The system has no \(bytes) bytes of memory left.") }
    let raw = found ?? .allocate(byteCount: bytes, alignment: 64)
    return (raw.bindMemory(to: Float.self, capacity: capacity), capacity)
  }

  static func giveBack(_ pointer: UnsafeMutablePointer<Float>, capacity: Int) {
    let raw = UnsafeMutableRawPointer(pointer)
    lock.withLock { _ in
      if capacity * 4 >= large {
        state.arena.giveBack(raw, bytes: capacity * 4)
      } else {
        state.idle[capacity, default: []].append(raw)
        state.idleBytes += capacity * 4
      }
    }
  }

  /// Bytes that are kept for reuse and hold nothing.
  public static var idleBytes: Int { lock.withLock { _ in state.idleBytes + state.arena.idleBytes } }

  /// Gives every idle buffer back to the system; call it where the sizes change for good, as between the denoising
  /// loop and the decoder.
  public static func releaseIdle() {
    let small = lock.withLock { _ in
      state.arena.release()
      defer { (state.idle, state.idleBytes) = ([:], 0) }
      return state.idle.values.joined()
    }
    for buffer in small { buffer.deallocate() }
  }
}
