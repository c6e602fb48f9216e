import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import LatentDiffusionTraining
import LatentDiffusionWeights
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

  /// Kohya's names of text encoders: `LoRANetwork` of its `lora.py` and `sdxl_train_network.py`.
  @Test func textEncodersHaveKohyasNames() throws {
    let model = try DiffusionModel.load(from: ReferenceModel("sdxl").folder, in: context)
    var generator = TorchGenerator(seed: 1)
    let parts = try ["unet", "text_encoder", "text_encoder_2"].map { component in
      let labels = LowRankTargets.attention.labels(among: try model.parameters(of: component))
      return (component, TrainedLowRank(labels, rank: 2, with: &generator))
    }
    let folder = try TemporaryFolder()
    func names(_ parts: [(String, TrainedLowRank)]) throws -> Set<String> {
      let url = folder.url.appending(path: "\(parts.count).safetensors")
      try LowRankFile(parts).write(to: url, keys: .kohya)
      let reports = try model.adaptation(by: [AdapterUse(Adapter(contentsOf: url))], in: context).reports
      #expect(reports.map(\.applied) == [parts.reduce(0) { $0 + $1.1.labels.count }] && reports[0].unused.isEmpty)
      return try SafetensorsFile(url).names
    }
    let two = try names(parts)
    for name in ["lora_te1_text_model_encoder_layers_0_self_attn_q_proj", "lora_te2_text_model_encoder_layers_0_self_attn_out_proj"] {
      for ending in ["alpha", "lora_down.weight", "lora_up.weight"] { #expect(two.contains("\(name).\(ending)"), "\(name).\(ending)") }
    }
    let one = TrainedLowRank(parts[1].1.labels, rank: 2, with: &generator).tensors(.kohya, of: "text_encoder")
    #expect(one["lora_te_text_model_encoder_layers_0_self_attn_v_proj.lora_up.weight"] != nil)
  }
}
