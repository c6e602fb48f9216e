import Foundation
import LatentDiffusion

/// A predictor that has learned nothing and remembers pictures. The best guess at what is under
/// noise is their mean, in which each counts as much as it is likely.
struct RememberedPictures: NoisePredictor, ModelComponent {
  static var classNames: [String] { ["RememberedPictures"] }
  let inputChannels = 4
  let outputChannels = 4
  let configuration: Configuration
  var sampleSize: Int? { configuration.sample_size }
  // step: 2

  /// `config.json`.
  struct Configuration: Codable {
    /// The side of the latents.
    var sample_size: Int
    /// The caption of each picture.
    var captions: [String]
  }

  private let likeness: Linear
  private let mean: Linear
  private let cumulative: [Float]

  init(configuration json: Data, weights: WeightScope) throws {
    configuration = try decodeConfiguration(Configuration.self, component: "RememberedPictures", from: json)
    try ConfigurationCheck("memory").require(
      (1...1024).contains(configuration.sample_size), "sample_size", "it is \(configuration.sample_size), not 1 to 1024")
    let elements = configuration.sample_size * configuration.sample_size * 4
    let pictures = configuration.captions.count
    likeness = try Linear(elements, pictures, weights: weights["likeness"])
    mean = try Linear(pictures, elements, bias: false, weights: weights["mean"])
    cumulative = try SchedulerConfiguration().alphasCumprod()
  }
  // step: 3

  /// x̂₀ = Σᵢ pᵢ xᵢ with log pᵢ = -|x - α xᵢ|² / 2σ², and what the captions say, up to a constant.
  func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext
  ) throws -> Tensor {
    let (count, side, rows) = (latents.shape[0], configuration.sample_size, conditioning.rows)
    let shape: Shape = [count, side, side, 4]
    try check(conditioning, latents: count)
    guard latents.shape == shape else {
      throw ComponentError.unexpectedShape(
        component: "The memory", argument: "latents", expected: shape.description, found: latents.shape)
    }
    let place = Int(max(0, min(timestep, Float(cumulative.count - 1))))
    let level = NoiseLevel(alphaCumprod: cumulative[place])
    // -|x - α xᵢ|² / 2σ² = α²/σ² (x/α · xᵢ - |xᵢ|²/2) - |x|² / 2σ²
    let x = try latents.reshaped([count, side * side * 4]).scaled(by: 1 / level.alpha, in: context)
    let found = try likeness(x, in: context).scaled(by: 1 / (level.ratio * level.ratio), in: context)
    let wanted = conditioning.contexts[0].reshaped([rows, configuration.captions.count])
    let logarithms = try found.repeated(rows / count, in: context).adding(wanted, in: context)
    let parts = try logarithms.softmax(in: context)
    return try mean(parts, in: context).reshaped([rows, side, side, 4])
  }
  // end step
}

// step: 4
/// Says of each remembered picture whether its caption is the prompt, in `[N, 1, pictures]`:
/// 0 if it is, -1000 if not. An empty prompt takes all of them.
struct Captions: TextConditioner {
  let captions: [String]

  func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    let states = request.prompts.flatMap { prompt in
      captions.map { prompt.text.isEmpty || $0 == prompt.text ? Float(0) : -1000 }
    }
    return Conditioning(hiddenStates: Tensor(states, shape: [request.prompts.count, 1, captions.count]))
  }
}

// step: 5
/// The kind of model: pictures that are remembered, and the library's autoencoder.
struct RememberingFamily: ModelFamily {
  var name: String { "remembered pictures" }
  var pipelineClasses: Set<String> { ["RememberingPipeline"] }
  var parts: [ModelPart] {
    [
      ModelPart("memory", .predictor, words: "memory", classNames: RememberedPictures.classNames),
      ModelPart("vae", .autoencoder, words: "autoencoder", classNames: AutoencoderKL.classNames),
      ModelPart("scheduler", .accessory, words: "scheduler"),
    ]
  }

  func assembled(_ parts: ModelParts) throws -> ModelAssembly {
    let memory: RememberedPictures = try parts.part("memory")
    return ModelAssembly(
      predictor: memory, autoencoder: try parts.part("vae", as: AutoencoderKL.self),
      conditioner: Captions(captions: memory.configuration.captions))
  }

  func usualSettings(for task: any GenerationTask, predictor: any NoisePredictor) -> GenerationSettings {
    GenerationSettings(steps: 20, guidance: 1)
  }
}
