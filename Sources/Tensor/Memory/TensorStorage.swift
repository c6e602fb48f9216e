import Synchronization

/// A run of floats aligned for SIMD, taken from `BufferPool` and returned when the last reference to it goes away. Alternatively it has no memory
/// and is only counted while it lives.
final class TensorStorage: @unchecked Sendable {
  /// For counted storage this is a placeholder that must be neither read nor written.
  let pointer: UnsafeMutablePointer<Float>
  let count: Int
  private let capacity: Int
  /// The counter of counted storage; nil if there is memory.
  let counter: WorkCounter?
  /// The address at which counted storage would lie in the arena; 0 for small ones.
  private let address: UInt
  /// A number that no other storage has or will have.
  let serial = TensorStorage.serials.wrappingAdd(1, ordering: .relaxed).newValue
  private static let serials = Atomic<UInt64>(0)
  /// Whether counted storage would have returned its memory to the system before it goes away.
  var isForgotten = false

  init(count: Int) {
    (pointer, capacity) = BufferPool.take(count)
    (self.count, counter, address) = (count, nil, 0)
  }

  init(count: Int, countedBy counter: WorkCounter) {
    (pointer, capacity) = (WorkCounter.nowhere, BufferPool.bytes(for: count) / 4)
    (self.count, self.counter) = (count, counter)
    address = counter.hold(capacity * 4)
  }

  /// The bytes that these floats take, or would take.
  var bytes: Int { capacity * 4 }

  /// The size in bytes from which buffers return memory that is not read again.
  static let forgettableBytes = 64 << 20

  var isForgettable: Bool { capacity * 4 >= Self.forgettableBytes }

  /// Returns the memory of the first floats to the system if the buffer is large. These must not be read again.
  func forget(first count: Int) {
    guard isForgettable, counter == nil else { return }
    // Up to the end of a whole huge page: the system would unmap a part of one, but could not use it.
    let page = 2 << 20
    let begin = (Int(bitPattern: pointer) + 4095) / 4096 * 4096
    let end = (Int(bitPattern: pointer) + count * 4) / page * page
    if end > begin { AlignedMemory.forget(begin..<end) }
  }

  deinit {
    if let counter { counter.drop(bytes, at: address, isForgotten: isForgotten) } else { BufferPool.giveBack(pointer, capacity: capacity) }
  }
}

/// Keeps released buffers for reuse, so that a denoising loop takes no memory from the system after its first step.
///
/// There is one pool for the process, so that concurrent generations can reuse each other's buffers. Large buffers come from one arena, so
/// that the pool keeps little more than the peak in use. `releaseIdle()` returns the memory of all idle buffers to the system.
public enum BufferPool {
  private struct State {
    var arena = MemoryArena()
    /// Small idle buffers, by capacity.
    var idle: [Int: [UnsafeMutableRawPointer]] = [:]
    var idleBytes = 0
  }

  nonisolated(unsafe) private static var state = State()
  private static let lock = Mutex<Void>(())
  /// The size in bytes from which a buffer comes from the arena.
  static let large = 1 << 18

  /// The floats of a buffer for `count`. Small buffers have size classes an eighth of a power of two apart, so that similar shapes
  /// share them.
  private static func capacity(for count: Int) -> Int {
    let wanted = max(count, 16)
    guard wanted * 4 < large else { return (wanted + 15) / 16 * 16 }
    let power = Int.bitWidth - 1 - wanted.leadingZeroBitCount
    let grain = max(16, 1 << max(0, power - 3))
    return (wanted + grain - 1) / grain * grain
  }

  /// The bytes that a buffer for `count` floats takes.
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

  /// Bytes of idle buffers that are kept for reuse.
  public static var idleBytes: Int { lock.withLock { _ in state.idleBytes + state.arena.idleBytes } }

  /// Returns every idle buffer to the system. Call it when the sizes change for good, such as between the denoising
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
