import Foundation
import LatentDiffusionComponents
import Pipeline
import Tensor
import UNet

/// A network that was trained to see and to predict tensors of variance 1 at every σ. What it predicts becomes the clean latents. Source: Karras et al. 2022
/// (arXiv:2206.00364), table 1 and equation 7; diffusers' `StableDiffusionLatentUpscalePipeline`.
struct KarrasPreconditioned: NoisePredictor {
  let network: KUNet2DConditionModel

  var inputChannels: Int { network.inputChannels }
  /// The last channel is a variance, which is not used.
  var outputChannels: Int { network.outputChannels - 1 }
  var sideMultiple: Int { network.sideMultiple }
  var sampleSize: Int? { network.sampleSize }
  var sampleSides: (height: Int, width: Int)? { network.sampleSides }
  /// How much noise the small picture has. The network is told this before the pooled text.
  var declaredInputs: [PredictorInput] { [PredictorInput(noise.name, shape: [noise.count])] }

  private var noise: (name: String, count: Int) { LatentUpscaling.noiseFeatures }

  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    var memory = PassMemory()
    return try predict(latents, timestep: timestep, conditioning: conditioning, memory: &memory, in: context)
  }

  /// - Parameters:
  ///   - latents: divided by √(σ² + 1), with the small picture's beside them.
  ///   - timestep: ¼ log σ.
  func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> Tensor {
    try check(conditioning, latents: latents.shape.dimensions.first ?? 0)
    guard let pooled = conditioning.pooled else {
      throw ComponentError.missingInput(component: "The latent upscaler", argument: "the pooled text")
    }
    var told = conditioning
    let features = [conditioning.inputs[noise.name], pooled].compactMap(\.self)
    (told.inputs, told.pooled) = (["timestep_cond": try .concatenated(features, axis: -1, in: context)], nil)
    let prediction = try network.predict(latents, timestep: timestep, conditioning: told, memory: &memory, in: context)
    let sigma = exp(4 * timestep), divisor = (sigma * sigma + 1).squareRoot()
    // x / (σ² + 1) + σ / √(σ² + 1) · F. One division has been made before.
    let own = try latents.channels(0..<outputChannels, in: context).scaled(by: 1 / divisor, in: context)
    let change = try prediction.channels(0..<outputChannels, in: context).scaled(by: sigma / divisor, in: context)
    return try own.repeated(change.shape[0] / own.shape[0], in: context).adding(change, in: context)
  }
}

/// A scheduler whose predictor is told ¼ log σ in the place of the timestep. Source: c_noise of Karras et al. 2022, table 1.
struct LogNoiseTimesteps<Base: Scheduler>: Scheduler {
  private var base: Base
  let schedule: NoiseSchedule

  init(_ base: Base) {
    self.base = base
    schedule = NoiseSchedule(
      timesteps: zip(base.timesteps, base.schedule.levels).map { 0.25 * log($1.sigma) }, levels: base.schedule.levels,
      initialNoiseScale: base.initialNoiseScale)
  }

  var order: Int { base.order }
  var putsNoiseBack: Bool { base.putsNoiseBack }
  func signal(after step: Int) -> Float { base.signal(after: step) }

  mutating func advance(_ sample: Tensor, prediction: Tensor, at step: Int, noise: inout any NoiseSource) throws -> StepResult {
    try base.advance(sample, prediction: prediction, at: step, noise: &noise)
  }
}
