import Foundation
import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// CLIP's image tower with its projection. Source: Radford et al. 2021; transformers' `CLIPVisionModelWithProjection`.
public struct CLIPVisionModelWithProjection: ModelComponent {
  /// What the configuration says.
  public let configuration: CLIPVisionConfiguration
  private let classEmbedding: Parameter<Tensor>
  private let patchEmbedding: Convolution2D
  private let positionEmbedding: Parameter<Tensor>
  private let preLayerNorm: LayerNorm
  private let layers: [CLIPEncoderLayer]
  private let postLayerNorm: LayerNorm
  private let visualProjection: Linear

  /// The states after the tower.
  public struct Output: Sendable {
    /// `[N, tokens, features]`: after the last layer.
    public let lastHiddenState: Tensor
    /// `[N, tokens, features]`: before the last layer (`hidden_states[-2]`).
    public let penultimate: Tensor
    /// `[N, projectedFeatures]`: the projection of the whole picture's state.
    public let imageEmbeds: Tensor
  }

  /// Keys as transformers writes them, without `vision_model.`.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ configuration: CLIPVisionConfiguration, weights: WeightScope) throws {
    self.configuration = configuration
    let (hidden, epsilon) = (configuration.features, configuration.layer.epsilon)
    let embeddings = weights["embeddings"]
    classEmbedding = try embeddings.vector("class_embedding", shape: [hidden])
    patchEmbedding = try Convolution2D(
      3, hidden, kernel: configuration.patchSize, stride: configuration.patchSize, padding: .all(0), bias: false,
      weights: embeddings["patch_embedding"])
    positionEmbedding = try embeddings["position_embedding"].vector("weight", shape: [configuration.tokens, hidden])
    // The name is misspelt in the reference.
    preLayerNorm = try LayerNorm(hidden, epsilon: epsilon, weights: weights["pre_layrnorm"])
    layers = try (0..<configuration.layers).map {
      try CLIPEncoderLayer(configuration.layer, causal: false, weights: weights["encoder"]["layers"][$0])
    }
    postLayerNorm = try LayerNorm(hidden, epsilon: epsilon, weights: weights["post_layernorm"])
    visualProjection = try Linear(hidden, configuration.projectedFeatures, bias: false, weights: weights["visual_projection"])
  }

  public static var classNames: [String] { ["CLIPVisionModelWithProjection"] }

  public static var quantization: QuantizationRule { .matrices(except: ["embeddings.", "visual_projection"]) }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    try self.init(CLIPVisionConfiguration(json: json), weights: weights)
  }

  /// - Parameter pixels: `[N, imageSize, imageSize, 3]`, as `CLIPImageProcessor` makes them.
  /// - Throws: `ComponentError` for pictures of another size, `CancellationError`.
  public func callAsFunction(_ pixels: Tensor, in context: ExecutionContext) throws -> Output {
    let (size, hidden) = (configuration.imageSize, configuration.features)
    guard pixels.shape.rank == 4, pixels.count > 0, pixels.shape.dimensions.dropFirst() == [size, size, 3] else {
      throw ComponentError.unexpectedShape(
        component: "The image encoder", argument: "prepared pictures", expected: "[N, \(size), \(size), 3]", found: pixels.shape)
    }
    let count = pixels.shape[0], patches = try patchEmbedding(pixels, in: context).reshaped([count, configuration.tokens - 1, hidden])
    let whole = try classEmbedding.value(in: context).reshaped([1, 1, hidden]).repeated(count, in: context)
    let tokens = try Tensor.concatenated([whole, patches], axis: 1, in: context)
    let places = try positionEmbedding.value(in: context).reshaped([1, configuration.tokens, hidden]).repeated(count, in: context)
    var x = try preLayerNorm(tokens.adding(places, in: context), in: context), before = x
    for layer in layers { (before, x) = (x, try layer(x, in: context)) }
    let firsts = try (0..<count).map {
      try x.rows($0..<$0 + 1, in: context).reshaped([configuration.tokens, hidden]).rows(0..<1, in: context)
    }
    let pooled = try postLayerNorm(.concatenated(firsts, axis: 0, in: context), in: context)
    return Output(lastHiddenState: x, penultimate: before, imageEmbeds: try visualProjection(pooled, in: context))
  }
}
