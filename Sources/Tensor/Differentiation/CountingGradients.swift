/// What the gradients of operations take, from the shapes of what `CPUEngine` makes.
extension CountingEngine: GradientEngine {
  public func weightGradient(
    _ gradient: Tensor, inputs: [Tensor], resizedTo size: (height: Int, width: Int)?, geometry: ConvolutionGeometry,
    in context: ExecutionContext
  ) throws -> Tensor {
    let own = WeightGradient(gradient, inputs: inputs, size: size, geometry: geometry)
    let result = new([own.partsShape[1], own.partsShape[2]])
    counter.note(
      operations: 2 * Double(gradient.count) * Double(result.shape.columns),
      buffers: (own.parts == 1 ? [] : [own.partsShape.count])
        + Array(repeating: own.buffers, count: min(threads, own.parts * own.slices.count)).flatMap(\.self))
    return result
  }

  public func columnSums(_ x: Tensor, groups: Int, in context: ExecutionContext) throws -> Tensor { new([groups, x.shape.columns]) }

  public func rowSums(_ x: Tensor, at indices: [Int], count: Int, in context: ExecutionContext) throws -> Tensor {
    new(Shape([count] + x.shape.dimensions.dropFirst()))
  }

  public func rowProducts(_ a: Tensor, _ b: Tensor, in context: ExecutionContext) throws -> Tensor { new([a.shape.rows]) }

  public func activationGradient(_ activation: Activation, of x: Tensor, gradient: Tensor, in context: ExecutionContext) throws -> Tensor {
    new(x.shape)
  }

  public func gated(_ sums: Tensor, columns: Int, in context: ExecutionContext) throws -> Tensor {
    new(Shape(sums.shape.dimensions.dropLast() + [columns]))
  }

  public func gatedGradient(_ sums: Tensor, gradient: Tensor, in context: ExecutionContext) throws -> Tensor { new(sums.shape) }

  public func groupNormalizationGradient(
    _ inputs: [Tensor], by normalization: GroupNormalization, activation: Activation, gradient: Tensor, in context: ExecutionContext
  ) throws -> (inputs: [Tensor], weight: Tensor, bias: Tensor) {
    (inputs.map { new($0.shape) }, new([normalization.channels]), new([normalization.channels]))
  }

  public func layerNormalizationGradient(
    _ x: Tensor, weight: Tensor, epsilon: Float, gradient: Tensor, in context: ExecutionContext
  ) throws -> (x: Tensor, weight: Tensor, bias: Tensor) {
    (new(x.shape), new([x.shape.columns]), new([x.shape.columns]))
  }

  public func rememberedAttention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, precision: ProductPrecision,
    in context: ExecutionContext
  ) throws -> RememberedAttention {
    let shape = Shape([queries.shape[0], heads, queries.shape[1]]), softmax = RememberedSoftmax(maxima: new(shape), inverses: new(shape))
    let result = try attention(
      queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: causal, precision: precision, in: context)
    return RememberedAttention(result: result, softmax: softmax)
  }

  public func attentionGradient(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, forward: RememberedAttention, gradient: Tensor,
    in context: ExecutionContext
  ) throws -> (queries: Tensor, keys: Tensor, values: Tensor) {
    let results = (new(queries.shape), new(keys.shape), new(values.shape))
    let width = queries.shape[2] / heads, own = AttentionGradient.buffers(keys: keys.shape[1], width: width)
    counter.note(
      operations: 10 * Double(queries.count) * Double(keys.shape[1]),
      buffers: Array(repeating: own, count: min(threads, queries.shape[0] * heads)).flatMap { $0 })
    return results
  }

  public func softmaxGradient(_ result: Tensor, gradient: Tensor, in context: ExecutionContext) throws -> Tensor { new(result.shape) }

  public func foldedNearest(_ x: Tensor, height: Int, width: Int, in context: ExecutionContext) throws -> Tensor {
    new([x.shape[0], height, width, x.shape[3]])
  }

  public func spread(_ x: Tensor, by stride: Int, in context: ExecutionContext) throws -> Tensor {
    new([x.shape[0], (x.shape[1] - 1) * stride + 1, (x.shape[2] - 1) * stride + 1, x.shape[3]])
  }

  public func zeros(_ shape: Shape, in context: ExecutionContext) throws -> Tensor { new(shape) }
}
