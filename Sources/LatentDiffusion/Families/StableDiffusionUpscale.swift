import Foundation
import LatentDiffusionComponents
import LatentDiffusionWeights
import Pipeline
import Schedulers
import Tensor

/// The upscaler of Stable Diffusion 2: it sees a small picture with noise on it beside the latents, and is told how much noise as a class.
///
/// Source: diffusers' `StableDiffusionUpscalePipeline`.
public struct StableDiffusionUpscaleFamily: ModelFamily {
  private let base = StableDiffusionFamily()

  /// Nothing to choose.
  public init() {}

  public var name: String { "Stable Diffusion upscaler" }
  public var pipelineClasses: Set<String> { ["StableDiffusionUpscalePipeline"] }
  public var parts: [ModelPart] { base.parts + [ModelPart(Self.noisePart, .accessory, words: "scheduler of the small picture")] }
  public var ignoredParts: Set<String> { base.ignoredParts.union(["watermarker"]) }

  private static let noisePart = "low_res_scheduler"
  private static let mostNoiseKey = "max_noise_level"

  public func accessories(of files: ModelFiles) throws -> [String: any Sendable] {
    let levels = try SchedulerConfiguration(json: files.requiredConfiguration(of: Self.noisePart)).trainingLevels()
    let most = files.number(Self.mostNoiseKey) ?? 350
    guard let last = Int(exactly: most), last >= 0 else {
      throw ConfigurationError.invalid(
        component: "model_index.json", key: Self.mostNoiseKey, reason: "\(most) is no whole number from 0 up")
    }
    return try base.accessories(of: files).merging([Self.noisePart: Array(levels.prefix(min(last, levels.count - 1) + 1))]) { $1 }
  }

  public func assembled(_ parts: ModelParts) throws -> ModelAssembly {
    var assembly = try base.assembled(parts)
    assembly.autoencoder = ScaledAutoencoder(base: assembly.autoencoder)
    assembly.pictureNoise = parts.optionalPart(Self.noisePart) ?? []
    return assembly
  }

  public func description(of files: ModelFiles) -> String? { base.description(of: files) }

  /// diffusers' pipeline takes this scale whatever the configuration says, since that of the first release did not say it.
  private struct ScaledAutoencoder: LatentAutoencoder {
    let base: any LatentAutoencoder
    var latentScale: Float { 0.08333 }
    var spatialScale: Int { base.spatialScale }
    var latentChannels: Int { base.latentChannels }
    func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture { try base.encode(image, in: context) }
    func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor { try base.decode(latents, in: context) }
  }
}
