import Tensor

/// How an adapter changes one parameter. Everything is computed in float32.
struct WeightChange: Sendable {
  /// What the change is made of.
  enum Kind: Sendable {
    /// B · A. Source: Hu et al. 2021.
    case product(AdapterFactor)
    /// (B₁ · A₁) ⊙ (B₂ · A₂). Source: Hyeon-Woo et al. 2021 (LoHa).
    case hadamard(AdapterFactor, AdapterFactor)
    /// W₁ ⊗ W₂. Source: Yeh et al. 2023 (LoKr).
    case kronecker(AdapterFactor, AdapterFactor)
    /// A factor for each output or input. Source: Liu et al. 2022 ((IA)³).
    case gain(WeightTensor, ofInputs: Bool, isLessOne: Bool)
  }

  /// The lengths that DoRA gives to the changed weight. Source: Liu et al. 2024.
  enum Lengths: Sendable {
    /// PEFT: the adapter's weight scales the low-rank change, and the lengths are always those of the file.
    case ofOutputs(WeightTensor)
    /// webui and ComfyUI: the adapter's weight scales the way from the old weight to the one of these lengths.
    case blended(WeightTensor, ofInputs: Bool)
  }

  let kind: Kind
  /// What alpha and rank make of it.
  var scale: Float = 1
  var lengths: Lengths?
  /// How strongly the adapter is applied.
  var weight: Float
  /// The adapter's file, for messages.
  let path: String

  /// B and A of a change that can be added to a product: B with all scales.
  var lowRank: (down: AdapterFactor, scale: Float)? {
    guard case .product(let factor) = kind, lengths == nil, factor.isProduct else { return nil }
    return (factor, scale * weight)
  }

  /// What is to be added to a parameter.
  ///
  /// - Parameter old: the parameter, before any adapter.
  /// - Throws: `CancellationError`.
  func difference(from old: Tensor, in context: ExecutionContext) throws -> Tensor {
    if case .gain(let gain, let ofInputs, let isLessOne) = kind {
      let factors = weight * (isLessOne ? gain.decoded() : gain.decoded() + -1)
      return old.scaled(by: factors.elements, ofInputs: ofInputs)
    }
    switch lengths {
    case nil: return (scale * weight) * (try change(old.shape, in: context))
    case .ofOutputs(let lengths):
      let new = old + (scale * weight) * (try change(old.shape, in: context))
      return new.withLengths(lengths.decoded().elements, ofInputs: false) - old
    case .blended(let lengths, let ofInputs):
      let new = old + scale * (try change(old.shape, in: context))
      return weight * (new.withLengths(lengths.decoded().elements, ofInputs: ofInputs) - old)
    }
  }

  /// The rank of a change that can be added to a product.
  var rank: Int? {
    guard let (factor, _) = lowRank, case .product(let up, let isTransposed, _, _) = factor else { return nil }
    return up.shape.dimensions[isTransposed ? 0 : 1]
  }

  private func change(_ shape: Shape, in context: ExecutionContext) throws -> Tensor {
    let result: Tensor =
      switch kind {
      case .product(let factor): try factor.value(in: context)
      case .hadamard(let a, let b): try a.value(in: context) * b.value(in: context)
      case .kronecker(let a, let b): try a.value(in: context).kronecker(b.value(in: context))
      case .gain: Tensor(shape: shape)
      }
    return result.reshaped(shape)
  }
}

/// A matrix `[O, I]` of an adapter, or a kernel `[O, I · kh · kw]`: whole, or as a product.
enum AdapterFactor: Sendable {
  case whole(WeightTensor)
  /// B `[O, r]`, or `[r, O]` where it stands transposed, and A `[r, …]`; a kernel `[r, m, kh, kw]` between them if A is `[m, I]`.
  case product(up: WeightTensor, isTransposed: Bool, mid: WeightTensor?, down: WeightTensor)

  var isProduct: Bool { if case .product = self { true } else { false } }

  /// `[O, …]` as a matrix.
  /// - Throws: `CancellationError`.
  func value(in context: ExecutionContext) throws -> Tensor {
    switch self {
    case .whole(let weights): return weights.decoded().asMatrix
    case .product: return try up.matrixProduct(down(in: context), in: context)
    }
  }

  /// `[O, r]`.
  var up: Tensor {
    switch self {
    case .whole(let weights): weights.decoded().asMatrix
    case .product(let up, let isTransposed, _, _): isTransposed ? up.decoded().asMatrix.transposed : up.decoded().asMatrix
    }
  }

  /// `[r, I · kh · kw]`.
  /// - Throws: `CancellationError`.
  func down(in context: ExecutionContext) throws -> Tensor {
    guard case .product(_, _, let mid, let down) = self else { return Tensor(shape: [0, 0]) }
    let matrix = down.decoded().asMatrix
    guard let mid = mid?.decoded() else { return matrix }
    // Σₘ mid[r, m, k] · down[m, i] → [r, i, k].
    let (rank, inner, taps) = (mid.shape[0], mid.shape[1], mid.count / max(mid.shape[0] * mid.shape[1], 1))
    let rows = mid.swapped(rank, inner, taps).reshaped([rank * taps, inner])
    let product = try rows.matrixProduct(matrix, in: context)
    return product.swapped(rank, taps, matrix.shape.columns).reshaped([rank, matrix.shape.columns * taps])
  }
}

extension Tensor {
  /// `[O, …]` as `[O, I]`.
  fileprivate var asMatrix: Tensor {
    let rows = shape.dimensions.first ?? 1
    return reshaped([rows, count / max(rows, 1)])
  }

  /// `[n, a, b]` → `[n, b, a]`, whatever the shape says.
  fileprivate func swapped(_ n: Int, _ a: Int, _ b: Int) -> Tensor {
    let old = elements
    var new = old
    for i in 0..<n { for j in 0..<a { for k in 0..<b { new[(i * b + k) * a + j] = old[(i * a + j) * b + k] } } }
    return Tensor(new, shape: [n, b, a])
  }

  fileprivate var transposed: Tensor { swapped(1, shape[0], shape[1]).reshaped([shape[1], shape[0]]) }

  /// `[N, K]` · `[K, M]`.
  fileprivate func matrixProduct(_ other: Tensor, in context: ExecutionContext) throws -> Tensor {
    try multiplied(by: PackedMatrix(WeightTensor(other.transposed), in: context), in: context)
  }

  /// `[a, c]` ⊗ `[b, d]` → `[a · b, c · d]`.
  fileprivate func kronecker(_ other: Tensor) -> Tensor {
    let (left, right) = (elements, other.elements)
    let (a, c, b, d) = (shape[0], shape[1], other.shape[0], other.shape[1])
    var result: [Float] = []
    result.reserveCapacity(a * b * c * d)
    for i in 0..<a {
      for p in 0..<b { for j in 0..<c { for q in 0..<d { result.append(left[i * c + j] * right[p * d + q]) } } }
    }
    return Tensor(result, shape: [a * b, c * d])
  }

  /// Each output's weights, or each input's, times a factor.
  fileprivate func scaled(by factors: [Float], ofInputs: Bool) -> Tensor {
    let axis = Axis(shape, ofInputs: ofInputs)
    return Tensor(elements.enumerated().map { $1 * factors[axis.index(of: $0)] }, shape: shape)
  }

  /// The same directions with other lengths: of each output's weights, or of each input's.
  fileprivate func withLengths(_ lengths: [Float], ofInputs: Bool) -> Tensor {
    let axis = Axis(shape, ofInputs: ofInputs)
    var squares = Array(repeating: 0.0, count: lengths.count)
    for (index, value) in elements.enumerated() { squares[axis.index(of: index)] += Double(value) * Double(value) }
    let factors = Swift.zip(lengths, squares).map { $1 > 0 ? Float(Double($0) / $1.squareRoot()) : 0 }
    return scaled(by: factors, ofInputs: ofInputs)
  }

  /// Outputs or inputs of a weight `[O, I, …]`.
  private struct Axis {
    private let stride: Int, count: Int
    init(_ shape: Shape, ofInputs: Bool) {
      let axis = ofInputs ? 1 : 0
      stride = shape.dimensions.dropFirst(axis + 1).reduce(1, *)
      count = shape[axis]
    }
    func index(of element: Int) -> Int { element / stride % count }
  }
}
