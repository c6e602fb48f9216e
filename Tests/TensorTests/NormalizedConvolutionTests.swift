import Tensor
import LatentDiffusionTestSupport
import Testing

/// What is normalised some lines at a time gives what one step after the other gives, bit for bit.
@Suite struct NormalizedConvolutionTests {
  private static let geometry = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))

  struct Case: Sendable, CustomTestStringConvertible {
    let shape: Shape
    /// Channels of the inputs.
    var inputs = [64]
    var outputs = 64
    var form = NumberFormat.float32
    var testDescription: String { "\(shape), \(inputs) to \(outputs)" }
  }

  @Test(arguments: [
    // One group of tiles, several with shared tiles, and several whose threads have tiles of their own; sides that tiles do not divide.
    Case(shape: [1, 8, 8]), Case(shape: [2, 61, 45]), Case(shape: [1, 67, 59]), Case(shape: [3, 90, 77]), Case(shape: [1, 150, 210]),
    Case(shape: [7, 22, 19]), Case(shape: [2, 100, 90], inputs: [32, 16, 48]), Case(shape: [1, 96, 96], inputs: [160], outputs: 96),
    // More than is prepared at once where windows are of words: split ones on small maps, of pairs on all.
    Case(shape: [9, 61, 45], inputs: [96]), Case(shape: [2, 150, 210], form: .q8),
    // No map for tiles.
    Case(shape: [2, 5, 7]),
  ])
  func linesPassAsWholePicturesDo(_ given: Case) throws {
    var numbers = Numbers(seed: 9)
    let channels = given.inputs.reduce(0, +), pictures = given.shape[0]
    let inputs = given.inputs.map { numbers.tensor(Shape(given.shape.dimensions + [$0])) }
    let kernel = try WeightTensor(numbers.tensor([given.outputs, channels, 3, 3])).converted(to: given.form)
    let weights = try PackedMatrix(kernel, in: ExecutionContext())
    let norm = GroupNormalization(groups: 8, epsilon: 1e-5, weight: numbers.tensor([channels]), bias: numbers.tensor([channels]))
    let bias = numbers.tensor([pictures, given.outputs])
    let residual = numbers.tensor(Shape(given.shape.dimensions + [given.outputs])), before = residual.elements
    for threads in [1, 2, 3, 8] {
      let context = ExecutionContext(threads: threads)
      let normalized = try norm(inputs, activation: .silu, in: context)
      let expected = try Tensor.convolution(
        [normalized], weights: weights, geometry: Self.geometry, bias: bias, adding: residual, in: context
      ).elements
      func found(_ residual: consuming Tensor) throws -> Tensor {
        try Tensor.convolution(
          inputs, normalizedBy: norm, activation: .silu, weights: weights, geometry: Self.geometry, bias: bias, adding: consume residual,
          in: context
        ).result
      }
      #expect(try found(residual).elements == expected, "\(threads) threads")
      #expect(residual.elements == before, "a residual that others have is left alone")
      // One that is handed over is where the result is then.
      #expect(try found(Tensor(before, shape: residual.shape)).elements == expected, "\(threads) threads, handed over")
    }
  }

  @Test(arguments: [ConvolutionMethod.direct, .winograd]) func resultsTakeThePlaceOfAResidual(_ method: ConvolutionMethod) throws {
    var numbers = Numbers(seed: 10)
    let x = numbers.tensor([2, 37, 41, 48]), context = ExecutionContext()
    let weights = try PackedMatrix(WeightTensor(numbers.tensor([56, 48, 3, 3])), in: context)
    let residual = numbers.tensor([2, 37, 41, 56])
    func result(_ residual: consuming Tensor) throws -> [Float] {
      try Tensor.convolution([x], weights: weights, geometry: Self.geometry, adding: consume residual, method: method, in: context).elements
    }
    #expect(try result(residual) == result(Tensor(residual.elements, shape: residual.shape)))
  }
}
