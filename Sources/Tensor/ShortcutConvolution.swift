/// The first half of a residual block whose way around is a convolution too.
extension Tensor {
  /// bias + Σ window of activation(normalised x) · W, and shortcut · x beside it.
  ///
  /// A single large input that is handed over with its last reference is gone through once from top to bottom: lines of it pass through the
  /// shortcut, are normalised where they are and convolved, and their memory is given back, so that it and the two results are never there
  /// whole at once. The numbers are those of one step after the other.
  ///
  /// - Parameters:
  ///   - inputs: `[N, H, W, Cᵢ]` each, side by side in channels.
  ///   - normalization: of ΣCᵢ channels.
  ///   - activation: none or SiLU.
  ///   - weights: `[O, ΣCᵢ, kernelHeight, kernelWidth]`, packed.
  ///   - bias: `[O]`, or `[N, O]` for one a picture.
  ///   - shortcut: `[P, ΣCᵢ, 1, 1]`, packed, and its bias `[P]`.
  /// - Returns: `[N, H', W', O]` and `[N, H, W, P]`.
  /// - Precondition: the shapes fit.
  /// - Throws: `CancellationError`.
  public static func convolution(
    _ inputs: consuming [Tensor], normalizedBy normalization: GroupNormalization, activation: Activation, weights: PackedMatrix,
    geometry: ConvolutionGeometry, bias: Tensor?, beside shortcut: (weights: PackedMatrix, bias: Tensor?), in context: ExecutionContext
  ) throws -> (result: Tensor, shortcut: Tensor) {
    var inputs = inputs
    let isOurs = inputs.count == 1 && isKnownUniquelyReferenced(&inputs[0].storage)
    let shape = inputs[0].shape
    guard isOurs, inputs[0].storage.isForgettable,
      WinogradConvolution.isWorthwhile(geometry, inputs: inputs, height: shape[1], width: shape[2], outputs: weights.outputs)
    else {
      let pointwise = ConvolutionGeometry(kernelHeight: 1, kernelWidth: 1, padding: .all(0))
      let around = try convolution(copy inputs, weights: shortcut.weights, geometry: pointwise, bias: shortcut.bias, in: context)
      let normalized = try normalization(consume inputs, activation: activation, in: context)
      return (try convolution([consume normalized], weights: weights, geometry: geometry, bias: bias, in: context), around)
    }
    let x = inputs[0], around = Tensor(uninitialized: Shape(shape.dimensions.dropLast() + [shortcut.weights.outputs]))
    let (weights, pointwise) = (try weights.resident(in: context), try shortcut.weights.resident(in: context))
    precondition(
      pointwise.inputs == shape.columns && weights.inputs == 9 * shape.columns, "\(shape) does not fit weights of \(pointwise.inputs).")
    let affine = try normalization.affine(of: inputs, in: context)
    let result = Tensor(uninitialized: Shape(shape.dimensions.dropLast() + [weights.outputs]))
    let convolution = WinogradConvolution(
      inputs: inputs, weights: weights, bias: bias, residual: nil, result: result, ownsInput: true
    ) { lines in
      let rows = lines.lowerBound * shape[2]..<lines.upperBound * shape[2]
      try MatrixProduct(
        left: .matrix(x.pointer + rows.lowerBound * shape.columns, stride: shape.columns), rows: rows.count, weights: pointwise,
        result: around, bias: shortcut.bias, residual: nil, activation: .none, firstRow: rows.lowerBound
      ).run(in: context)
      try affine.apply(to: [x], rows: rows, activation: activation, into: x, in: context)
    }
    try convolution.run(in: context)
    return (result, around)
  }
}
