import LatentDiffusionComponents
import Tensor

/// The training table of a sampler whose samples are x = √ᾱ x₀ + √(1 − ᾱ) ε.
struct AlphaTable: Sendable, Codable {
  /// ᾱ of each training timestep.
  private let alphasCumprod: [Float]
  /// ᾱ before training timestep 0.
  private let final: Float

  /// - Parameter setsAlphaToOne: whether ᾱ after the last step is 1, rather than that of timestep 0.
  init(_ table: NoiseTable, setsAlphaToOne: Bool) {
    alphasCumprod = table.alphasCumprod
    final = setsAlphaToOne ? 1 : table.alphasCumprod[0]
  }

  /// ᾱ of a training timestep, a whole number. Below 0 it is ᾱ after the last step; beyond the table it is the table's last.
  subscript(timestep: Float) -> Float {
    guard timestep >= 0, let last = alphasCumprod.indices.last else { return final }
    return alphasCumprod[min(Int(min(timestep, Float(last))), last)]
  }

  /// The schedule of some training timesteps.
  /// - Parameter prediction: what is predicted. A timestep without signal cannot be denoised from a prediction of its noise.
  func schedule(_ timesteps: [Int], prediction: PredictionType, scheduler: SchedulerKind) throws(SchedulerError) -> NoiseSchedule {
    guard timesteps.allSatisfy(alphasCumprod.indices.contains) else {
      throw .unusableSteps(
        timesteps.count, scheduler: scheduler,
        needed: "fewer, as its first timestep, moved by steps_offset, lies beyond the last one trained")
    }
    guard prediction != .epsilon || timesteps.allSatisfy({ alphasCumprod[$0] > 0 }) else {
      throw .unusableValue(key: "prediction_type", found: "epsilon", needed: "v_prediction or sample with rescale_betas_zero_snr")
    }
    let levels = (timesteps.map { alphasCumprod[$0] } + [final]).map { NoiseLevel(alphaCumprod: $0) }
    return NoiseSchedule(timesteps: timesteps.map { Float($0) }, levels: levels)
  }
}
