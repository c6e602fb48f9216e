import Foundation
import LatentDiffusion

/// A model in which nothing is the library's own. Words name colours, a picture is one colour with noise on it, and a latent is a block of
/// 3×3 pixels.
enum Toys {
  static let pipeline = DiffusionPipeline(predictor: Colours(), autoencoder: Blocks(), conditioner: Names()) { StraightLines(steps: $0) }
}

/// The colour that a prompt names, grey for all others: hidden states `[N, 1, 3]`, -1…1.
struct Names: TextConditioner {
  static let colours: [String: [Float]] = ["red": [1, -1, -1], "green": [-1, 1, -1], "blue": [-1, -1, 1], "dark": [-0.5, -0.5, -0.5]]

  func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    let prompts = request.prompts
    let states = prompts.flatMap { Self.colours[$0.text] ?? [0, 0, 0] }
    return Conditioning(hiddenStates: Tensor(states, shape: [prompts.count, 1, 3]))
  }
}

/// Knows that the picture is the colour, and so where the noise lies: (x - x₀) / t.
struct Colours: NoisePredictor {
  let inputChannels = 3
  let outputChannels = 3
  let sampleSize: Int? = 4

  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    try context.checkCancellation()
    let latents = latents.repeated(conditioning.rows / latents.shape[0])
    let (colours, channels) = (conditioning.contexts[0].elements, 3)
    let pixels = latents.count / latents.shape[0]
    let originals = (0..<latents.count).map { colours[$0 / pixels * channels + $0 % channels] }
    return (latents - Tensor(originals, shape: latents.shape)) / timestep
  }
}

/// Rectified flow: x = (1 - t) x₀ + t ε, in equal steps from t = 1 to t = 0 along what is predicted, ε - x₀.
struct StraightLines: Scheduler {
  let schedule: NoiseSchedule

  init(steps: Int) {
    let times = (0...steps).map { 1 - Float($0) / Float(steps) }
    schedule = NoiseSchedule(timesteps: times.dropLast(), levels: times.map { NoiseLevel(alpha: 1 - $0, sigma: $0) })
  }

  mutating func advance(_ sample: Tensor, prediction: Tensor, at step: Int, noise: inout any NoiseSource) throws -> StepResult {
    let (time, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    return StepResult(sample: sample + (next - time) * prediction, predictedOriginal: sample - time * prediction)
  }
}

/// A latent is the mean of 3×3 pixels.
struct Blocks: LatentAutoencoder {
  let spatialScale = 3
  let latentChannels = 3
  let latentScale: Float = 1

  func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture {
    let (count, height, width) = (image.shape[0], image.shape[1] / 3, image.shape[2] / 3)
    // [N, h, 3, w, 3, C] → [3, 3, N, h, w, C]
    let parts = image.reshaped([count, height, 3, width, 3, 3]).permuted([2, 4, 0, 1, 3, 5]).reshaped([9, count, height, width, 3])
    let sum = (1..<9).reduce(parts.rows(0..<1)) { $0 + parts.rows($1..<$1 + 1) }
    let mean = (sum / 9).reshaped([count, height, width, 3])
    return .distribution(DiagonalGaussian(mean: mean, logVariance: Tensor(repeating: -30, shape: mean.shape)))
  }

  func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    latents.resizedNearest(height: latents.shape[1] * 3, width: latents.shape[2] * 3)
  }
}
