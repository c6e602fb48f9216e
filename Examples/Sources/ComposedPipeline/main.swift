import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

/// A scheduler of one's own: Euler's method (Karras et al. 2022, arXiv 2206.00364), with long steps first and short ones last.
struct OwnScheduler: Scheduler {
  let schedule: NoiseSchedule
  let prediction: PredictionType

  init(steps: Int, prediction: PredictionType) {
    self.prediction = prediction
    // ᾱ of Stable Diffusion's training, by which the embedded model was trained, too.
    let (first, last) = (0.00085.squareRoot(), 0.012.squareRoot())
    var product = 1.0
    let cumulative = (0..<1000).map { timestep in
      let root = first + (last - first) * Double(timestep) / 999
      product *= 1 - root * root
      return product
    }
    let places = (0..<steps).map { Int(999 * pow(1 - Double($0) / Double(steps), 1.1)) }
    let sigmas = places.map { Float(((1 - cumulative[$0]) / cumulative[$0]).squareRoot()) } + [0]
    schedule = NoiseSchedule(
      timesteps: places.map { Float($0) }, levels: sigmas.map { NoiseLevel(karras: $0) },
      initialNoiseScale: (sigmas[0] * sigmas[0] + 1).squareRoot())
  }

  mutating func advance(_ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource) -> StepResult {
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma), variance = sigma * sigma + 1
    let original =
      switch prediction {
      case .epsilon: sample - sigma * output
      case .sample: output
      case .vPrediction: sample / variance - (sigma / variance.squareRoot()) * output
      }
    return StepResult(sample: sample + ((next - sigma) / sigma) * (sample - original), predictedOriginal: original)
  }
}

// Puts a pipeline together by hand, out of components that are loaded one by one: ComposedPipeline [MODEL].
do {
  // snippet: pipeline
  let folder = try CommandLine.arguments.dropFirst().first.map { URL(filePath: $0) } ?? EmojiModel.folder()
  let files = try ModelFiles.open(folder)
  let conditioner = try CLIPTextConditioner(tokenizer: CLIPTokenizer(of: files), model: CLIPTextModel.load(from: folder))
  let prediction = try PredictionType(files.configuration(of: "scheduler").map { try SchedulerConfiguration(json: $0) } ?? .init())
  let pipeline = DiffusionPipeline(
    predictor: try UNet2DConditionModel.load(from: folder), autoencoder: try AutoencoderKL.load(from: folder), conditioner: conditioner,
    scheduler: { steps in OwnScheduler(steps: steps, prediction: prediction) })
  var request = GenerationRequest("red apple", seed: 42)
  (request.steps, request.guidance) = (20, 4)
  let images = try await pipeline.images(for: request)
  // end snippet
  try Picture(images[0].image).write(to: URL(filePath: "composed.png"))
  print("The picture is in composed.png.")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
