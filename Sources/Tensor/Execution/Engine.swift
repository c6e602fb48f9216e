/// Computes the operations that networks are made of. Layers call these on tensors, which pass them to the engine of the
/// `ExecutionContext`. So the same layers can compute, count what they take, or be differentiated.
///
/// The operations are few. A fused one says which simple ones it equals. It saves memory and passes over memory.
///
/// Operations take values, not the layers' parameters, so they need to know nothing of names and files. An engine that records operations identifies
/// tensors and matrices by their `id`, which is also the identity of the parameter that holds them.
public protocol Engine: Sendable {
  /// activation(x · Wᵀ + bias + residual): see `Tensor.multiplied`.
  func product(
    _ x: Tensor, with weights: PackedMatrix, bias: Tensor?, adding residual: Tensor?, activation: Activation, in context: ExecutionContext
  ) throws -> Tensor

  /// activation(bias + residual + Σ window · W): see `Tensor.convolution`.
  func convolution(
    _ inputs: consuming [Tensor], resizedTo size: (height: Int, width: Int)?, weights: PackedMatrix, geometry: ConvolutionGeometry,
    bias: Tensor?, adding residual: consuming Tensor?, activation: Activation, method: ConvolutionMethod, in context: ExecutionContext
  ) throws -> Tensor

  /// A convolution of the normalised and activated inputs, and a 1×1 convolution of the inputs themselves: see
  /// `Tensor.convolution`.
  func convolution(
    _ inputs: consuming [Tensor], normalizedBy normalization: GroupNormalization, activation: Activation, weights: PackedMatrix,
    geometry: ConvolutionGeometry, bias: Tensor?, adding residual: consuming Tensor?,
    beside shortcut: (weights: PackedMatrix, bias: Tensor?)?,
    in context: ExecutionContext
  ) throws -> (result: Tensor, shortcut: Tensor?)

  /// activation(normalised): see `GroupNormalization`.
  func groupNormalization(
    _ inputs: consuming [Tensor], by normalization: GroupNormalization, activation: Activation, in context: ExecutionContext
  ) throws -> Tensor

  /// Each row with mean 0 and variance 1, then scaled and shifted: see `Tensor.layerNormalized`.
  func layerNormalization(_ x: Tensor, weight: Tensor, bias: Tensor, epsilon: Float, in context: ExecutionContext) throws -> Tensor

  /// softmax(Q · Kᵀ · scale) · V of several heads: see `Tensor.attention`.
  func attention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, precision: ProductPrecision,
    in context: ExecutionContext
  ) throws -> Tensor

  /// How much attention each token gets, in the mean over the heads: see `Tensor.attentionReceived`.
  func attentionReceived(queries: Tensor, keys: Tensor, heads: Int, scale: Float, in context: ExecutionContext) throws -> Tensor

  /// Attention along the second axis, at every place by itself: see `Tensor.attention(acrossFrames:keys:values:heads:scale:in:)`.
  func frameAttention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, in context: ExecutionContext
  ) throws -> Tensor

  /// The function applied to every element: see `Tensor.activated`.
  func activation(_ activation: Activation, of x: Tensor, in context: ExecutionContext) throws -> Tensor

  /// Each row replaced by the nearest of a table: see `Tensor.nearest`.
  func nearest(_ table: Tensor, to x: Tensor, in context: ExecutionContext) throws -> Tensor

  /// The softmax of each row: see `Tensor.softmax`.
  func softmax(_ x: Tensor, in context: ExecutionContext) throws -> Tensor

  /// Some rows of the outermost axis: see `Tensor.rows`.
  func rows(_ range: Range<Int>, of x: Tensor, in context: ExecutionContext) throws -> Tensor

  /// Rows of the outermost axis by their numbers, each as often as it is named: see `Tensor.rows(at:in:)`.
  func rows(at indices: [Int], of table: Tensor, in context: ExecutionContext) throws -> Tensor

  /// Some channels of the innermost axis: see `Tensor.channels`.
  func channels(_ range: Range<Int>, of x: Tensor, in context: ExecutionContext) throws -> Tensor

  /// Tensors concatenated along an axis: see `Tensor.concatenated`.
  func concatenation(_ tensors: [Tensor], axis: Int, in context: ExecutionContext) throws -> Tensor

  /// a + b, element by element, of the same shape.
  func sum(_ a: Tensor, _ b: Tensor, in context: ExecutionContext) throws -> Tensor

  /// Each row multiplied by a factor of its own: see `Tensor.scaledRows`.
  func rowScaling(_ x: Tensor, by factors: Tensor, in context: ExecutionContext) throws -> Tensor

  /// factor · x + constant, element by element.
  func affine(_ x: Tensor, factor: Float, constant: Float, in context: ExecutionContext) throws -> Tensor

  /// Whether passes may skip rows that repeat others, or be cut into parts that run in parallel: not if the engine records them.
  var mayRearrange: Bool { get }
}

/// Computes with the SIMD kernels of the processor, on the context's threads.
public struct CPUEngine: Engine {
  /// The engine that contexts have by default.
  public init() {}

  public var mayRearrange: Bool { true }

  public func rows(_ range: Range<Int>, of x: Tensor, in context: ExecutionContext) throws -> Tensor { x.rows(range) }
  public func channels(_ range: Range<Int>, of x: Tensor, in context: ExecutionContext) throws -> Tensor { x.channels(range) }
  public func concatenation(_ tensors: [Tensor], axis: Int, in context: ExecutionContext) throws -> Tensor {
    .concatenated(tensors, axis: axis)
  }
  public func sum(_ a: Tensor, _ b: Tensor, in context: ExecutionContext) throws -> Tensor { a + b }
  public func rowScaling(_ x: Tensor, by factors: Tensor, in context: ExecutionContext) throws -> Tensor {
    let columns = x.shape.columns, result = Tensor(uninitialized: x.shape)
    try x.forRuns(in: context) { begin, rows in
      let place = result.mutablePointer + begin * columns
      place.update(from: x.pointer + begin * columns, count: rows * columns)
      Kernels.active.scale_rows(rows, columns, factors.pointer + begin, place, columns)
    }
    return result
  }
  public func affine(_ x: Tensor, factor: Float, constant: Float, in context: ExecutionContext) throws -> Tensor {
    x.map { factor * $0 + constant }
  }
}

/// The other operations of networks on the elements of tensors, through the context's engine. (Schedulers, guidance and pictures compute with
/// elements directly and need no engine.)
extension Tensor {
  /// The rows `range` of the outermost axis: `[N, …]` → `[range.count, …]`.
  /// - Precondition: the range lies within the axis.
  /// - Throws: what the engine throws.
  public func rows(_ range: Range<Int>, in context: ExecutionContext) throws -> Tensor {
    try context.engine.rows(range, of: self, in: context)
  }

  /// The channels `range` of the innermost axis: `[…, C]` → `[…, range.count]`.
  /// - Precondition: the range lies within the axis.
  /// - Throws: what the engine throws.
  public func channels(_ range: Range<Int>, in context: ExecutionContext) throws -> Tensor {
    try context.engine.channels(range, of: self, in: context)
  }

  /// The tensors concatenated along `axis` (negative: from the end).
  /// - Precondition: there is at least one, and all other extents are equal.
  /// - Throws: what the engine throws.
  public static func concatenated(_ tensors: [Tensor], axis: Int, in context: ExecutionContext) throws -> Tensor {
    try context.engine.concatenation(tensors, axis: axis, in: context)
  }

  /// The tensor repeated `times` times along the outermost axis: `[N, …]` → `[times · N, …]`. Once gives the tensor itself.
  /// - Throws: what the engine throws.
  public func repeated(_ times: Int, in context: ExecutionContext) throws -> Tensor {
    times == 1 ? self : try .concatenated(Array(repeating: self, count: times), axis: 0, in: context)
  }

  /// The element-wise sum with a tensor of the same shape.
  /// - Throws: what the engine throws.
  public func adding(_ other: Tensor, in context: ExecutionContext) throws -> Tensor { try context.engine.sum(self, other, in: context) }

  /// Each row `[C]` of `[…, C]` multiplied by one factor of as many.
  /// - Precondition: there is a factor for each row.
  /// - Throws: what the engine throws.
  public func scaledRows(by factors: Tensor, in context: ExecutionContext) throws -> Tensor {
    precondition(factors.count == shape.rows, "\(factors.count) factors for \(shape.rows) rows.")
    return try context.engine.rowScaling(self, by: factors, in: context)
  }

  /// factor · x + constant of each element.
  /// - Throws: what the engine throws.
  public func scaled(by factor: Float, plus constant: Float = 0, in context: ExecutionContext) throws -> Tensor {
    try context.engine.affine(self, factor: factor, constant: constant, in: context)
  }
}
