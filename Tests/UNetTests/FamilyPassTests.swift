import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing
import UNet

/// One pass of the U-Nets of further families, module by module, against diffusers: classes, attention of pixels, attention to the text alone.
@Suite struct FamilyPassTests {
  /// As for the U-Nets of Stable Diffusion.
  static let tolerance: Float = 1e-4

  private struct Inputs: Decodable { let timestep: Float }

  private func compare<Network: NoisePredictor & ModelComponent>(_ name: String, as type: Network.Type) throws -> Network {
    let model = ReferenceModel(name)
    let (inputs, tensors) = try model.pass("unet", Inputs.self)
    let files = try ModelFiles(model.folder)
    let json = try #require(try files.configuration(of: "unet"))
    var context = ExecutionContext()
    let (unet, report) = try LoadReport.load(from: files.weights(of: "unet"), in: context) { try Network(configuration: json, weights: $0) }
    #expect(report.unused == [])
    let comparison = ModuleComparison(tensors, tolerance: Self.tolerance)
    let sample = try #require(tensors["input.sample"]).channelsLast()
    let conditioning = Conditioning(
      rows: sample.shape[0], contexts: [tensors["input.encoder_hidden_states"]].compactMap(\.self),
      inputs: [
        "class_labels": tensors["input.class_labels"], "timestep_cond": tensors["input.timestep_cond"],
      ].compactMapValues(\.self))
    func predict() throws -> Tensor {
      try unet.predict(sample, timestep: inputs.timestep, conditioning: conditioning, in: context)
    }
    // Without an observer rows are shared and parted.
    let expected = try #require(tensors["output"]).channelsLast()
    expectClose(try predict(), expected, tolerance: Self.tolerance, "output by itself")
    context.observer = { comparison.observe($0, $1) }
    expectClose(try predict(), expected, tolerance: Self.tolerance, "output")
    #expect(comparison.missed == [], "\(comparison.count) were compared")
    print("\(name): \(comparison.count) modules, largest difference in \(comparison.largest)")
    return unet
  }

  @Test(
    .compares(
      "UNet2DConditionModel of the depth model, the upscaler and latent diffusion, every block", in: .architectures, with: "diffusers"),
    arguments: ["depth5", "upscale7", "ldm-table", "ldm-text"]) func conditionalNetworksEqualDiffusers(_ name: String) throws
  {
    _ = try compare(name, as: UNet2DConditionModel.self)
  }

  @Test(.compares("UNet2DConditionModel of K blocks, every block", in: .architectures, with: "diffusers"))
  func networksOfKBlocksEqualDiffusers() throws {
    let unet = try compare("latent-upscaler", as: KUNet2DConditionModel.self)
    #expect(unet.sideMultiple == 4)
    let conditioning = Conditioning(
      rows: 1, contexts: [Tensor(shape: [1, 2, 16])], inputs: ["timestep_cond": Tensor(shape: [1, 144])])
    // Sides that cannot be halved, or whose half has nothing to be mirrored.
    for sides in [(8, 10), (6, 8), (4, 8)] {
      #expect(throws: ComponentError.self, "\(sides)") {
        try unet.predict(Tensor(shape: [1, sides.0, sides.1, 8]), timestep: 0, conditioning: conditioning, in: ExecutionContext())
      }
    }
    for conditioning in [
      Conditioning(rows: 1, contexts: [Tensor(shape: [1, 2, 16])]),
      Conditioning(rows: 1, contexts: [Tensor(shape: [1, 2, 8])], inputs: conditioning.inputs),
      Conditioning(rows: 1, contexts: [], inputs: conditioning.inputs),
    ] {
      #expect(throws: ComponentError.self) {
        try unet.predict(Tensor(shape: [1, 8, 8, 8]), timestep: 0, conditioning: conditioning, in: ExecutionContext())
      }
    }
    #expect(throws: ComponentError.self) { try unet.check(Shortcuts(tokenMerging: 0.5)) }
  }

  @Test(.compares("UNet2DModel, every block", in: .architectures, with: "diffusers")) func unconditionalNetworksEqualDiffusers() throws {
    #expect(try compare("ldm", as: UNet2DModel.self).classes == nil)
    let classes = try compare("ldm-class", as: UNet2DModel.self)
    #expect(classes.classes == 10)
    #expect(throws: ComponentError.self) { try classes.check(Shortcuts(tokenMerging: 0.5)) }
    let latents = Tensor(shape: [1, 8, 8, 4])
    for labels in [nil, Tensor([10]), Tensor([-1]), Tensor([0.5])] {
      let inputs = ["class_labels": labels].compactMapValues(\.self)
      #expect(throws: ComponentError.self) {
        try classes.predict(latents, timestep: 1, conditioning: Conditioning(rows: 1, inputs: inputs), in: ExecutionContext())
      }
    }
    // A text would be ignored.
    #expect(throws: ComponentError.self) {
      try classes.predict(
        latents, timestep: 1,
        conditioning: Conditioning(rows: 1, contexts: [Tensor(shape: [1, 1, 4])], inputs: ["class_labels": Tensor([1])]),
        in: ExecutionContext())
    }
  }

  @Test func configurationsOfKBlocksAreChecked() throws {
    let json = try String(contentsOf: ReferenceModel("latent-upscaler").folder.appending(path: "unet/config.json"), encoding: .utf8)
    #expect(KUNet2DConditionModel.takes(Data(json.utf8)))
    #expect(!KUNet2DConditionModel.takes(Data(#"{"down_block_types": ["DownBlock2D"]}"#.utf8)) && !KUNet2DConditionModel.takes(Data()))
    #expect(throws: ConfigurationError.self) { try UNet2DConfiguration(json: Data(json.utf8)) }
    for (key, value) in [
      ("mid_block_type", #""UNetMidBlock2D""#), ("time_embedding_type", #""positional""#), ("act_fn", #""relu""#),
      ("num_class_embeds", "3"),
      ("block_out_channels", "[]"), ("block_out_channels", "[32, 64, 31]"), ("block_out_channels", "[32, 64, 9223372036854775807]"),
      ("block_out_channels", "[32, 64, 112]"), ("attention_head_dim", "65"), ("attention_head_dim", "0"), ("layers_per_block", "[1, 1]"),
      ("norm_num_groups", "5"), ("time_embedding_dim", "63"), ("conv_in_kernel", "1000"), ("cross_attention_dim", "[16, 16, 8]"),
      ("class_embed_type", #""identity""#), ("num_attention_heads", "2"), ("norm_eps", "-1"),
      // Blocks that do not fit: a level of another width, and one that leaves nothing for the way up.
      ("block_out_channels", "[32, 64, 96]"), ("time_embedding_dim", "32"),
      ("down_block_types", #"["KDownBlock2D", "KCrossAttnDownBlock2D", "KDownBlock2D"]"#),
      ("up_block_types", #"["KCrossAttnUpBlock2D", "KUpBlock2D"]"#), ("up_block_types", #"["UpBlock2D", "UpBlock2D", "UpBlock2D"]"#),
    ] {
      var object = try #require(try JSONSerialization.jsonObject(with: Data(json.utf8)) as? [String: Any])
      object[key] = try JSONSerialization.jsonObject(with: Data(value.utf8), options: .fragmentsAllowed)
      let changed = try JSONSerialization.data(withJSONObject: object)
      #expect(throws: ConfigurationError.self, "\(key) \(value)") { try KUNet2DConfiguration(json: changed) }
    }
  }

  @Test func configurationsThatNoModelCanHaveAreRefused() {
    for json in [
      #"{"block_out_channels": [9223372036854775807], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}"#,
      #"{"attention_head_dim": 0}"#, #"{"attention_head_dim": 5}"#, #"{"attn_norm_num_groups": 5}"#, #"{"block_out_channels": []}"#,
      #"{"downsample_type": "resnet"}"#, #"{"upsample_type": "resnet"}"#, #"{"mid_block_type": "UNetMidBlock2DCrossAttn"}"#,
      #"{"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"]}"#,
      #"{"resnet_time_scale_shift": "scale_shift"}"#, #"{"time_embedding_type": "fourier"}"#, #"{"class_embed_type": "odd"}"#,
      #"{"num_class_embeds": 0}"#, #"{"attention_head_dim": -8}"#, "[]",
    ] {
      #expect(throws: ConfigurationError.self, "\(json)") { try UNet2DConfiguration(unconditionalJSON: Data(json.utf8)) }
    }
    #expect(throws: Never.self) { try UNet2DConfiguration(unconditionalJSON: Data(#"{"block_out_channels": [32, 64, 64, 64]}"#.utf8)) }
    #expect(throws: Never.self) { try UNet2DConfiguration(unconditionalJSON: Data(#"{"mid_block_type": null}"#.utf8)) }
  }
}
