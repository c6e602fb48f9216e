import Foundation
import LatentDiffusionComponents
import LatentDiffusionWeights
import Pipeline
import Schedulers
import Tensor
import TextEncoder
import UNet

/// The latent upscaler, which doubles the sides of a picture in the latent space of Stable Diffusion 1.
///
/// Source: diffusers' `StableDiffusionLatentUpscalePipeline`.
public struct StableDiffusionLatentUpscaleFamily: ModelFamily {
  private let base = StableDiffusionFamily()

  /// Nothing to choose.
  public init() {}

  public var name: String { "Stable Diffusion latent upscaler" }
  public var pipelineClasses: Set<String> { ["StableDiffusionLatentUpscalePipeline"] }
  public var parts: [ModelPart] { base.parts }
  public var ignoredParts: Set<String> { base.ignoredParts }

  public func accessories(of files: ModelFiles) throws -> [String: any Sendable] { try base.accessories(of: files) }

  public func assembled(_ parts: ModelParts) throws -> ModelAssembly {
    let unet: KUNet2DConditionModel = try parts.part("unet")
    let text: CLIPTextModel = try parts.part("text_encoder")
    let autoencoder: any LatentAutoencoder = try parts.part("vae")
    let (features, noise) = (text.configuration.features, LatentUpscaling.noiseFeatures.count)
    let check = ConfigurationCheck("unet")
    try check.require(
      unet.configuration.contextChannels == features, "cross_attention_dim",
      "it is \(unet.configuration.contextChannels), but the text encoder gives \(features) features")
    try check.require(
      unet.configuration.conditionChannels == noise + features, "time_cond_proj_dim",
      "the noise and the pooled text need \(noise + features)")
    let predictor = KarrasPreconditioned(network: unet)
    try check.require(
      predictor.outputChannels == autoencoder.latentChannels, "out_channels",
      "it is \(unet.outputChannels), but the autoencoder's latents have \(autoencoder.latentChannels) channels and their variance one")
    let conditioner: any TextConditioner =
      parts.areExtents
      ? LongestTexts(model: text) : try CLIPTextConditioner(tokenizer: parts.part("tokenizer"), model: text, isNormalized: false)
    return ModelAssembly(
      predictor: predictor, autoencoder: autoencoder, conditioner: Conditioner(base: conditioner),
      otherBytes: StableDiffusionFamily.bytesPerToken * text.configuration.vocabulary)
  }

  /// The pipeline reads the empty text where the guidance is 0.
  private struct Conditioner: TextConditioner {
    let base: any TextConditioner

    func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
      var request = request
      if request.guidance == 0 { request.prompts = request.prompts.map { _ in "" } }
      return try base.condition(request, in: context)
    }

    func truncation(of prompt: Prompt) -> PromptTruncation? { base.truncation(of: prompt) }
  }

  public func usualSettings(for task: any GenerationTask, predictor: any NoisePredictor) -> GenerationSettings {
    GenerationSettings(steps: 75, guidance: 9)
  }

  /// - Throws: `SchedulerError`, also where samples are not x₀ + σ ε, as the network was trained on.
  public func schedule(
    _ choice: SchedulerChoice, steps: Int, for task: any GenerationTask, predictor: any NoisePredictor
  ) throws -> Schedule {
    func told(_ scheduler: some Scheduler) -> any Scheduler { LogNoiseTimesteps(scheduler) }
    let known: [SchedulerKind] = [.euler, .eulerAncestral, .heun, .lms]
    guard known.contains(choice.kind) else {
      throw SchedulerError.unknownValue(
        key: "_class_name", found: choice.kind.className ?? choice.kind.rawValue, known: known.compactMap(\.className))
    }
    return Schedule(told(try choice.kind.make(configuration: choice.configuration, steps: steps)))
  }
}
