import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing
import UNet

/// One pass of U-Nets with motion modules, module by module, against diffusers' `UNetMotionModel`.
@Suite struct MotionTests {
  static let folder = fixtures.appending(path: "motion")

  struct Case: Decodable, Sendable, CustomTestStringConvertible {
    let name: String
    let model: String
    let files: [String]
    let timestep: Float
    var testDescription: String { name }

    static func all(in folder: URL) -> [Case] {
      struct File: Decodable { let passes: [Case] }
      return (try? JSONDecoder().decode(File.self, from: Data(contentsOf: folder.appending(path: "cases.json"))).passes) ?? []
    }

    func tensors(in folder: URL) throws -> [String: Tensor] {
      try files.reduce(into: [:]) { all, file in
        all.merge(try readTensors(folder.appending(path: "reference/\(file)"))) { first, _ in first }
      }
    }
  }

  static let cases = Case.all(in: folder)

  static func load<Component: ModelComponent>(_ url: URL, _ name: String?, as type: Component.Type) throws -> Component {
    let files = try ModelFiles(url), component = try #require(name ?? files.components.first)
    let json = try #require(try files.configuration(of: component))
    let (result, report) = try LoadReport.load(from: files.weights(of: component), in: ExecutionContext()) {
      try Component(configuration: json, weights: $0)
    }
    #expect(report.unused == [])
    return result
  }

  static func unet(_ model: String, _ motion: String?) throws -> UNet2DConditionModel {
    let unet = try load(ReferenceModel(model).folder, "unet", as: UNet2DConditionModel.self)
    return try motion.map { try unet.adding(load(folder.appending(path: $0), nil, as: MotionAdapter.self)) } ?? unet
  }

  /// Tokens of `[N · P, F, C]` in the order of ours, `[N, F, P, C]`.
  private static func ordered(_ tokens: Tensor, clips: Int) -> Tensor {
    tokens.reshaped([clips, tokens.shape[0] / clips, tokens.shape[1], tokens.shape[2]]).permuted([0, 2, 1, 3]).reshaped(tokens.shape)
  }

  @Test func allCasesAreHere() { #expect(Self.cases.map(\.name) == ["v1", "v2", "v3", "xl", "deep"]) }

  @Test(
    .compares("UNetMotionModel (AnimateDiff) of every version, every block", in: .architectures, with: "diffusers"), arguments: cases)
  func equalsDiffusers(_ given: Case) throws {
    let tensors = try given.tensors(in: Self.folder)
    try Self.expect(Self.unet(given.model, given.name), toGive: tensors, at: given.timestep, given.name)
  }

  /// Compares a pass over clips with diffusers', module by module.
  static func expect(_ unet: UNet2DConditionModel, toGive reference: [String: Tensor], at timestep: Float, _ name: String) throws {
    var tensors = reference
    let latents = try #require(tensors["input.sample"]).permuted([0, 2, 3, 4, 1])
    let expected = try #require(tensors["output"]).permuted([0, 2, 3, 4, 1])
    for (name, tensor) in tensors where tensor.shape.rank == 3 && Self.ofFrames.contains(where: name.contains) {
      tensors[name] = Self.ordered(tensor, clips: latents.shape[0])
    }
    let conditioning = Conditioning(
      hiddenStates: try #require(tensors["input.encoder_hidden_states"]), pooled: tensors["input.text_embeds"],
      inputs: ["time_ids": tensors["input.time_ids"]].compactMapValues { $0 })
    let tolerance = UNetSinglePassTests.tolerance
    let comparison = ModuleComparison(tensors, tolerance: tolerance)
    // Without an observer rows are shared and parted.
    for threads in [1, 2] {
      let found = try unet.predict(latents, timestep: timestep, conditioning: conditioning, in: ExecutionContext(threads: threads))
      expectClose(found, expected, tolerance: tolerance, "output by itself")
    }
    var context = ExecutionContext()
    context.observer = { comparison.observe($0, $1) }
    expectClose(
      try unet.predict(latents, timestep: timestep, conditioning: conditioning, in: context), expected, tolerance: tolerance, "output")
    #expect(comparison.missed == [], "\(comparison.count) were compared")
    print("\(name): \(comparison.count) modules, largest difference in \(comparison.largest)")
  }

  /// Parts of the names of modules whose tokens are the frames of a pixel.
  private static let ofFrames = [".motion_modules.", ".temp_attentions.", "transformer_in."]

  /// One row of latents for two of conditioning, short cuts, and frames of clips that know nothing of those of another.
  @Test func clipsAreIndependent() throws { try Self.expectIndependentClips(Self.unet("sd1", "v2"), contextChannels: 16) }

  static func expectIndependentClips(_ unet: UNet2DConditionModel, contextChannels: Int) throws {
    let context = ExecutionContext(threads: 2)
    var generator = TorchGenerator(seed: 5)
    let latents = Tensor(generator.normal(2 * 3 * 8 * 8 * 4), shape: [2, 3, 8, 8, 4])
    let states = Tensor(generator.normal(4 * 5 * contextChannels), shape: [4, 5, contextChannels])
    let all = try unet.predict(latents, timestep: 400, conditioning: Conditioning(hiddenStates: states), in: context)
    #expect(all.shape == [4, 3, 8, 8, 4])
    for row in 0..<4 {
      let clip = latents.rows(row % 2..<row % 2 + 1), own = Conditioning(hiddenStates: states.rows(row..<row + 1))
      expectClose(
        all.rows(row..<row + 1), try unet.predict(clip, timestep: 400, conditioning: own, in: context), tolerance: 1e-5, "row \(row)")
    }
    // A cached step is whole, then reuses deep features of all frames.
    var memory = PassMemory(Shortcuts(stepCaching: StepCaching(interval: 2)))
    for _ in 0..<2 {
      let found = try unet.predict(
        latents, timestep: 400, conditioning: Conditioning(hiddenStates: states), memory: &memory, in: context)
      expectClose(found, all, tolerance: 1e-5, "with step caching")
    }
    var merging = PassMemory(Shortcuts(tokenMerging: 0.3))
    let merged = try unet.predict(
      latents, timestep: 400, conditioning: Conditioning(hiddenStates: states), memory: &merging, in: context)
    #expect(merged.isFinite && merged.elements != all.elements)
  }

  @Test func framesAreChecked() throws {
    let conditioning = Conditioning(rows: 1, contexts: [Tensor(shape: [1, 2, 16])])
    let unet = try Self.unet("sd1", "v1")
    #expect(unet.clip == ClipLength(usual: 16, most: 24))
    for shape: Shape in [[1, 8, 8, 4], [1, 25, 4, 4, 4], [1, 0, 4, 4, 4], [1, 1 << 30, 0, 4, 4]] {
      #expect(throws: ComponentError.self, "\(shape)") {
        try unet.predict(Tensor(shape: shape), timestep: 0, conditioning: conditioning, in: ExecutionContext())
      }
    }
    #expect(throws: ComponentError.self) {
      try Self.unet("sd1", nil).predict(Tensor(shape: [1, 2, 4, 4, 4]), timestep: 0, conditioning: conditioning, in: ExecutionContext())
    }
  }

  @Test func modulesOfOtherNetworksAreRefused() throws {
    for (model, motion) in [("sd1", "xl"), ("sdxl", "v1"), ("sd2", "v2"), ("tiny", "v1")] {
      #expect(throws: ComponentError.self, "\(model), \(motion)") { try Self.unet(model, motion) }
    }
  }

  @Test func configurationsAreChecked() throws {
    for json in [
      "[]", #"{"block_out_channels": []}"#, #"{"block_out_channels": [32, 9223372036854775807]}"#, #"{"motion_max_seq_length": 0}"#,
      #"{"motion_max_seq_length": 1000000}"#, #"{"motion_num_attention_heads": 321}"#, #"{"motion_num_attention_heads": [8, 8]}"#,
      #"{"motion_norm_num_groups": 7}"#, #"{"motion_norm_num_groups": 0}"#, #"{"motion_layers_per_block": [2]}"#,
      #"{"motion_transformer_layers_per_block": -1}"#, #"{"motion_transformer_layers_per_block": [[1, 1], 1, 1, 1]}"#,
      #"{"motion_mid_block_layers_per_block": 2}"#, #"{"motion_transformer_layers_per_mid_block": [1, 1]}"#, #"{"conv_in_channels": 9}"#,
    ] {
      #expect(throws: ConfigurationError.self, "\(json)") { try MotionConfiguration(json: Data(json.utf8)) }
    }
    #expect(try MotionConfiguration(json: Data("{}".utf8)).frames == 32)
  }
}
