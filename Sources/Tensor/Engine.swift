/// What computes the operations that networks are made of. Layers call them on tensors, which hand them to the engine that the
/// `ExecutionContext` carries: so the same layers compute, count what they take, or are followed backwards.
///
/// The operations are few. A fused one says which simple ones it equals; what it saves is memory and passes over it.
public protocol Engine: Sendable {
  /// activation(x · Wᵀ + bias + residual): see `Tensor.multiplied`.
  func product(
    _ x: Tensor, with weights: PackedMatrix, bias: Tensor?, adding residual: Tensor?, activation: Activation, in context: ExecutionContext
  ) throws -> Tensor

  /// bias + residual + Σ window · W: see `Tensor.convolution`.
  func convolution(
    _ inputs: consuming [Tensor], resizedTo size: (height: Int, width: Int)?, weights: PackedMatrix, geometry: ConvolutionGeometry,
    bias: Tensor?, adding residual: consuming Tensor?, method: ConvolutionMethod, in context: ExecutionContext
  ) throws -> Tensor

  /// A convolution of what a normalisation and an activation make of the inputs, and a 1×1 convolution of the inputs themselves: see
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

  /// The function of every element: see `Tensor.activated`.
  func activation(_ activation: Activation, of x: Tensor, in context: ExecutionContext) throws -> Tensor

  /// Each row's exponentials, divided by their sum: see `Tensor.softmax`.
  func softmax(_ x: Tensor, in context: ExecutionContext) throws -> Tensor

  /// Whether passes may leave out rows that repeat others, or be cut into parts that run side by side: not where somebody counts or records them.
  var mayRearrange: Bool { get }
}

/// Computes with the SIMD kernels of the processor, on the context's threads.
public struct CPUEngine: Engine {
  /// The engine of every context that names no other.
  public init() {}

  public var mayRearrange: Bool { true }
}
