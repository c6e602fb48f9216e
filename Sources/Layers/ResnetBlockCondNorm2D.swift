import LatentDiffusionWeights
import Tensor

/// Two convolutions with a residual path, whose normalisations follow from an embedding. Source: diffusers' `ResnetBlockCondNorm2D` with `ada_group`.
public struct ResnetBlockCondNorm2D: Sendable {
  /// Channels from one convolution to the next, and the groups in which they are normalised.
  public struct Widths: Sendable {
    /// Of the input.
    public let entering: Int
    /// Between the two convolutions.
    public let hidden: Int
    /// Of the result.
    public let leaving: Int
    /// Groups of the first normalisation.
    public let enteringGroups: Int
    /// Groups of the second normalisation.
    public let hiddenGroups: Int

    /// - Parameters:
    ///   - entering: of the input.
    ///   - hidden: between the two convolutions.
    ///   - leaving: of the result.
    ///   - enteringGroups: that divide `entering`.
    ///   - hiddenGroups: that divide `hidden`.
    public init(entering: Int, hidden: Int, leaving: Int, enteringGroups: Int, hiddenGroups: Int) {
      (self.entering, self.hidden, self.leaving) = (entering, hidden, leaving)
      (self.enteringGroups, self.hiddenGroups) = (enteringGroups, hiddenGroups)
    }
  }

  private let norm1: AdaGroupNorm
  private let conv1: Convolution2D
  private let norm2: AdaGroupNorm
  private let conv2: Convolution2D
  private let shortcut: Convolution2D?
  private let activation: Activation
  private let path: String

  /// - Parameters:
  ///   - embedding: the length of the embedding.
  ///   - activation: before each convolution.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ widths: Widths, embedding: Int, epsilon: Float, activation: Activation, weights: WeightScope) throws {
    norm1 = try AdaGroupNorm(
      embedding, groups: widths.enteringGroups, channels: widths.entering, epsilon: epsilon, weights: weights["norm1"])
    conv1 = try Convolution2D(widths.entering, widths.hidden, kernel: 3, padding: 1, weights: weights["conv1"])
    norm2 = try AdaGroupNorm(embedding, groups: widths.hiddenGroups, channels: widths.hidden, epsilon: epsilon, weights: weights["norm2"])
    conv2 = try Convolution2D(widths.hidden, widths.leaving, kernel: 3, padding: 1, weights: weights["conv2"])
    shortcut =
      widths.entering == widths.leaving
      ? nil : try Convolution2D(widths.entering, widths.leaving, kernel: 1, bias: false, weights: weights["conv_shortcut"])
    (self.activation, path) = (activation, weights.prefix)
  }

  /// Inputs `[N, H, W, Cᵢ]`, joined along channels, and their embedding `[N, E]` → `[N, H, W, leaving]`.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ inputs: [Tensor], embedding: Tensor, in context: ExecutionContext) throws -> Tensor {
    let around = try shortcut?(inputs, in: context) ?? (inputs.count == 1 ? inputs[0] : .concatenated(inputs, axis: -1, in: context))
    let first = try norm1(inputs, embedding: embedding, in: context).activated(activation, in: context)
    let hidden = try conv1(consume first, in: context)
    let second = try norm2([consume hidden], embedding: embedding, in: context).activated(activation, in: context)
    let result = try conv2(consume second, adding: around, in: context)
    context.observer?(path, result)
    return result
  }
}
