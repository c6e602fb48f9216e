import Tensor
import LatentDiffusionWeights

/// A convolution of pictures `[N, H, W, C]`. Source: PyTorch's `Conv2d`.
public struct Convolution2D: Sendable {
  private let weight: Parameter<PackedMatrix>
  private let bias: Parameter<Tensor>?
  private let geometry: ConvolutionGeometry
  private let path: String

  /// Takes `weight` `[outChannels, inChannels, kernel, kernel]` and, unless it has none, `bias` `[outChannels]`.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(
    _ inChannels: Int, _ outChannels: Int, kernel: Int, stride: Int = 1, padding: ConvolutionGeometry.Padding, bias: Bool = true,
    weights: WeightScope
  ) throws {
    try self.init(
      [outChannels, inChannels, kernel, kernel],
      ConvolutionGeometry(kernelHeight: kernel, kernelWidth: kernel, stride: stride, padding: padding), bias: bias, weights: weights)
  }

  /// A convolution along the frames of clips, which are seen as pictures of F lines of P pixels, `[N, F, P, C]`. The number of frames stays the same.
  ///
  /// Takes `weight` `[outChannels, inChannels, frames, 1, 1]` and `bias` `[outChannels]`. Source: PyTorch's `Conv3d`.
  /// - Parameter frames: of a window, an odd number.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ inChannels: Int, _ outChannels: Int, frames: Int, weights: WeightScope) throws {
    try self.init(
      [outChannels, inChannels, frames, 1, 1],
      ConvolutionGeometry(
        kernelHeight: frames, kernelWidth: 1,
        padding: ConvolutionGeometry.Padding(top: frames / 2, left: 0, bottom: frames / 2, right: 0)),
      bias: true, weights: weights)
  }

  private init(_ shape: Shape, _ geometry: ConvolutionGeometry, bias: Bool, weights: WeightScope) throws {
    weight = try weights.matrix("weight", shape: shape)
    self.bias = bias ? try weights.vector("bias", shape: [shape[0]]) : nil
    self.geometry = geometry
    path = weights.prefix
  }

  /// A square kernel with the same zero padding on all sides.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(
    _ inChannels: Int, _ outChannels: Int, kernel: Int, stride: Int = 1, padding: Int = 0, bias: Bool = true, weights: WeightScope
  ) throws {
    try self.init(inChannels, outChannels, kernel: kernel, stride: stride, padding: .all(padding), bias: bias, weights: weights)
  }

  /// activation(convolution of pictures + bias + shift + residual).
  ///
  /// - Parameters:
  ///   - x: `[N, H, W, inChannels]`. If the caller passes the last reference, its memory is returned to the system as it is read.
  ///   - size: the inputs are resized to this first. Each pixel becomes a copy of the nearest one.
  ///   - shift: `[N, outChannels]`, added to every pixel of its picture.
  ///   - residual: of the result's shape. If the caller passes the last reference, its memory is reused for the result.
  ///   - activation: applied to the sum. Observers see the sum.
  /// - Returns: `[N, H', W', outChannels]`.
  /// - Throws: `CancellationError`.
  public func callAsFunction(
    _ x: consuming Tensor, resizedTo size: (height: Int, width: Int)? = nil, shiftedBy shift: Tensor? = nil,
    adding residual: consuming Tensor? = nil, activation: Activation = .none, in context: ExecutionContext
  ) throws -> Tensor {
    try self([consume x], resizedTo: size, shiftedBy: shift, adding: consume residual, activation: activation, in: context)
  }

  /// The same for inputs `[N, H, W, Cᵢ]` that are joined along channels, inChannels in all.
  /// - Throws: `CancellationError`.
  public func callAsFunction(
    _ inputs: consuming [Tensor], resizedTo size: (height: Int, width: Int)? = nil, shiftedBy shift: Tensor? = nil,
    adding residual: consuming Tensor? = nil, activation: Activation = .none, in context: ExecutionContext
  ) throws -> Tensor {
    // The reference's module has no activation.
    if activation != .none, context.observer != nil {
      _ = try self(copy inputs, resizedTo: size, shiftedBy: shift, adding: copy residual, in: context)
    }
    var residual = residual
    if let addition = weight.addition(in: context) {
      let low = try Tensor.convolution(copy inputs, resizedTo: size, weights: addition.down, geometry: geometry, in: context)
      residual = try low.multiplied(by: addition.up, adding: residual.take(), in: context)
    }
    let result = try Tensor.convolution(
      consume inputs, resizedTo: size, weights: weight.value(in: context), geometry: geometry, bias: bias(shiftedBy: shift, in: context),
      adding: residual.take(), activation: activation, in: context)
    if activation == .none { context.observer?(path, result) }
    return result
  }

  /// The convolution of inputs after a normalisation and SiLU. With a shortcut, also its 1×1 convolution of the inputs themselves.
  ///
  /// - Parameters:
  ///   - inputs: `[N, H, W, Cᵢ]`, joined along channels. If the caller passes the last reference to a single one, its memory is returned to the system as it
  ///     is read.
  ///   - shift: `[N, outChannels]`, added to every pixel of its picture.
  ///   - residual: of the result's shape. If the caller passes the last reference, its memory is reused for the result.
  /// - Returns: `[N, H', W', outChannels]`, and the shortcut's `[N, H, W, outChannels]` if there is one.
  /// - Throws: `CancellationError`.
  func callAsFunction(
    _ inputs: consuming [Tensor], normalizedBy norm: GroupNorm, shiftedBy shift: Tensor? = nil, adding residual: consuming Tensor? = nil,
    beside shortcut: Convolution2D? = nil, in context: ExecutionContext
  ) throws -> (result: Tensor, shortcut: Tensor?) {
    let normalization = norm.normalization(in: context)
    var residual = residual
    if let addition = weight.addition(in: context) {
      let low = try Tensor.convolution(
        copy inputs, normalizedBy: normalization, activation: .silu, weights: addition.down, geometry: geometry, bias: nil, in: context)
      residual = try low.result.multiplied(by: addition.up, adding: residual.take(), in: context)
    }
    let change = try shortcut?.change(of: inputs, in: context)
    var both = try Tensor.convolution(
      consume inputs, normalizedBy: normalization, activation: .silu, weights: weight.value(in: context), geometry: geometry,
      bias: bias(shiftedBy: shift, in: context), adding: residual.take(),
      beside: shortcut.map { ($0.weight.value(in: context), $0.bias?.value(in: context)) }, in: context)
    if let change { both.shortcut = try both.shortcut?.adding(change, in: context) }
    if let shortcut, let around = both.shortcut { context.observer?(shortcut.path, around) }
    context.observer?(path, both.result)
    return both
  }

  /// What a context adds to the convolution of inputs.
  private func change(of inputs: [Tensor], in context: ExecutionContext) throws -> Tensor? {
    guard let addition = weight.addition(in: context) else { return nil }
    return try Tensor.convolution(inputs, weights: addition.down, geometry: geometry, in: context)
      .multiplied(by: addition.up, in: context)
  }

  /// One bias, one for each picture, or none.
  private func bias(shiftedBy shift: Tensor?, in context: ExecutionContext) throws -> Tensor? {
    let bias = bias?.value(in: context)
    guard let shift, let bias else { return shift ?? bias }
    let row = bias.reshaped([1, bias.count])
    return try shift.adding(row.repeated(shift.shape[0], in: context), in: context)
  }
}
