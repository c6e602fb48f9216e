import Foundation
import LatentDiffusion

/// A scheduler that the library does not have: Euler's method on v-predictions, on a table of its own, first steps long and last ones short.
struct OwnScheduler: Scheduler {
  let schedule: NoiseSchedule

  init(steps: Int) {
    // ᾱ of Stable Diffusion's scaled-linear schedule.
    var product = 1.0
    let cumulative = (0..<1000).map { i in
      let root = sqrt(0.00085) + (sqrt(0.012) - sqrt(0.00085)) * Double(i) / 999
      product *= 1 - root * root
      return product
    }
    let places = (0..<steps).map { Int(999 * pow(1 - Double($0) / Double(steps), 1.1)) }
    let sigmas = places.map { Float(sqrt((1 - cumulative[$0]) / cumulative[$0])) } + [0]
    schedule = NoiseSchedule(
      timesteps: places.map { Float($0) }, levels: sigmas.map { NoiseLevel(karras: $0) },
      initialNoiseScale: (sigmas[0] * sigmas[0] + 1).squareRoot())
  }

  mutating func advance(_ sample: Tensor, prediction: Tensor, at step: Int, noise: inout any NoiseSource) throws -> StepResult {
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let variance = sigma * sigma + 1
    // x₀ = x / (σ² + 1) - v σ / √(σ² + 1)
    let original = sample / variance - (sigma / variance.squareRoot()) * prediction
    return StepResult(sample: sample + ((next - sigma) / sigma) * (sample - original), predictedOriginal: original)
  }
}
