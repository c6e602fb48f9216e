import EmojiModel
import Foundation
import LatentDiffusion

// A picture by the embedded model, with a scheduler and an autoencoder of another package.
let model = try StableDiffusion.load(from: EmojiModel.folder())

func picture(of pipeline: DiffusionPipeline) async throws -> Tensor {
  try await pipeline.images(for: model.request("a red apple", seed: 0))[0].image
}

/// The correlation of two pictures.
func likeness(_ a: Tensor, _ b: Tensor) -> Float {
  func centered(_ values: [Float]) -> [Float] {
    let mean = values.reduce(0, +) / Float(values.count)
    return values.map { $0 - mean }
  }
  let (x, y) = (centered(a.elements), centered(b.elements))
  func product(_ a: [Float], _ b: [Float]) -> Float { zip(a, b).reduce(0) { $0 + $1.0 * $1.1 } }
  return product(x, y) / (product(x, x) * product(y, y)).squareRoot()
}

let usual = try await picture(of: model.pipeline)
let own = DiffusionPipeline(
  predictor: model.pipeline.predictor, autoencoder: OwnAutoencoder(inner: model.pipeline.autoencoder),
  conditioner: model.pipeline.conditioner
) { OwnScheduler(steps: $0) }
let mirrored = try await picture(of: own)

let (same, opposite) = (likeness(mirrored.mirrored, usual), likeness(mirrored, usual))
let checks = [
  ("a picture of the same size", mirrored.shape == usual.shape),
  ("another scheduler draws the same apple: likeness \(same)", same > 0.9),
  ("and the autoencoder mirrors it: likeness unmirrored \(opposite)", same > opposite + 0.01),
]
for (what, isTrue) in checks { print(isTrue ? "passed:" : "FAILED:", what) }

// A network of this package's own is counted by the same engine, without being computed.
let network = try LoadReport.load(from: RandomWeights(seed: 1), in: ExecutionContext()) { try OwnNetwork(weights: $0) }.component
let engine = CountingEngine(WorkCounter(), threads: 2)
let states = Conditioning(hiddenStates: engine.input([2, 1, 1]))
let counted = try network.predict(engine.input([2, 64, 48, 4]), timestep: 1, conditioning: states, in: engine.context)
let isCounted =
  counted.shape == [2, 64, 48, 4] && engine.counter.operations == Double(2 * 64 * 48 * OwnNetwork.operations)
  && engine.counter.peakBytes > 2 * 64 * 48 * 128 * 4
print(
  isCounted ? "passed:" : "FAILED:",
  "a network of its own is counted: \(engine.counter.operations) operations, \(engine.counter.peakBytes) bytes at once")
