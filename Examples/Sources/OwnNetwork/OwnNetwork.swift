import Foundation
import LatentDiffusionTraining

/// A network of one's own, of the library's layers: two numbers go in, one comes out.
struct Network {
  let first: Linear, second: Linear

  init(weights: WeightScope) throws {
    first = try Linear(2, 32, weights: weights["first"])
    second = try Linear(32, 1, weights: weights["second"])
  }

  func callAsFunction(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    try second(first(x, in: context).activated(.silu, in: context), in: context)
  }
}

/// The data: points of the plane, and how far each is from the middle.
struct Points: TrainingDataset {
  func batch(_ number: Int, drawing generator: inout TorchGenerator, in context: ExecutionContext) -> (x: Tensor, y: Tensor) {
    let numbers = generator.uniform(128).map { 2 * $0 - 1 }
    let distances = (0..<64).map { hypot(numbers[2 * $0], numbers[2 * $0 + 1]) }
    return (Tensor(numbers, shape: [64, 2]), Tensor(distances, shape: [64, 1]))
  }
}

/// What the network learns: to say the distance.
struct Distance: TrainingObjective {
  let network: Network

  func answer(to batch: (x: Tensor, y: Tensor), in recording: ExecutionContext) throws -> TrainingAnswer {
    let answer = try network(batch.x, in: recording)
    let loss = try ElementLoss.meanSquared(answer, batch.y, in: recording)
    return TrainingAnswer(loss: loss.value, gradients: [(answer, loss.gradient)])
  }
}

@main struct OwnNetwork {
  static func main() async throws {
    let context = ExecutionContext(threads: 1)
    let (network, report) = try LoadReport.load(from: RandomWeights(seed: 0), in: context) { try Network(weights: $0) }
    var generator = TorchGenerator(seed: 0)
    let trainer = try Trainer(
      Distance(network: network), on: Points(), training: TrainedParameters(report.parameters, drawing: &generator), by: AdamW(),
      schedule: LearningRateSchedule(.cosine, rate: 1e-2, steps: 1000), seed: 0)
    for try await step in trainer.steps(in: context) where step.number.isMultiple(of: 200) { print(step.number, step.loss) }
  }
}
