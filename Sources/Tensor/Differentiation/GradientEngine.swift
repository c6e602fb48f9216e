/// An engine that also computes the gradients of its operations. Each stands beside the operation, with its formula.
///
/// The gradient of a product or a convolution with respect to its inputs is an operation of `Engine` itself, with transposed weights.
public protocol GradientEngine: Engine {
  /// Σ gradient · window over the pixels: the gradient of a kernel, as products have it. A matrix is a kernel of one tap.
  ///
  /// - Parameters:
  ///   - gradient: of the convolution's result, `[N, H', W', O]`.
  ///   - inputs: of the convolution, as `size` and `geometry`.
  /// - Returns: `[O, taps · ΣCᵢ]`.
  func weightGradient(
    _ gradient: Tensor, inputs: [Tensor], resizedTo size: (height: Int, width: Int)?, geometry: ConvolutionGeometry,
    in context: ExecutionContext
  ) throws -> Tensor

  /// The sums of each column over the rows of each of `groups` equal parts: `[…, C]` → `[groups, C]`.
  func columnSums(_ x: Tensor, groups: Int, in context: ExecutionContext) throws -> Tensor

  /// The gradient of `rows(at:of:)`: row i is the sum of the rows whose index is i, `[indices.count, …]` → `[count, …]`.
  func rowSums(_ x: Tensor, at indices: [Int], count: Int, in context: ExecutionContext) throws -> Tensor

  /// Σ a · b of each row: `[…, C]` → `[R]`.
  func rowProducts(_ a: Tensor, _ b: Tensor, in context: ExecutionContext) throws -> Tensor

  /// gradient · activation'(x).
  func activationGradient(_ activation: Activation, of x: Tensor, gradient: Tensor, in context: ExecutionContext) throws -> Tensor

  /// The gating of a product's sums `[…, biasColumns]`, which have values and gates in the order of `PackedMatrix.arranged`: `[…, columns]`.
  func gated(_ sums: Tensor, columns: Int, in context: ExecutionContext) throws -> Tensor

  /// The gradient of `gated`: `[…, biasColumns]`.
  func gatedGradient(_ sums: Tensor, gradient: Tensor, in context: ExecutionContext) throws -> Tensor

  /// The gradients of a group normalisation with respect to its inputs, weight and bias.
  func groupNormalizationGradient(
    _ inputs: [Tensor], by normalization: GroupNormalization, activation: Activation, gradient: Tensor, in context: ExecutionContext
  ) throws -> (inputs: [Tensor], weight: Tensor, bias: Tensor)

  /// The gradients of a layer normalisation with respect to its input, weight and bias.
  func layerNormalizationGradient(
    _ x: Tensor, weight: Tensor, epsilon: Float, gradient: Tensor, in context: ExecutionContext
  ) throws -> (x: Tensor, weight: Tensor, bias: Tensor)

  /// `attention`, with what its gradient needs of it.
  func rememberedAttention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, precision: ProductPrecision,
    in context: ExecutionContext
  ) throws -> RememberedAttention

  /// The gradients of attention.
  func attentionGradient(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, forward: RememberedAttention, gradient: Tensor,
    in context: ExecutionContext
  ) throws -> (queries: Tensor, keys: Tensor, values: Tensor)

  /// The gradient of a softmax with this result.
  func softmaxGradient(_ result: Tensor, gradient: Tensor, in context: ExecutionContext) throws -> Tensor

  /// The gradient of `Tensor.resizedNearest`: the sums of the pixels that are copies of one.
  func foldedNearest(_ x: Tensor, height: Int, width: Int, in context: ExecutionContext) throws -> Tensor

  /// Pixels with `stride` − 1 rows and columns of zeros between them: `[N, H, W, C]` → `[N, (H − 1) · stride + 1, …, C]`.
  func spread(_ x: Tensor, by stride: Int, in context: ExecutionContext) throws -> Tensor

  /// A tensor of zeros.
  func zeros(_ shape: Shape, in context: ExecutionContext) throws -> Tensor
}

extension CPUEngine: GradientEngine {}
