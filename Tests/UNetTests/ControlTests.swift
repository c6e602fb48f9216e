import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing
import UNet

/// One pass of every tiny ControlNet and T2I-Adapter, module by module, against diffusers.
@Suite struct ControlTests {
  static let folder = fixtures.appending(path: "controls")

  private struct Pass {
    let tensors: [String: Tensor]

    init(_ name: String) throws { tensors = try readTensors(folder.appending(path: "reference/pass-\(name).safetensors")) }

    /// A picture as layers take it.
    func picture(_ name: String) throws -> Tensor { try #require(tensors[name], "\(name)").channelsLast() }

    var conditioning: Conditioning {
      get throws {
        Conditioning(
          hiddenStates: try #require(tensors["input.encoder_hidden_states"]), pooled: tensors["input.text_embeds"],
          inputs: ["time_ids": tensors["input.time_ids"]].compactMapValues { $0 })
      }
    }
  }

  private static func load<Network: ModelComponent>(_ name: String, as type: Network.Type, unused: [String] = []) throws -> Network {
    let files = try ModelFiles(folder.appending(path: name))
    let component = try #require(files.components.first), json = try #require(try files.configuration(of: component))
    let (network, report) = try LoadReport.load(from: files.weights(of: component), in: ExecutionContext()) {
      try Network(configuration: json, weights: $0)
    }
    #expect(report.unused == unused)
    return network
  }

  @Test(
    .compares("ControlNetModel, every block", in: .controls, with: "diffusers"),
    arguments: ["sd1", "sd1-bgr", "sd1-pooled", "sd2", "sdxl", "inpaint9", "original"])
  func controlNetsEqualDiffusers(_ name: String) throws {
    let pass = try Pass(name), net = try Self.load(name, as: ControlNetModel.self)
    let comparison = ModuleComparison(pass.tensors, tolerance: UNetSinglePassTests.tolerance)
    var context = ExecutionContext()
    context.observer = { comparison.observe($0, $1) }
    let features = try net.features(of: pass.picture("input.controlnet_cond"), in: context)
    var control = ControlPass(
      latents: try pass.picture("input.sample"), timestep: 321, conditioning: try pass.conditioning, features: features, weight: 0.7)
    var cache: (any Sendable)?
    var largest: Float = 0
    func compareResiduals(_ prefix: String, in context: ExecutionContext) throws {
      let found = try net.residuals(control, cache: &cache, in: context)
      for (index, skip) in found.skips.enumerated() {
        largest = max(largest, expectClose(skip, try pass.picture("\(prefix)\(index)"), tolerance: 1e-4, "\(prefix)\(index)").error)
      }
      #expect(pass.tensors["\(prefix)\(found.skips.count)"] == nil)
      largest = max(
        largest, expectClose(try #require(found.middle), try pass.picture("\(prefix)middle"), tolerance: 1e-4, "\(prefix)middle").error)
    }
    try compareResiduals("output.", in: context)
    #expect(comparison.missed == [], "\(comparison.count) were compared")
    print("\(name): \(comparison.count) modules, largest difference in \(comparison.largest); of residuals \(largest)")
    (control.weight, control.isGuessing) = (0.9, true)
    try compareResiduals("output.guess.", in: ExecutionContext())
  }

  @Test(
    .compares("T2IAdapter of every kind", in: .controls, with: "diffusers"),
    arguments: ["adapter", "adapter-grey", "adapter-xl", "adapter-light", "original-adapter", "original-adapter-xl"])
  func adaptersEqualDiffusers(_ name: String) throws {
    let pass = try Pass(name), adapter = try Self.load(name, as: T2IAdapter.self)
    let found = try adapter.features(of: pass.picture("input.controlnet_cond"), in: ExecutionContext())
    #expect(found.count == pass.tensors.count - 1)
    let errors = try found.enumerated().map { expectClose($1, try pass.picture("output.\($0)"), tolerance: 1e-4, "\($0)").error }
    print("\(name): largest difference \(errors.max() ?? 0)")
  }

  /// Latents that are shared by several texts give each row what a pass of its own gives.
  @Test(arguments: ["sd1", "sdxl"]) func rowsAreThoseOfPassesOfTheirOwn(_ name: String) throws {
    let pass = try Pass(name), net = try Self.load(name, as: ControlNetModel.self), context = ExecutionContext()
    let latents = try pass.picture("input.sample").rows(0..<1), whole = try pass.conditioning
    let features = try net.features(of: pass.picture("input.controlnet_cond").rows(0..<1), in: context)
    func residuals(_ conditioning: Conditioning) throws -> FeatureResiduals {
      var cache: (any Sendable)?
      return try net.residuals(
        ControlPass(latents: latents, timestep: 321, conditioning: conditioning, features: features), cache: &cache, in: context)
    }
    let together = try residuals(whole)
    for row in 0..<2 {
      let own = try residuals(
        Conditioning(
          rows: 1, contexts: whole.contexts.map { $0.rows(row..<row + 1) }, pooled: whole.pooled?.rows(row..<row + 1),
          inputs: whole.inputs.mapValues { $0.rows(row..<row + 1) }))
      for (found, expected) in zip(together.skips + [together.middle].compactMap(\.self), own.skips + [own.middle].compactMap(\.self)) {
        #expect(found.rows(row..<row + 1).elements == expected.elements)
      }
    }
  }

  /// What does not fit is an error, not a trap.
  @Test func shapesAreChecked() throws {
    let pass = try Pass("sd1"), net = try Self.load("sd1", as: ControlNetModel.self), context = ExecutionContext()
    let adapter = try Self.load("adapter", as: T2IAdapter.self)
    let good = ControlPass(
      latents: try pass.picture("input.sample"), timestep: 321, conditioning: try pass.conditioning,
      features: try net.features(of: pass.picture("input.controlnet_cond"), in: context))
    func refuses(_ change: (inout ControlPass) -> Void) {
      var control = good
      change(&control)
      var cache: (any Sendable)?
      #expect(throws: ComponentError.self) { _ = try net.residuals(control, cache: &cache, in: context) }
    }
    refuses { $0.latents = Tensor(shape: [2, 4, 6, 3]) }
    refuses { $0.latents = Tensor(shape: [2, 8, 6, 4]) }
    refuses { $0.latents = Tensor(shape: [0, 4, 6, 4]) }
    refuses { $0.features = [] }
    refuses { $0.features = [Tensor(shape: [2, 4, 6, 9])] }
    refuses { $0.conditioning = Conditioning(rows: 2) }
    refuses { $0.conditioning = Conditioning(hiddenStates: Tensor(shape: [3, 7, 16])) }
    refuses { $0.conditioning = Conditioning(hiddenStates: Tensor(shape: [2, 7, 15])) }
    for shape: Shape in [[1, 8, 8, 4], [8, 8, 3], [1, 0, 8, 3]] {
      #expect(throws: ComponentError.self) { _ = try net.features(of: Tensor(shape: shape), in: context) }
      #expect(throws: ComponentError.self) { _ = try adapter.features(of: Tensor(shape: shape), in: context) }
    }
    #expect(throws: ComponentError.indivisibleSide(component: "The T2I-Adapter", side: 6, multiple: 4)) {
      _ = try adapter.features(of: Tensor(shape: [1, 8, 6, 3]), in: context)
    }
    let files = try ModelFiles(ReferenceModel("sd1").folder)
    let json = try #require(try files.configuration(of: "unet"))
    let unet = try LoadReport.load(from: files.weights(of: "unet"), in: context) {
      try UNet2DConditionModel(UNet2DConfiguration(json: json), weights: $0)
    }.component
    var conditioning = try pass.conditioning
    let said = Tensor(shape: [2, 4, 6, 8])
    for residuals in [
      FeatureResiduals(skips: [said]), FeatureResiduals(middle: said), FeatureResiduals(middle: Tensor(shape: [])),
      FeatureResiduals(levels: [Tensor(shape: [1, 4, 6, 8])]), FeatureResiduals(levels: Array(repeating: said, count: 5)),
    ] {
      conditioning.residuals = residuals
      #expect(throws: ComponentError.self) { _ = try unet.predict(good.latents, timestep: 1, conditioning: conditioning, in: context) }
    }
  }

  /// Values of a configuration that make no network, or none that is known.
  @Test(arguments: [
    #""controlnet_conditioning_channel_order": "rbg""#, #""conditioning_channels": 0"#, #""conditioning_embedding_out_channels": []"#,
    #""addition_embed_type": "text""#, #""conditioning_embedding_out_channels": [-1]"#, #""global_pool_conditions": 3"#,
  ]) func badConfigurations(_ entry: String) {
    #expect(throws: ConfigurationError.self) { _ = try ControlNetConfiguration(json: Data("{\(entry)}".utf8)) }
  }

  /// A ControlNet has no way up that could attend: a level without attention may have fewer channels than heads, as in diffusers.
  @Test func levelsWithoutAttentionNameAnyHeads() {
    let json = #"{"block_out_channels": [4, 8], "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"], "norm_num_groups": 1}"#
    #expect(throws: Never.self) { _ = try ControlNetConfiguration(json: Data(json.utf8)) }
  }

  @Test(arguments: [
    #""adapter_type": "other""#, #""channels": []"#, #""channels": [0]"#, #""downscale_factor": 0"#, #""downscale_factor": 100000"#,
    #""in_channels": -3"#, #""adapter_type": "light_adapter", "channels": [2]"#, #""num_res_blocks": 9999999"#,
  ]) func badAdapters(_ entry: String) {
    #expect(throws: ConfigurationError.self) {
      _ = try LoadReport.load(from: WeightTable([:]), in: ExecutionContext()) {
        try T2IAdapter(configuration: Data("{\(entry)}".utf8), weights: $0)
      }
    }
  }
}
