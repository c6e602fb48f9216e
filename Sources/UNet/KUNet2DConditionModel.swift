import Foundation
import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// The U-Net of k-diffusion, with which the latent upscaler was trained. An embedding of the time and of what it is told beside scales and shifts every
/// normalisation, and a level leaves only its last features for the way up. Source: Crowson's k-diffusion, diffusers' `UNet2DConditionModel` of K blocks.
public struct KUNet2DConditionModel: NoisePredictor, ModelComponent {
  /// The checked configuration.
  public let configuration: KUNet2DConfiguration
  private let timeProjection: GaussianFourierProjection
  private let timeEmbedding: TimestepEmbedding
  private let convIn: Convolution2D
  private let downBlocks: [KDownBlock]
  private let upBlocks: [KUpBlock]
  private let convNormOut: GroupNorm?
  private let convOut: Convolution2D

  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ configuration: KUNet2DConfiguration, weights: WeightScope) throws {
    self.configuration = configuration
    let (time, channels) = (configuration.timeChannels, configuration.baseChannels)
    timeProjection = try GaussianFourierProjection(time, flipSinToCos: configuration.flipSinToCos, weights: weights["time_proj"])
    timeEmbedding = try TimestepEmbedding(
      time, embedding: time, conditionChannels: configuration.conditionChannels, activation: configuration.activation,
      last: configuration.timeActivation, weights: weights["time_embedding"])
    convIn = try Convolution2D(
      configuration.inChannels, channels, kernel: configuration.inputKernel, padding: (configuration.inputKernel - 1) / 2,
      weights: weights["conv_in"])
    downBlocks = try configuration.down.enumerated().map { try KDownBlock($1, configuration, weights: weights["down_blocks"][$0]) }
    upBlocks = try configuration.up.enumerated().map { try KUpBlock($1, configuration, weights: weights["up_blocks"][$0]) }
    convNormOut = try configuration.groups.map {
      try GroupNorm(groups: $0, channels: channels, epsilon: configuration.epsilon, weights: weights["conv_norm_out"])
    }
    convOut = try Convolution2D(
      channels, configuration.outChannels, kernel: configuration.outputKernel, padding: (configuration.outputKernel - 1) / 2,
      weights: weights["conv_out"])
  }

  public static var classNames: [String] { UNet2DConditionModel.pictureClassNames }
  public static var quantization: QuantizationRule { UNet2DConditionModel.quantization }
  public static func takes(_ configuration: Data) -> Bool { KUNet2DConfiguration.isMeant(by: configuration) }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    try self.init(KUNet2DConfiguration(json: json), weights: weights)
  }

  public var inputChannels: Int { configuration.inChannels }
  public var outputChannels: Int { configuration.outChannels }
  public var sideMultiple: Int { configuration.sideMultiple }
  public var sampleSides: (height: Int, width: Int)? { configuration.sampleSides }
  public var sampleSize: Int? { sampleSides.map { max($0.height, $0.width) } }

  /// `timestep_cond`, where the configuration asks for it.
  public var declaredInputs: [PredictorInput] {
    configuration.conditionChannels.map { [PredictorInput("timestep_cond", shape: [$0])] } ?? []
  }

  /// - Throws: `ComponentError` if shapes do not fit, `CancellationError`.
  public func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    var memory = PassMemory()
    return try predict(latents, timestep: timestep, conditioning: conditioning, memory: &memory, in: context)
  }

  /// The same prediction. The memory keeps what depends on the text alone.
  /// - Throws: `ComponentError` if shapes do not fit, `CancellationError`.
  public func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> Tensor {
    try check(latents, conditioning)
    let text = try read(conditioning.contexts[0], memory: &memory, in: context)
    let rows = conditioning.rows
    let sinusoids = timeProjection(Array(repeating: timestep, count: rows), in: context)
    let time = try timeEmbedding(sinusoids, condition: conditioning.inputs["timestep_cond"], in: context)
    let pass = try UNetPass(time: time, text: text, merging: nil, context: context)
    let centered = configuration.centersInput ? try latents.scaled(by: 2, plus: -1, in: context) : latents
    var x = try convIn(centered.repeated(rows / latents.shape[0], in: context), in: context)
    var skips: [Tensor] = []
    for block in downBlocks { x = try block(x, skips: &skips, pass) }
    for block in upBlocks { x = try block(x, skips: &skips, pass) }
    if let convNormOut { x = try convNormOut(x, in: context).activated(configuration.activation, in: context) }
    memory.endPass()
    return try convOut(x, in: context)
  }

  /// A text with the projections that depend on it alone. The first pass of a generation keeps them for the others.
  private func read(_ states: Tensor, memory: inout PassMemory, in context: ExecutionContext) throws -> TextStates {
    var text = TextStates(states)
    if let known = memory.cache as? TextStates, known.isOfTheSame(as: text) { return known }
    for block in downBlocks.flatMap(\.attentions) + upBlocks.flatMap(\.attentions) { try block.attn2.read(&text, in: context) }
    memory.cache = text
    return text
  }

  private func check(_ latents: Tensor, _ conditioning: Conditioning) throws {
    let component = "The U-Net", channels = configuration.contextChannels
    guard latents.shape.rank == 4, latents.shape[3] == inputChannels, latents.count > 0 else {
      throw ComponentError.unexpectedShape(
        component: component, argument: "latents", expected: "[N, h, w, \(inputChannels)]", found: latents.shape)
    }
    for side in latents.shape.dimensions[1..<3] {
      guard side.isMultiple(of: sideMultiple) else {
        throw ComponentError.indivisibleSide(component: component, side: side, multiple: sideMultiple)
      }
      // A line of one pixel has nothing to be mirrored.
      guard side >= 2 * sideMultiple || sideMultiple == 1 else {
        throw ComponentError.outOfRange(
          component: component, option: "sides of latents", value: "\(side)", allowed: "from \(2 * sideMultiple) up")
      }
    }
    try check(conditioning, latents: latents.shape[0])
    guard conditioning.contexts.count == 1 else {
      throw ComponentError.unexpectedContexts(component: component, expected: 1, found: conditioning.contexts.count)
    }
    let text = conditioning.contexts[0].shape
    guard text.rank == 3, text[0] == conditioning.rows, text[1] > 0, text[2] == channels else {
      throw ComponentError.unexpectedShape(
        component: component, argument: "hidden states", expected: "[\(conditioning.rows), L, \(channels)]", found: text)
    }
    guard conditioning.residuals == nil else { throw ComponentError.unsupported(component: "This U-Net", option: "control") }
  }
}
