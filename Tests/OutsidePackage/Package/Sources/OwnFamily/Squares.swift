import Foundation
import LatentDiffusion

/// A family that the library has never seen: its own predictor class, an autoencoder without weights worth the name, and words that are colours.
struct SquaresFamily: ModelFamily {
  var name: String { "Squares" }
  var pipelineClasses: Set<String> { ["SquaresPipeline"] }
  var parts: [ModelPart] {
    [
      ModelPart("denoiser", .predictor, words: "denoiser", classNames: SquareDenoiser.classNames),
      ModelPart("palette", .conditioner, words: "palette", classNames: Palette.classNames),
      ModelPart("pixels", .autoencoder, words: "pixels", classNames: PixelShuffle.classNames),
      ModelPart("scheduler", .accessory, words: "scheduler"),
    ]
  }

  func assembled(_ parts: ModelParts) throws -> ModelAssembly {
    ModelAssembly(
      predictor: try parts.part("denoiser", as: SquareDenoiser.self), autoencoder: try parts.part("pixels", as: PixelShuffle.self),
      conditioner: try parts.part("palette", as: Palette.self))
  }

  func description(of files: ModelFiles) -> String? { "Squares of the first kind" }
}

extension ModelRegistry {
  /// The library's classes and families, and these.
  static var withSquares: ModelRegistry {
    var registry = ModelRegistry.standard
    for type in [SquareDenoiser.self, Palette.self, PixelShuffle.self] as [any ModelComponent.Type] { registry.components.register(type) }
    registry.families.append(SquaresFamily())
    return registry
  }
}

/// x̂₀ = conv(x) + W · colour, for each pixel: a predictor of samples, with the size of the picture as a further input.
struct SquareDenoiser: NoisePredictor, ModelComponent {
  static var classNames: [String] { ["SquareDenoiser"] }
  static var quantization: QuantizationRule { .matrices(except: []) }
  let inputChannels = 12
  let outputChannels = 12
  let sampleSize: Int?
  private let convolution: Convolution2D
  private let colour: Linear

  private struct Configuration: Decodable { var sample_size: Int }

  init(configuration: Data, weights: WeightScope) throws {
    sampleSize = try decodeConfiguration(Configuration.self, component: "SquareDenoiser", from: configuration).sample_size
    convolution = try Convolution2D(12, 12, kernel: 3, padding: 1, weights: weights["convolution"])
    colour = try Linear(32, 12, weights: weights["colour"])
  }

  var declaredInputs: [PredictorInput] { [PredictorInput("picture_size", shape: [2])] }

  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    try check(conditioning, latents: latents.shape[0])
    let x = try convolution(latents, in: context).repeated(conditioning.rows / latents.shape[0], in: context)
    let shift = try colour(conditioning.contexts[0], in: context).reshaped([conditioning.rows, 12])
    // A 1×1 convolution would add it for free; here each pixel of a row gets it by repeating.
    let pixels = x.shape[1] * x.shape[2]
    let rows = try (0..<conditioning.rows).map { row in
      try shift.rows(row..<row + 1, in: context).repeated(pixels, in: context).reshaped([1, x.shape[1], x.shape[2], 12])
    }
    return try x.adding(Tensor.concatenated(rows, axis: 0, in: context), in: context)
  }
}

/// A state of 32 numbers for each text, from a table, and the size that the pictures will have.
struct Palette: TextConditioner, ModelComponent {
  static var classNames: [String] { ["Palette"] }
  private let table: Tensor

  init(configuration: Data, weights: WeightScope) throws {
    table = try weights.tensor("table.weight", shape: [4, 32]).decoded()
  }

  func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    let names = ["", "red", "green", "blue"]
    let rows = try request.prompts.map { prompt in
      let row = names.firstIndex(of: prompt.text) ?? 0
      return try table.rows(row..<row + 1, in: context).reshaped([1, 1, 32])
    }
    let size = [Float(request.size.height), Float(request.size.width)]
    return Conditioning(
      hiddenStates: try Tensor.concatenated(rows, axis: 0, in: context),
      inputs: ["picture_size": Tensor(rows.flatMap { _ in size }, shape: [rows.count, 2])])
  }
}

/// A latent is a square of 2×2 pixels, as it is: plain latents, no distribution.
struct PixelShuffle: LatentAutoencoder, ModelComponent {
  static var classNames: [String] { ["PixelShuffle"] }
  let spatialScale = 2
  let latentChannels = 12
  let latentScale: Float

  private struct Configuration: Decodable { var scaling_factor: Float }

  init(configuration: Data, weights: WeightScope) throws {
    latentScale = try decodeConfiguration(Configuration.self, component: "PixelShuffle", from: configuration).scaling_factor
    _ = try weights.tensor("nothing", shape: [1])
  }

  func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture {
    try checkPicture(image)
    let (n, h, w) = (image.shape[0], image.shape[1] / 2, image.shape[2] / 2)
    return .latents(image.reshaped([n, h, 2, w, 2, 3]).permuted([0, 1, 3, 2, 4, 5]).reshaped([n, h, w, 12]))
  }

  func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    try checkLatents(latents)
    let (n, h, w) = (latents.shape[0], latents.shape[1], latents.shape[2])
    return latents.reshaped([n, h, w, 2, 2, 3]).permuted([0, 1, 3, 2, 4, 5]).reshaped([n, 2 * h, 2 * w, 3])
  }
}
