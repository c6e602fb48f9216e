import Foundation

/// PyTorch's generator on an NVIDIA GPU: `torch.Generator("cuda").manual_seed(seed)`.
///
/// Integers and uniforms are PyTorch's bit for bit. Normals follow cuRAND's formula in single precision. A GPU computes sine and
/// cosine by a fast instruction with an error of up to 2⁻²⁰·⁵ of the radius, so its normals differ by up to about 4e-6, usually far
/// less. The generator is a value: a copy draws the same numbers again.
///
/// The order of the numbers depends on how many threads PyTorch launches. If there are no more values than threads that the GPU runs at
/// a time, each value has its own thread and all GPUs agree: 4×64×64 latents are 16,384 values, and a T4 runs 40,960 threads. With more
/// values, a thread yields four or more, and GPUs of different sizes disagree; `residentThreads` gives the size. Without it, every value
/// has its own thread for any count. This is the convention of programs that imitate a GPU's noise without a GPU.
///
/// Sources: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011 (Philox4x32-10); cuRAND's
/// `curand_uniform4` and `curand_normal4`; PyTorch's `distribution_nullary_kernel`.
public struct PhiloxGenerator: Sendable, Codable {
  /// Threads of a block in PyTorch's kernel, and so the unit in which threads are launched.
  private static let blockSize = 256
  /// Values that a thread draws at a time.
  private static let lanes = 4

  private let key: SIMD2<UInt32>
  private let residentThreads: Int
  /// How many times each thread's stream has been drawn from: the counter's low half. PyTorch's `philox_offset` is four times this.
  private var drawn: UInt64 = 0

  /// - Parameters:
  ///   - seed: as for `manual_seed`.
  ///   - residentThreads: how many threads the imitated GPU runs at a time: its number of multiprocessors times the threads of each
  ///     (T4 40 × 1024, RTX 4090 128 × 1536, A100 108 × 2048, H100 132 × 2048). `nil` is a GPU that runs any number.
  /// - Precondition: `residentThreads` is at least 256.
  public init(seed: UInt64, residentThreads: Int? = nil) {
    precondition(residentThreads ?? Self.blockSize >= Self.blockSize, "A GPU runs at least \(Self.blockSize) threads.")
    key = SIMD2(truncatingIfNeeded: SIMD2(seed, seed >> 32))
    self.residentThreads = (residentThreads ?? .max) / Self.blockSize * Self.blockSize
  }

  /// - Throws: `DecodingError.dataCorrupted` where no GPU runs as many threads.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    key = try values.decode(SIMD2<UInt32>.self, forKey: .key)
    residentThreads = try values.decode(Int.self, forKey: .residentThreads)
    drawn = try values.decode(UInt64.self, forKey: .drawn)
    guard residentThreads >= Self.blockSize, residentThreads.isMultiple(of: Self.blockSize) else {
      throw DecodingError.dataCorruptedError(
        forKey: .residentThreads, in: values, debugDescription: "Threads come in blocks of \(Self.blockSize), not \(residentThreads).")
    }
  }

  /// The integers behind the next `count` values, 32 random bits each, in the order of the values.
  public mutating func integers(_ count: Int) -> [UInt32] { draw(count, initial: 0) { words, lane in words[lane] } }

  /// `torch.rand(count, device="cuda")`: 0..<1.
  public mutating func uniform(_ count: Int) -> [Float] {
    draw(count, initial: 0) { words, lane in
      // cuRAND's uniforms are in 0 exclusive to 1 inclusive; PyTorch replaces 1 by 0.
      let value = Self.unit(words[lane])
      return value == 1 ? 0 : value
    }
  }

  /// `torch.randn(count, device="cuda")`.
  ///
  /// As in PyTorch, the numbers depend on the calls: two calls give other numbers than one call for the sum of their counts.
  public mutating func normal(_ count: Int) -> [Float] {
    draw(count, initial: 0) { words, lane in
      // Box–Muller: words 0 and 1 give the radius and the angle of lanes 0 and 1, words 2 and 3 those of lanes 2 and 3.
      let radius = (-2 * log(Self.unit(words[lane & ~1]))).squareRoot()
      let angle = Self.angle(words[lane | 1])
      return radius * (lane & 1 == 0 ? sin(angle) : cos(angle))
    }
  }

  /// (w + ½) / 2³² in single precision: above 0, at most 1.
  private static func unit(_ word: UInt32) -> Float { Float(word) * 0x1p-32 + 0x1p-33 }

  /// 2π (w + ½) / 2³² with one rounding, as a GPU's fused multiply-add has it; a product of two singles is exact in double precision.
  private static func angle(_ word: UInt32) -> Float {
    let step = Float(2 * Double.pi * 0x1p-32)
    return Float(Double(Float(word)) * Double(step) + Double(step / 2))
  }

  /// Lays values out as PyTorch's kernel does: thread t draws four words at a time, which belong to places t, t + threads,
  /// t + 2·threads and t + 3·threads; then it moves on by 4·threads.
  private mutating func draw<Value>(
    _ count: Int, initial: Value, _ value: (_ words: SIMD4<UInt32>, _ lane: Int) -> Value
  ) -> [Value] {
    var values = [Value](repeating: initial, count: count)
    guard count > 0 else { return values }
    let blocks = (count - 1) / Self.blockSize + 1
    let threads = min(residentThreads, blocks * Self.blockSize)
    for start in stride(from: 0, to: count, by: threads * Self.lanes) {
      for thread in 0..<min(threads, count - start) {
        let words = Self.words(counter: (drawn, UInt64(thread)), key: key)
        for lane in 0..<Self.lanes where start + lane * threads + thread < count {
          values[start + lane * threads + thread] = value(words, lane)
        }
      }
      drawn &+= 1
    }
    return values
  }

  /// Philox4x32-10 of a counter of 128 bits, given as its low and its high half.
  static func words(counter: (low: UInt64, high: UInt64), key: SIMD2<UInt32>) -> SIMD4<UInt32> {
    var (x, y) = (UInt32(truncatingIfNeeded: counter.low), UInt32(truncatingIfNeeded: counter.low >> 32))
    var (z, w) = (UInt32(truncatingIfNeeded: counter.high), UInt32(truncatingIfNeeded: counter.high >> 32))
    var (first, second) = (key.x, key.y)
    for _ in 0..<10 {
      let even = UInt64(x) &* 0xd251_1f53
      let odd = UInt64(z) &* 0xcd9e_8d57
      (x, z) = (UInt32(truncatingIfNeeded: odd >> 32) ^ y ^ first, UInt32(truncatingIfNeeded: even >> 32) ^ w ^ second)
      (y, w) = (UInt32(truncatingIfNeeded: odd), UInt32(truncatingIfNeeded: even))
      // The key of the next round, by the golden ratio and √3 - 1.
      first &+= 0x9e37_79b9
      second &+= 0xbb67_ae85
    }
    return SIMD4(x, y, z, w)
  }
}
