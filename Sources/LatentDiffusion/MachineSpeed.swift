import Tensor

/// What a machine does in a second, all threads together.
struct MachineSpeed {
  /// Multiplications and additions of passes and texts, and of the autoencoder, which Winograd's method makes the quicker.
  let passes: Double
  let pictures: Double
  /// Bytes of weights.
  let packing: Double

  /// Two cores of an AMD EPYC (Zen 4): for comparing what was planned with what is usual.
  static let reference = MachineSpeed(products: 260e9, quantized: nil, threads: 2)

  /// Measures products of the size that layers have.
  ///
  /// - Throws: `CancellationError`.
  init(of elementType: NumberFormat, in context: ExecutionContext) throws {
    let products = try Self.products(.float32, in: context)
    self.init(
      products: products, quantized: elementType == .q8 ? try Self.products(.q8, in: context) : nil, threads: context.threads)
  }

  /// - Parameters:
  ///   - products: multiplications and additions a second of float32 products.
  ///   - quantized: the same of the products of 8-bit weights, where those are used.
  private init(products: Double, quantized: Double?, threads: Int) {
    // Measured with Stable Diffusion 1.5: Winograd's convolutions make fewer products than are counted, and not all of a pass is products. With
    // 8-bit weights the linear layers, about half, have those products.
    passes = 1.3 * (quantized.map { 1 / (0.5 / $0 + 0.5 / products) } ?? products)
    pictures = 2.4 * products
    packing = 2e9 * Double(threads)
  }

  private static func products(_ elementType: NumberFormat, in context: ExecutionContext) throws -> Double {
    let (rows, side, seconds) = (2016, 640, 0.08)
    let floats = WeightTensor(Tensor(repeating: 0.01, shape: [side, side]))
    let weights = try PackedMatrix(elementType == .q8 ? floats.converted(to: .q8, in: context) : floats, in: context)
    let input = Tensor(repeating: 0.01, shape: [1, rows, side])
    var best = Double.infinity, elapsed = 0.0
    while elapsed < seconds {
      let once = try ContinuousClock().measure { _ = try input.multiplied(by: weights, in: context) } / .seconds(1)
      (best, elapsed) = (min(best, once), elapsed + once)
    }
    return 2 * Double(rows * side * side) / best
  }
}
