import LatentDiffusionComponents
import Tensor

/// The table of a sampler on training timesteps, with samples x = √ᾱ x₀ + √(1 − ᾱ) ε: DDPM, DDIM, PNDM, LCM.
struct AlphaSchedule: Sendable {
  /// The timestep of each step.
  let timesteps: [Int]
  /// ᾱ before training timestep 0.
  let finalAlphaCumprod: Float
  private let table: NoiseTable

  /// - Parameters:
  ///   - setsAlphaToOne: whether ᾱ after the last step is 1, rather than that of timestep 0.
  ///   - prediction: what is predicted; noise says nothing of a picture at a timestep without signal.
  init(
    _ timesteps: [Int], table: NoiseTable, setsAlphaToOne: Bool, prediction: PredictionType, scheduler: String
  ) throws(SchedulerError) {
    let range = 0..<table.trainTimesteps
    guard timesteps.allSatisfy(range.contains) else {
      throw .unusableSteps(
        timesteps.count, scheduler: scheduler, needed: "fewer, as with steps_offset the first is beyond the last trained")
    }
    guard prediction != .epsilon || timesteps.allSatisfy({ table.alphasCumprod[$0] > 0 }) else {
      throw .unusableValue(key: "prediction_type", found: "epsilon", needed: "v_prediction or sample with rescale_betas_zero_snr")
    }
    self.timesteps = timesteps
    self.table = table
    finalAlphaCumprod = setsAlphaToOne ? 1 : table.alphasCumprod[0]
  }

  /// ᾱ of a training timestep; of one below 0, what is left after the last step.
  func alphaCumprod(_ timestep: Int) -> Float {
    timestep >= 0 ? table.alphasCumprod[timestep] : finalAlphaCumprod
  }

  /// √((1 − ᾱ)/ᾱ) at each step, and after the last.
  var sigmas: [Float] { (timesteps.map(alphaCumprod) + [finalAlphaCumprod]).map(NoiseTable.sigma) }

  /// √ᾱ x₀ + √(1 − ᾱ) ε.
  func addNoise(_ noise: Tensor, to sample: Tensor, at step: Int) -> Tensor {
    let alpha = alphaCumprod(timesteps[step])
    return alpha.squareRoot() * sample + (1 - alpha).squareRoot() * noise
  }
}
