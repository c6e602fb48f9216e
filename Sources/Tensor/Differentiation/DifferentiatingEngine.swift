/// Computes with another engine and records on a tape how to go back, wherever a result depends on something that the tape follows.
///
/// A step keeps only what its gradient needs: weights that do not train need no inputs. Fused operations are recorded as such where their gradient
/// can be computed from their inputs, and as separate operations elsewhere. Source of the design: burn's `burn-autodiff`, which decorates any backend.
struct DifferentiatingEngine: Engine {
  let base: any GradientEngine
  let tape: GradientTape
  /// Whether blocks are computed again on the way back instead of keeping what is within them.
  let recomputes: Bool

  var mayRearrange: Bool { false }

  /// The context without recording.
  private func plain(_ context: ExecutionContext) -> ExecutionContext {
    var context = context
    context.engine = base
    return context
  }

  /// The result of a block, recorded as one step that runs the block again.
  func recomputed(
    _ context: ExecutionContext, _ block: @escaping @Sendable (ExecutionContext) throws -> Tensor
  ) throws -> Tensor {
    let plain = plain(context), result = try block(plain)
    tape.record(result) { [tape] gradient, gradients, back in
      let own = GradientTape(following: tape)
      // The context of the way forth has what takes the place of parameters.
      let again = try block(plain.recording(on: own))
      try gradients.add(try own.gradients(of: again, times: gradient, in: back.context), back)
    }
    return result
  }

  // ------------------------------------------------------------------------------------------------------------------ products

  /// dx = gradient · W, dW = gradientᵀ · x, and the bias's gradient is the sum over rows.
  func product(
    _ x: Tensor, with weights: PackedMatrix, bias: Tensor?, adding residual: Tensor?, activation: Activation, in context: ExecutionContext
  ) throws -> Tensor {
    let follows = (x: tape.follows(x), weights: tape.follows(weights), bias: tape.follows(bias), residual: tape.follows(residual))
    guard follows.x || follows.weights || follows.bias || follows.residual else {
      return try base.product(x, with: weights, bias: bias, adding: residual, activation: activation, in: plain(context))
    }
    if activation != .none {
      return try product(x, with: weights, bias: bias, adding: residual, activation: .none, in: context).activated(activation, in: context)
    }
    if weights.isGating {
      let sums = try product(x, with: weights.ungated, bias: bias, adding: residual, activation: .none, in: context)
      return try gated(sums, columns: weights.outputs / 2, in: context)
    }
    let result = try base.product(x, with: weights, bias: bias, adding: residual, activation: .none, in: plain(context))
    let kept = follows.weights ? x : nil, place = Place(x)
    tape.record(result) { gradient, gradients, back in
      if follows.residual, let residual { try gradients.add(gradient, to: residual, back) }
      if follows.bias, let bias { try gradients.add(ofBias: bias, gradient, weights, back) }
      if let kept {
        let own = try back.engine.weightGradient(
          gradient.asPictures(), inputs: [kept.asPictures()], resizedTo: nil, geometry: .pointwise, in: back.context)
        try gradients.add(own, to: weights, back)
      }
      if follows.x {
        let own = try back.engine.product(
          gradient, with: weights.transposed(), bias: nil, adding: nil, activation: .none, in: back.context)
        try gradients.add(own, to: place, back)
      }
    }
    return result
  }

  private func gated(_ sums: Tensor, columns: Int, in context: ExecutionContext) throws -> Tensor {
    let result = try base.gated(sums, columns: columns, in: plain(context))
    tape.record(result) { gradient, gradients, back in
      try gradients.add(try back.engine.gatedGradient(sums, gradient: gradient, in: back.context), to: sums, back)
    }
    return result
  }

  // -------------------------------------------------------------------------------------------------------------- convolutions

  func convolution(
    _ inputs: consuming [Tensor], resizedTo size: (height: Int, width: Int)?, weights: PackedMatrix, geometry: ConvolutionGeometry,
    bias: Tensor?, adding residual: consuming Tensor?, activation: Activation, method: ConvolutionMethod, in context: ExecutionContext
  ) throws -> Tensor {
    let pictures = inputs, around = residual
    let follows = ConvolutionFollows(
      inputs: pictures.contains(where: tape.follows), weights: tape.follows(weights), bias: tape.follows(bias),
      residual: tape.follows(around))
    if follows.any, activation != .none {
      return try convolution(
        consume inputs, resizedTo: size, weights: weights, geometry: geometry, bias: bias, adding: consume residual, activation: .none,
        method: method, in: context
      ).activated(activation, in: context)
    }
    let result = try base.convolution(
      consume inputs, resizedTo: size, weights: weights, geometry: geometry, bias: bias, adding: consume residual, activation: activation,
      method: method, in: plain(context))
    guard follows.any else { return result }
    let kept = follows.weights ? pictures : nil, places = pictures.map(Place.init),
      whole = size ?? (pictures[0].shape[1], pictures[0].shape[2])
    let residualPlace = around.map(Place.init)
    tape.record(result) { gradient, gradients, back in
      if follows.residual, let residualPlace { try gradients.add(gradient, to: residualPlace, back) }
      if follows.bias, let bias { try gradients.add(ofBias: bias, gradient, weights, back) }
      if let kept {
        let own = try back.engine.weightGradient(gradient, inputs: kept, resizedTo: size, geometry: geometry, in: back.context)
        try gradients.add(own, to: weights, back)
      }
      guard follows.inputs else { return }
      var own = try gradient.takenBack(through: weights, geometry, size: whole, back)
      if size != nil { own = try back.engine.foldedNearest(own, height: places[0].shape[1], width: places[0].shape[2], in: back.context) }
      try gradients.add(own, toParts: places, axis: -1, back)
    }
    return result
  }

  func convolution(
    _ inputs: consuming [Tensor], normalizedBy normalization: GroupNormalization, activation: Activation, weights: PackedMatrix,
    geometry: ConvolutionGeometry, bias: Tensor?, adding residual: consuming Tensor?,
    beside shortcut: (weights: PackedMatrix, bias: Tensor?)?, in context: ExecutionContext
  ) throws -> (result: Tensor, shortcut: Tensor?) {
    let pictures = inputs, around = residual
    let norms = tape.follows(normalization.weight) || tape.follows(normalization.bias)
    let followsInputs = pictures.contains(where: tape.follows)
    let follows = ConvolutionFollows(
      inputs: followsInputs || norms, weights: tape.follows(weights), bias: tape.follows(bias), residual: tape.follows(around))
    // The shortcut is an operation of its own. It comes first, because its gradient is then added last, as in the reference.
    let beside = try shortcut.map {
      try convolution(
        pictures, resizedTo: nil, weights: $0.weights, geometry: .pointwise, bias: $0.bias, adding: nil, activation: .none,
        method: .automatic,
        in: context)
    }
    let (result, _) = try base.convolution(
      consume inputs, normalizedBy: normalization, activation: activation, weights: weights, geometry: geometry, bias: bias,
      adding: consume residual, beside: nil, in: plain(context))
    guard follows.any else { return (result, beside) }
    let residualPlace = around.map(Place.init)
    let kept = follows.inputs || follows.weights ? pictures : [], size = (height: pictures[0].shape[1], width: pictures[0].shape[2])
    tape.record(result) { gradient, gradients, back in
      if follows.residual, let residualPlace { try gradients.add(gradient, to: residualPlace, back) }
      if follows.bias, let bias { try gradients.add(ofBias: bias, gradient, weights, back) }
      if follows.weights {
        // What the windows read is made again, which is cheaper than to keep it.
        let read = try back.engine.groupNormalization(kept, by: normalization, activation: activation, in: back.context)
        let own = try back.engine.weightGradient(gradient, inputs: [read], resizedTo: nil, geometry: geometry, in: back.context)
        try gradients.add(own, to: weights, back)
      }
      guard follows.inputs else { return }
      let own = try gradient.takenBack(through: weights, geometry, size: size, back)
      try gradients.add(normalized: kept, by: normalization, activation, own, back)
    }
    return (result, beside)
  }

  // ------------------------------------------------------------------------------------------------------------ normalisations

  func groupNormalization(
    _ inputs: consuming [Tensor], by normalization: GroupNormalization, activation: Activation, in context: ExecutionContext
  ) throws -> Tensor {
    let kept = inputs
    guard kept.contains(where: tape.follows) || tape.follows(normalization.weight) || tape.follows(normalization.bias) else {
      return try base.groupNormalization(consume inputs, by: normalization, activation: activation, in: plain(context))
    }
    let result = try base.groupNormalization(consume inputs, by: normalization, activation: activation, in: plain(context))
    tape.record(result) { gradient, gradients, back in
      try gradients.add(normalized: kept, by: normalization, activation, gradient, back)
    }
    return result
  }

  func layerNormalization(_ x: Tensor, weight: Tensor, bias: Tensor, epsilon: Float, in context: ExecutionContext) throws -> Tensor {
    let result = try base.layerNormalization(x, weight: weight, bias: bias, epsilon: epsilon, in: plain(context))
    guard tape.follows(x) || tape.follows(weight) || tape.follows(bias) else { return result }
    tape.record(result) { gradient, gradients, back in
      let own = try back.engine.layerNormalizationGradient(x, weight: weight, epsilon: epsilon, gradient: gradient, in: back.context)
      try gradients.add(own.x, to: x, back)
      try gradients.add(own.weight, to: weight, back)
      try gradients.add(own.bias, to: bias, back)
    }
    return result
  }

  // ------------------------------------------------------------------------------------------------------ attention, functions

  func attention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, precision: ProductPrecision,
    in context: ExecutionContext
  ) throws -> Tensor {
    guard tape.follows(queries) || tape.follows(keys) || tape.follows(values) else {
      return try base.attention(
        queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: causal, precision: precision, in: plain(context))
    }
    let forward = try base.rememberedAttention(
      queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: causal, precision: precision, in: plain(context))
    tape.record(forward.result) { gradient, gradients, back in
      let own = try back.engine.attentionGradient(
        queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: causal, forward: forward, gradient: gradient,
        in: back.context)
      try gradients.add(own.queries, to: queries, back)
      try gradients.add(own.keys, to: keys, back)
      try gradients.add(own.values, to: values, back)
    }
    return forward.result
  }

  /// Without a gradient: what is asked of it is which tokens get more than others.
  func attentionReceived(queries: Tensor, keys: Tensor, heads: Int, scale: Float, in context: ExecutionContext) throws -> Tensor {
    try base.attentionReceived(queries: queries, keys: keys, heads: heads, scale: scale, in: plain(context))
  }

  func frameAttention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, in context: ExecutionContext
  ) throws -> Tensor {
    let result = try base.frameAttention(queries: queries, keys: keys, values: values, heads: heads, scale: scale, in: plain(context))
    guard tape.follows(queries) || tape.follows(keys) || tape.follows(values) else { return result }
    tape.record(result) { gradient, gradients, back in
      let own = try back.engine.frameAttentionGradient(
        queries: queries, keys: keys, values: values, heads: heads, scale: scale, gradient: gradient, in: back.context)
      try gradients.add(own.queries, to: queries, back)
      try gradients.add(own.keys, to: keys, back)
      try gradients.add(own.values, to: values, back)
    }
    return result
  }

  func activation(_ activation: Activation, of x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = try base.activation(activation, of: x, in: plain(context))
    guard tape.follows(x) else { return result }
    tape.record(result) { gradient, gradients, back in
      try gradients.add(try back.engine.activationGradient(activation, of: x, gradient: gradient, in: back.context), to: x, back)
    }
    return result
  }

  /// The gradient passes straight through, as if the nearest row were the row itself. Source: van den Oord et al. 2017, diffusers' `VectorQuantizer`.
  func nearest(_ table: Tensor, to x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = try base.nearest(table, to: x, in: plain(context))
    guard tape.follows(x) else { return result }
    let place = Place(x)
    tape.record(result) { gradient, gradients, back in try gradients.add(gradient, to: place, back) }
    return result
  }

  func softmax(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = try base.softmax(x, in: plain(context))
    guard tape.follows(x) else { return result }
    let place = Place(x)
    tape.record(result) { gradient, gradients, back in
      try gradients.add(try back.engine.softmaxGradient(result, gradient: gradient, in: back.context), to: place, back)
    }
    return result
  }

  // ---------------------------------------------------------------------------------------------------- layout and arithmetic

  func rows(_ range: Range<Int>, of x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = try base.rows(range, of: x, in: plain(context))
    guard tape.follows(x) else { return result }
    let place = Place(x)
    tape.record(result) { gradient, gradients, back in try gradients.add(gradient, toPart: range, of: place, axis: 0, back) }
    return result
  }

  /// The gradient of a row is the sum over all places that it went to.
  func rows(at indices: [Int], of table: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = try base.rows(at: indices, of: table, in: plain(context))
    guard tape.follows(table) else { return result }
    let place = Place(table)
    tape.record(result) { gradient, gradients, back in
      try gradients.add(try back.engine.rowSums(gradient, at: indices, count: place.shape[0], in: back.context), to: place, back)
    }
    return result
  }

  func channels(_ range: Range<Int>, of x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = try base.channels(range, of: x, in: plain(context))
    guard tape.follows(x) else { return result }
    let place = Place(x)
    tape.record(result) { gradient, gradients, back in try gradients.add(gradient, toPart: range, of: place, axis: -1, back) }
    return result
  }

  func concatenation(_ tensors: [Tensor], axis: Int, in context: ExecutionContext) throws -> Tensor {
    let result = try base.concatenation(tensors, axis: axis, in: plain(context))
    guard tensors.contains(where: tape.follows) else { return result }
    let places = tensors.map(Place.init)
    tape.record(result) { gradient, gradients, back in try gradients.add(gradient, toParts: places, axis: axis, back) }
    return result
  }

  func sum(_ a: Tensor, _ b: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = try base.sum(a, b, in: plain(context))
    guard tape.follows(a) || tape.follows(b) else { return result }
    let places = [Place(a), Place(b)]
    tape.record(result) { gradient, gradients, back in for place in places { try gradients.add(gradient, to: place, back) } }
    return result
  }

  /// dx = gradient · factor of the row, and a factor's gradient is Σ gradient · x over its row.
  func rowScaling(_ x: Tensor, by factors: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = try base.rowScaling(x, by: factors, in: plain(context))
    let follows = (x: tape.follows(x), factors: tape.follows(factors))
    guard follows.x || follows.factors else { return result }
    let place = Place(x), kept = follows.factors ? x : nil
    tape.record(result) { gradient, gradients, back in
      if follows.x { try gradients.add(try back.engine.rowScaling(gradient, by: factors, in: back.context), to: place, back) }
      if let kept {
        try gradients.add(try back.engine.rowProducts(gradient, kept, in: back.context).reshaped(factors.shape), to: factors, back)
      }
    }
    return result
  }

  func affine(_ x: Tensor, factor: Float, constant: Float, in context: ExecutionContext) throws -> Tensor {
    let result = try base.affine(x, factor: factor, constant: constant, in: plain(context))
    guard tape.follows(x) else { return result }
    let place = Place(x)
    tape.record(result) { gradient, gradients, back in
      try gradients.add(try back.engine.affine(gradient, factor: factor, constant: 0, in: back.context), to: place, back)
    }
    return result
  }
}

/// What a convolution's gradient is sought for.
private struct ConvolutionFollows {
  let inputs: Bool, weights: Bool, bias: Bool, residual: Bool
  var any: Bool { inputs || weights || bias || residual }
}

extension ConvolutionGeometry {
  /// A window of one pixel.
  static let pointwise = ConvolutionGeometry(kernelHeight: 1, kernelWidth: 1, padding: .all(0))
}

extension Tensor {
  /// Rows as the pixels of one picture: `[…, C]` → `[1, 1, R, C]`.
  fileprivate func asPictures() -> Tensor { reshaped([1, 1, shape.rows, shape.columns]) }

  /// The gradient of a convolution with respect to its pictures: a convolution of this gradient, whose pixels lie a stride apart, with the
  /// transposed kernel.
  ///
  /// - Parameter size: of the pictures, after they were resized.
  fileprivate func takenBack(
    through weights: PackedMatrix, _ geometry: ConvolutionGeometry, size: (height: Int, width: Int), _ back: WayBack
  ) throws -> Tensor {
    let taps = geometry.kernelHeight * geometry.kernelWidth, padding = geometry.padding
    let pixels = geometry.stride == 1 ? self : try back.engine.spread(self, by: geometry.stride, in: back.context)
    let turned = ConvolutionGeometry(
      kernelHeight: geometry.kernelHeight, kernelWidth: geometry.kernelWidth,
      padding: .init(
        top: geometry.kernelHeight - 1 - padding.top, left: geometry.kernelWidth - 1 - padding.left,
        bottom: size.height - pixels.shape[1] + padding.top, right: size.width - pixels.shape[2] + padding.left))
    return try back.engine.convolution(
      [pixels], resizedTo: nil, weights: weights.transposed(taps: taps), geometry: turned, bias: nil, adding: nil, activation: .none,
      method: .automatic, in: back.context)
  }
}

/// Where a tensor's gradient goes. It does not keep the tensor's memory.
struct Place: Sendable {
  fileprivate let serial: UInt64
  let shape: Shape

  init(_ tensor: Tensor) { (serial, shape) = (tensor.storage.serial, tensor.shape) }
}

extension Gradients {
  fileprivate mutating func add(_ gradient: Tensor, to place: Place, _ back: WayBack) throws { try add(gradient, to: place.serial, back) }

  /// The gradient of a bias that a product adds: one for all rows, or one for the rows of each picture.
  fileprivate mutating func add(ofBias bias: Tensor, _ gradient: Tensor, _ weights: PackedMatrix, _ back: WayBack) throws {
    try add(try back.engine.columnSums(gradient, groups: bias.shape.rows, in: back.context), to: bias, back)
  }

  /// The gradient of a part of a tensor: zeros around it.
  fileprivate mutating func add(_ gradient: Tensor, toPart range: Range<Int>, of place: Place, axis: Int, _ back: WayBack) throws {
    let whole = place.shape, axis = axis < 0 ? whole.rank + axis : axis
    func zeros(_ count: Int) throws -> [Tensor] {
      guard count > 0 else { return [] }
      var extents = whole.dimensions
      extents[axis] = count
      return [try back.engine.zeros(Shape(extents), in: back.context)]
    }
    let parts = try zeros(range.lowerBound) + [gradient] + zeros(whole[axis] - range.upperBound)
    try add(parts.count == 1 ? gradient : back.engine.concatenation(parts, axis: axis, in: back.context), to: place, back)
  }

  /// The gradients of tensors that were joined along an axis.
  fileprivate mutating func add(_ gradient: Tensor, toParts places: [Place], axis: Int, _ back: WayBack) throws {
    guard places.count > 1 else { return try add(gradient, to: places[0], back) }
    let axis = axis < 0 ? gradient.shape.rank + axis : axis
    // An axis within is a run of columns, if those after it are seen as one.
    let inner = Shape(Array(gradient.shape.dimensions[(axis + 1)...])).count
    let columns = gradient.reshaped([gradient.count / max(gradient.shape[axis] * inner, 1), gradient.shape[axis] * inner])
    var begin = 0
    for place in places {
      let width = place.shape[axis] * inner
      try add(back.engine.channels(begin..<begin + width, of: columns, in: back.context).reshaped(place.shape), to: place, back)
      begin += width
    }
  }

  /// The gradients of a group normalisation's inputs, weight and bias.
  fileprivate mutating func add(
    normalized inputs: [Tensor], by normalization: GroupNormalization, _ activation: Activation, _ gradient: Tensor, _ back: WayBack
  ) throws {
    let own = try back.engine.groupNormalizationGradient(
      inputs, by: normalization, activation: activation, gradient: gradient, in: back.context)
    for (input, part) in zip(inputs, own.inputs) { try add(part, to: input, back) }
    try add(own.weight, to: normalization.weight, back)
    try add(own.bias, to: normalization.bias, back)
  }
}

extension ExecutionContext {
  /// This context with a tape on which its operations are recorded.
  ///
  /// - Parameter recomputing: whether blocks of layers are computed again on the way back. That takes about a third more time, and memory for
  ///   the tensors between blocks and within one of them only. Source: Chen et al. 2016 (arXiv:1604.06174).
  /// - Precondition: the context's engine computes gradients.
  public func recording(on tape: GradientTape, recomputing: Bool = false) -> ExecutionContext {
    var context = self
    context.engine = DifferentiatingEngine(base: WayBack(self).engine, tape: tape, recomputes: recomputing)
    return context
  }

  /// Records a result that was computed without the engine, so that gradients are followed through it. Where nothing is recorded, nothing happens.
  ///
  /// - Parameters:
  ///   - result: computed from the inputs alone.
  ///   - inputs: each of memory of its own.
  ///   - gradients: takes the gradient of the result, and returns that of each input in its shape.
  public func record(_ result: Tensor, from inputs: [Tensor], gradients own: @escaping @Sendable (Tensor) throws -> [Tensor]) {
    guard let tape = (engine as? DifferentiatingEngine)?.tape, inputs.contains(where: tape.follows) else { return }
    let places = inputs.map(Place.init)
    tape.record(result) { gradient, gradients, back in
      for (place, part) in zip(places, try own(gradient)) { try gradients.add(part, to: place, back) }
    }
  }

  /// Whether blocks should be made by `recomputed`.
  package var recomputes: Bool { (engine as? DifferentiatingEngine)?.recomputes ?? false }

  /// The result of a block of layers, which is computed again on the way back through a tape.
  /// - Precondition: `recomputes`.
  package func recomputed(_ block: @escaping @Sendable (ExecutionContext) throws -> Tensor) throws -> Tensor {
    guard let engine = engine as? DifferentiatingEngine else { return try block(self) }
    return try engine.recomputed(self, block)
  }
}
