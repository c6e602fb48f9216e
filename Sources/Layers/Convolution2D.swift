import Tensor
import Weights

/// A convolution of pictures `[N, H, W, C]`. Source: PyTorch's `Conv2d`.
public struct Convolution2D: Sendable {
  private let weight: Form
  private let bias: Tensor
  private let geometry: ConvolutionGeometry
  private let path: String

  /// How the weights are kept.
  private enum Form: Sendable {
    case direct(PackedMatrix)
    case winograd(WinogradWeights)
  }

  /// Whether Winograd's form is worth its memory and time: for maps that are large beside the channels, and for channels that fill the
  /// matrix kernel's tiles.
  private static func isWinogradWorthwhile(_ inChannels: Int, _ outChannels: Int, side: Int) -> Bool {
    side >= 24 && inChannels >= 32 && outChannels >= 32
  }

  /// Takes `weight` `[outChannels, inChannels, kernel, kernel]` and `bias` `[outChannels]`.
  ///
  /// - Parameter side: the usual height and width of the result, where known: large maps of 3×3 windows are convolved by Winograd's method.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(
    _ inChannels: Int, _ outChannels: Int, kernel: Int, stride: Int = 1, padding: ConvolutionGeometry.Padding, side: Int? = nil,
    weights: WeightScope
  ) throws {
    let packed = try PackedMatrix(weights.tensor("weight", shape: [outChannels, inChannels, kernel, kernel]), in: weights.context)
    bias = try weights.tensor("bias", shape: [outChannels]).decoded()
    path = weights.prefix
    geometry = ConvolutionGeometry(kernelHeight: kernel, kernelWidth: kernel, stride: stride, padding: padding)
    let isPossible = kernel == 3 && stride == 1 && padding == .all(1)
    weight =
      isPossible && Self.isWinogradWorthwhile(inChannels, outChannels, side: side ?? 0)
      ? .winograd(try WinogradWeights(packed, in: weights.context)) : .direct(packed)
  }

  /// A square window with the same zeros on all sides.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(
    _ inChannels: Int, _ outChannels: Int, kernel: Int, stride: Int = 1, padding: Int = 0, side: Int? = nil, weights: WeightScope
  ) throws {
    try self.init(inChannels, outChannels, kernel: kernel, stride: stride, padding: .all(padding), side: side, weights: weights)
  }

  /// The convolution of pictures that lie side by side in channels.
  ///
  /// - Parameters:
  ///   - inputs: `[N, H, W, Cᵢ]`, inChannels in all.
  ///   - size: resize the inputs to this first, each pixel the nearest one's copy.
  ///   - shift: `[N, outChannels]`, added to every pixel of its picture.
  ///   - residual: of the result's shape.
  /// - Returns: `[N, H', W', outChannels]`.
  /// - Throws: `CancellationError`.
  public func callAsFunction(
    _ inputs: Tensor..., resizedTo size: (height: Int, width: Int)? = nil, shiftedBy shift: Tensor? = nil,
    adding residual: Tensor? = nil, in context: ExecutionContext
  ) throws -> Tensor {
    try self(inputs, resizedTo: size, shiftedBy: shift, adding: residual, in: context)
  }

  /// The same with the inputs `[N, H, W, Cᵢ]` in a list.
  /// - Throws: `CancellationError`.
  public func callAsFunction(
    _ inputs: [Tensor], resizedTo size: (height: Int, width: Int)? = nil, shiftedBy shift: Tensor? = nil,
    adding residual: Tensor? = nil, in context: ExecutionContext
  ) throws -> Tensor {
    let row = self.bias.reshaped([1, self.bias.count])
    let bias = shift.map { shift in
      Tensor.concatenated((0..<shift.shape[0]).map { shift.rows($0..<$0 + 1) + row }, axis: 0)
    }
    let result =
      switch weight {
      case .direct(let packed):
        try Tensor.convolution(
          inputs, resizedTo: size, weights: packed, geometry: geometry, bias: bias ?? self.bias, adding: residual, in: context)
      case .winograd(let transformed):
        try Tensor.convolution(
          inputs, resizedTo: size, weights: transformed, bias: bias ?? self.bias, adding: residual, in: context)
      }
    context.observer?(path, result)
    return result
  }
}
