import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing
import UNet

/// One pass of the U-Net of Stable Video Diffusion, module by module, against diffusers.
@Suite struct SpatioTemporalTests {
  private struct Inputs: Decodable { let timestep: Float }
  private static let model = ReferenceModel("tiny", in: "svd")

  private static func unet() throws -> UNetSpatioTemporalConditionModel {
    let files = try ModelFiles(model.folder), json = try #require(try files.configuration(of: "unet"))
    let (unet, report) = try LoadReport.load(from: files.weights(of: "unet"), in: ExecutionContext()) {
      try UNetSpatioTemporalConditionModel(configuration: json, weights: $0)
    }
    #expect(report.unused == [])
    return unet
  }

  /// Tokens of `[N · P, F, C]` in the order of ours, `[N, F, P, C]`.
  private static func ordered(_ tokens: Tensor, clips: Int) -> Tensor {
    tokens.reshaped([clips, tokens.shape[0] / clips, tokens.shape[1], tokens.shape[2]]).permuted([0, 2, 1, 3]).reshaped(tokens.shape)
  }

  @Test(.compares("UNetSpatioTemporalConditionModel (Stable Video Diffusion), every block", in: .architectures, with: "diffusers"))
  func equalsDiffusers() throws {
    let pass = try Self.model.pass("unet", Inputs.self), timestep = pass.inputs.timestep
    var tensors = pass.tensors
    let latents = try #require(tensors["input.sample"]).permuted([0, 1, 3, 4, 2])
    let expected = try #require(tensors["output"]).permuted([0, 1, 3, 4, 2])
    for (name, tensor) in tensors {
      // Within a block that sees frames, the reference has those of a pixel in a row; the places of frames it has for each clip.
      if name.contains(".temporal_transformer_blocks."), !name.hasSuffix("blocks.0") {
        tensors[name] = Self.ordered(tensor, clips: latents.shape[0])
      } else if name.hasSuffix(".time_pos_embed") {
        tensors[name] = tensor.rows(0..<latents.shape[1])
      }
    }
    let unet = try Self.unet()
    let conditioning = Conditioning(
      hiddenStates: try #require(tensors["input.encoder_hidden_states"]),
      inputs: ["time_ids": try #require(tensors["input.added_time_ids"])])
    let tolerance = UNetSinglePassTests.tolerance, comparison = ModuleComparison(tensors, tolerance: tolerance)
    for threads in [1, 2] {
      let found = try unet.predict(latents, timestep: timestep, conditioning: conditioning, in: ExecutionContext(threads: threads))
      expectClose(found, expected, tolerance: tolerance, "output by itself")
    }
    var context = ExecutionContext()
    context.observer = { comparison.observe($0, $1) }
    let found = try unet.predict(latents, timestep: timestep, conditioning: conditioning, in: context)
    expectClose(found, expected, tolerance: tolerance, "output")
    #expect(comparison.missed == [], "\(comparison.count) were compared")
    print("svd: \(comparison.count) modules, largest difference in \(comparison.largest)")
  }

  /// Clips know nothing of one another, rows may share their latents, and a cached step repeats a whole one.
  @Test func clipsAreIndependent() throws {
    let unet = try Self.unet(), context = ExecutionContext(threads: 2)
    var numbers = Numbers(seed: 6)
    let latents = numbers.tensor([2, 3, 4, 5, 8]), states = numbers.tensor([4, 1, 16])
    let told = Tensor([6, 127, 0.02, 11, 30, 0.1, 0, 255, 0, 24, 1, 1], shape: [4, 3])
    func conditioning(_ rows: Range<Int>) -> Conditioning {
      Conditioning(hiddenStates: states.rows(rows), inputs: ["time_ids": told.rows(rows)])
    }
    let all = try unet.predict(latents, timestep: 0.5, conditioning: conditioning(0..<4), in: context)
    #expect(all.shape == [4, 3, 4, 5, 4])
    for row in 0..<4 {
      let clip = latents.rows(row % 2..<row % 2 + 1)
      let alone = try unet.predict(clip, timestep: 0.5, conditioning: conditioning(row..<row + 1), in: context)
      expectClose(all.rows(row..<row + 1), alone, tolerance: 1e-5, "row \(row)")
    }
    var memory = PassMemory(Shortcuts(stepCaching: StepCaching(interval: 2)))
    for _ in 0..<2 {
      let found = try unet.predict(latents, timestep: 0.5, conditioning: conditioning(0..<4), memory: &memory, in: context)
      expectClose(found, all, tolerance: 1e-5, "with step caching")
    }
  }

  @Test func inputsAreChecked() throws {
    let unet = try Self.unet()
    #expect(unet.clip == ClipLength(usual: 4, most: 4096) && unet.inputChannels == 8 && unet.contextChannels == 16)
    #expect(unet.declaredInputs.filter(\.isRequired) == [PredictorInput("time_ids", shape: [3])])
    let states = Tensor(shape: [1, 1, 16]), told = Tensor(shape: [1, 3])
    for (shape, inputs) in [
      ([1, 4, 4, 8], ["time_ids": told]), ([1, 0, 4, 4, 8], ["time_ids": told]), ([1, 1 << 20, 0, 4, 8], ["time_ids": told]),
      ([1, 2, 4, 4, 4], ["time_ids": told]), ([1, 2, 4, 4, 8], [:]), ([1, 2, 4, 4, 8], ["time_ids": Tensor(shape: [1, 2])]),
    ] as [(Shape, [String: Tensor])] {
      #expect(throws: ComponentError.self, "\(shape)") {
        try unet.predict(
          Tensor(shape: shape), timestep: 0, conditioning: Conditioning(hiddenStates: states, inputs: inputs), in: ExecutionContext())
      }
    }
  }

  @Test func configurationsAreChecked() throws {
    for json in [
      "[]", #"{"num_frames": 0}"#, #"{"num_frames": 1000000}"#, #"{"down_block_types": ["DownBlock2D"]}"#,
      #"{"block_out_channels": [33, 64, 64, 64]}"#,
      #"{"num_attention_heads": 7}"#, #"{"addition_time_embed_dim": 0}"#, #"{"addition_time_embed_dim": 250}"#,
      #"{"up_block_types": ["UpBlock3D", "UpBlock3D", "UpBlock3D", "UpBlock3D"]}"#, #"{"cross_attention_dim": [1, 2]}"#,
    ] {
      #expect(throws: ConfigurationError.self, "\(json)") {
        try LoadReport.load(from: RandomWeights(seed: 0), in: ExecutionContext()) {
          try UNetSpatioTemporalConditionModel(configuration: Data(json.utf8), weights: $0)
        }
      }
    }
  }
}
