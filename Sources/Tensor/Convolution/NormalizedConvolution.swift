/// The first step of a residual block, with the block's shortcut if that is a convolution, too.
extension Tensor {
  /// bias + residual + Σ window of activation(normalised x) · W, and also shortcut · x.
  ///
  /// Normalised lines are made some at a time, just before the windows read them. If the caller passes the last reference to a single large
  /// input, its memory is returned to the system while it is read. The result equals that of separate steps.
  ///
  /// - Parameters:
  ///   - inputs: `[N, H, W, Cᵢ]` each, joined along channels.
  ///   - normalization: of ΣCᵢ channels.
  ///   - activation: none or SiLU.
  ///   - weights: `[O, ΣCᵢ, kernelHeight, kernelWidth]`, packed.
  ///   - bias: `[O]`, or `[N, O]` with a bias for each picture.
  ///   - residual: of the result's shape. If the caller passes the last reference, the result reuses its memory.
  ///   - shortcut: `[P, ΣCᵢ, 1, 1]`, packed, and its bias `[P]`.
  /// - Returns: `[N, H', W', O]` and, if there is a shortcut, `[N, H, W, P]`.
  /// - Precondition: the shapes fit.
  /// - Throws: `CancellationError`.
  public static func convolution(
    _ inputs: consuming [Tensor], normalizedBy normalization: GroupNormalization, activation: Activation, weights: PackedMatrix,
    geometry: ConvolutionGeometry, bias: Tensor?, adding residual: consuming Tensor? = nil,
    beside shortcut: (weights: PackedMatrix, bias: Tensor?)? = nil, in context: ExecutionContext
  ) throws -> (result: Tensor, shortcut: Tensor?) {
    try context.engine.convolution(
      consume inputs, normalizedBy: normalization, activation: activation, weights: weights, geometry: geometry, bias: bias,
      adding: consume residual, beside: shortcut, in: context)
  }

  /// The same by separate operations, for when a single pass over the lines gains nothing.
  static func convolutionStepByStep(
    _ inputs: consuming [Tensor], normalizedBy normalization: GroupNormalization, activation: Activation, weights: PackedMatrix,
    geometry: ConvolutionGeometry, bias: Tensor?, adding residual: consuming Tensor?,
    beside shortcut: (weights: PackedMatrix, bias: Tensor?)?, in context: ExecutionContext
  ) throws -> (result: Tensor, shortcut: Tensor?) {
    let around = try shortcut.map { try pointwise(inputs, weights: $0.weights, bias: $0.bias, in: context) }
    let normalized = try normalization(consume inputs, activation: activation, in: context)
    let result = try convolution(
      [consume normalized], weights: weights, geometry: geometry, bias: bias, adding: consume residual, in: context)
    return (result, around)
  }
}

extension CPUEngine {
  public func convolution(
    _ inputs: consuming [Tensor], normalizedBy normalization: GroupNormalization, activation: Activation, weights: PackedMatrix,
    geometry: ConvolutionGeometry, bias: Tensor?, adding residual: consuming Tensor?,
    beside shortcut: (weights: PackedMatrix, bias: Tensor?)?,
    in context: ExecutionContext
  ) throws -> (result: Tensor, shortcut: Tensor?) {
    var (inputs, residual) = (inputs, residual)
    let isOurs = inputs.count == 1 && isKnownUniquelyReferenced(&inputs[0].storage)
    let shape = inputs[0].shape
    guard UnitStrideConvolution.isWorthwhile(geometry, inputs: inputs, height: shape[1], width: shape[2]) else {
      return try Tensor.convolutionStepByStep(
        consume inputs, normalizedBy: normalization, activation: activation, weights: weights, geometry: geometry, bias: bias,
        adding: consume residual, beside: shortcut, in: context)
    }
    let weights = try weights.resident(in: context)
    let affine = try normalization.affine(of: inputs, in: context)
    let (result, isNew) = Tensor.result(Shape(shape.dimensions.dropLast() + [weights.outputs]), adding: &residual)
    // The shortcut reads each line before its memory is returned.
    let forgetsInput = isOurs && isNew && inputs[0].storage.isForgettable
    let passing = forgetsInput ? try shortcut.map { try Tensor.Passing(inputs[0], weights: $0.weights, bias: $0.bias, in: context) } : nil
    let around =
      try passing.map(\.result) ?? shortcut.map { try Tensor.pointwise(inputs, weights: $0.weights, bias: $0.bias, in: context) }
    let pictures = consume inputs
    let prepare = { (made: PassingLines) in
      let rows = made.lines.lowerBound * shape[2]..<made.lines.upperBound * shape[2]
      try passing?.make(rows, in: context)
      try affine.apply(to: pictures, rows: rows, activation: activation, into: made.window, in: context)
    }
    try UnitStrideConvolution(
      pictures, weights: weights, bias: bias, residual: residual, result: result, forgetsInput: forgetsInput, preparing: prepare
    ).run(in: context)
    return (result, around)
  }
}

extension Tensor {
  /// A 1×1 convolution of inputs joined along channels.
  static func pointwise(
    _ inputs: [Tensor], weights: PackedMatrix, bias: Tensor?, in context: ExecutionContext
  ) throws -> Tensor {
    let geometry = ConvolutionGeometry(kernelHeight: 1, kernelWidth: 1, padding: .all(0))
    return try convolution(inputs, weights: weights, geometry: geometry, bias: bias, in: context)
  }

  /// A product with a tensor's rows, computed some rows at a time.
  fileprivate struct Passing {
    let result: Tensor
    private let x: Tensor
    private let weights: PackedMatrix
    private let bias: Tensor?

    init(_ x: Tensor, weights: PackedMatrix, bias: Tensor?, in context: ExecutionContext) throws {
      precondition(weights.inputs == x.shape.columns, "\(x.shape) does not fit weights of \(weights.inputs).")
      (self.x, self.weights, self.bias) = (x, try weights.resident(in: context), bias)
      result = Tensor(uninitialized: Shape(x.shape.dimensions.dropLast() + [weights.outputs]))
    }

    func make(_ rows: Range<Int>, in context: ExecutionContext) throws {
      try MatrixProduct(
        left: .matrix(x.pointer + rows.lowerBound * x.shape.columns, stride: x.shape.columns), rows: rows.count, weights: weights,
        result: result, bias: bias, residual: nil, activation: .none, firstRow: rows.lowerBound
      ).run(in: context)
    }
  }
}
