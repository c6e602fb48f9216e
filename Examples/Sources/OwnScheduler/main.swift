import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

/// A scheduler of one's own: Euler's method (Karras et al. 2022, arXiv 2206.00364),
/// with long steps first and short ones last.
struct OwnScheduler: Scheduler {
  let schedule: NoiseSchedule
  let prediction: PredictionType

  // step: 2
  init(_ configuration: SchedulerConfiguration, steps: Int) throws {
    prediction = try PredictionType(configuration)
    let cumulative = try configuration.alphasCumprod()  // ᾱ at each timestep of the training
    let last = Double(cumulative.count - 1)
    let places = (0..<steps).map { Int(last * pow(1 - Double($0) / Double(steps), 1.1)) }
    let sigmas = places.map { ((1 - cumulative[$0]) / cumulative[$0]).squareRoot() } + [0]
    schedule = NoiseSchedule(
      timesteps: places.map { Float($0) }, levels: sigmas.map { NoiseLevel(karras: $0) },
      initialNoiseScale: (sigmas[0] * sigmas[0] + 1).squareRoot())
  }

  // step: 3
  mutating func advance(
    _ sample: Tensor, prediction output: Tensor, at step: Int, noise: inout any NoiseSource
  ) -> StepResult {
    let (sigma, next) = (schedule.levels[step].sigma, schedule.levels[step + 1].sigma)
    let variance = sigma * sigma + 1
    let original =
      switch prediction {
      case .epsilon: sample - sigma * output
      case .sample: output
      case .vPrediction: sample / variance - (sigma / variance.squareRoot()) * output
      }
    return StepResult(sample: sample + ((next - sigma) / sigma) * (sample - original), predictedOriginal: original)
  }
  // end step
}

// step: 4
// Draws the same picture with a model's scheduler and with this one: OwnScheduler [MODEL].
do {
  let folder = try CommandLine.arguments.dropFirst().first.map { URL(filePath: $0) } ?? EmojiModel.folder()
  let model = try StableDiffusion.load(from: folder)
  // snippet: pipeline
  var pipeline = model.pipeline
  pipeline.schedule = { steps, task, _ in
    Schedule(try OwnScheduler(model.schedulerConfiguration, steps: steps), steps: steps, strength: task.strength)
  }
  // end snippet

  // step: 5
  let request = model.request("red apple", seed: 42)
  let usual = try await model.pipeline.images(for: request)[0].image
  let own = try await pipeline.images(for: request)[0].image
  try Picture(Tensor.concatenated([usual, own], axis: 2)).write(to: URL(filePath: "own-scheduler.png"))
  print("The pictures are in own-scheduler.png.")
  // step: 4
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
