import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import LatentDiffusionTraining
import Testing

/// Low-rank changes that were trained, written and loaded again.
@Suite struct LowRankFileTests {
  private let context = ExecutionContext(threads: 2)

  /// A prediction with the loaded file equals that in training, for names of both kinds, with an alpha that is not the rank.
  @Test(arguments: TrainedLowRank.Keys.allCases) func loadsAsItTrained(keys: TrainedLowRank.Keys) throws {
    let model = try DiffusionModel.load(from: ReferenceModel("sd1").folder, in: context)
    let labels = try #require(model.reports["unet"]).parameters.filter { label in
      ["to_q", "to_out.0", "conv1", "ff.net.0.proj", "proj_in"].contains { label.name.hasSuffix(".\($0).weight") }
    }
    var generator = TorchGenerator(seed: 5)
    var changes = TrainedLowRank(labels, rank: 3, alpha: 4.5, with: &generator)
    changes.values = changes.values.map { Tensor(generator.normal($0.count).map { 0.2 * $0 }, shape: $0.shape) }
    let url = FileManager.default.temporaryDirectory.appending(path: "\(UUID()).safetensors")
    defer { try? FileManager.default.removeItem(at: url) }
    try changes.write(to: url, keys: keys)

    let (loaded, reports) = try model.adaptation(by: [AdapterUse(Adapter(contentsOf: url))], in: context)
    #expect(reports.map(\.applied) == [labels.count])
    let placed = try changes.placed(in: Adaptation.Model(), on: GradientTape(), in: context)
    let latents = Tensor(generator.normal(2 * 8 * 8 * 4), shape: [2, 8, 8, 4])
    let text = Tensor(generator.normal(2 * 5 * 16), shape: [2, 5, 16])
    let predictions: [Tensor] = try [Adaptation?.none, loaded, placed.adaptation].map { adaptation in
      var context = context
      context.adaptation = adaptation
      return try model.pipeline.predictor.predict(latents, timestep: 400, conditioning: Conditioning(hiddenStates: text), in: context)
    }
    expectClose(predictions[1], predictions[2], tolerance: 1e-5)
    #expect(compare(predictions[0].elements, predictions[1].elements).error > 0.01)
  }
}
