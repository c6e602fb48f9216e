import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing
import UNet

/// One pass of U-Nets for clips, module by module, against diffusers' `UNet3DConditionModel`.
@Suite struct UNet3DTests {
  static let folder = fixtures.appending(path: "text-to-video")
  static let cases = MotionTests.Case.all(in: folder)

  static func unet(_ name: String) throws -> UNet2DConditionModel {
    try MotionTests.load(folder.appending(path: "\(name)/unet"), nil, as: UNet2DConditionModel.self)
  }

  @Test func allCasesAreHere() { #expect(Self.cases.map(\.name) == ["modelscope", "odd"]) }

  @Test(.compares("UNet3DConditionModel (text-to-video), every block", in: .architectures, with: "diffusers"), arguments: cases)
  func equalsDiffusers(_ given: MotionTests.Case) throws {
    try MotionTests.expect(Self.unet(given.model), toGive: given.tensors(in: Self.folder), at: given.timestep, given.name)
  }

  /// One row of latents for two of conditioning, short cuts, and frames of clips that know nothing of those of another.
  @Test func clipsAreIndependent() throws { try MotionTests.expectIndependentClips(Self.unet("modelscope"), contextChannels: 24) }

  @Test func framesAreChecked() throws {
    let conditioning = Conditioning(rows: 1, contexts: [Tensor(shape: [1, 2, 24])])
    let unet = try Self.unet("modelscope")
    #expect(unet.clip == ClipLength(usual: 16, most: .max, stepsByFrame: true))
    for shape: Shape in [[1, 8, 8, 4], [1, 0, 4, 4, 4], [1, 2, 4, 4, 9]] {
      #expect(throws: ComponentError.self, "\(shape)") {
        try unet.predict(Tensor(shape: shape), timestep: 0, conditioning: conditioning, in: ExecutionContext())
      }
    }
  }

  @Test func whatIsAddedToNetworksForPicturesIsRefused() throws {
    let motion = try MotionTests.load(MotionTests.folder.appending(path: "deep"), nil, as: MotionAdapter.self)
    let error = #expect(throws: ComponentError.self) { try Self.unet("modelscope").adding(motion) }
    #expect("\(error as Any)".contains("layers for the frames of clips"), "\(error as Any)")
  }

  @Test func configurationsAreChecked() throws {
    func json(_ more: String) -> Data { Data(#"{"_class_name": "UNet3DConditionModel"\#(more)}"#.utf8) }
    let usual = try UNet2DConfiguration(json: json(""))
    #expect(usual.drawsClips && usual.contextChannels == 1024)
    for more in [
      #""num_attention_heads": 8"#, #""time_cond_proj_dim": 256"#, #""attention_head_dim": [64, 64, 64, 64]"#, #""attention_head_dim": 0"#,
      #""attention_head_dim": 48"#, #""attention_head_dim": 9223372036854775807"#, #""block_out_channels": []"#,
      #""block_out_channels": [320, -640]"#, #""norm_num_groups": 7"#, #""act_fn": "gelu""#,
      #""down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"]"#,
      #""down_block_types": ["CrossAttnDownBlockMotion", "DownBlock3D", "DownBlock3D", "DownBlock3D"]"#,
    ] {
      #expect(throws: ConfigurationError.self, "\(more)") { try UNet2DConfiguration(json: json(", " + more)) }
    }
    // Blocks for clips in a network for pictures.
    #expect(throws: ConfigurationError.self) {
      try UNet2DConfiguration(
        json: Data(#"{"_class_name": "UNet2DConditionModel", "down_block_types": ["DownBlock3D"], "block_out_channels": [32]}"#.utf8))
    }
  }
}
