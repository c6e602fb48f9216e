import LatentDiffusionComponents
import Foundation
import Tensor
import LatentDiffusionTestSupport
import Testing
import UNet
import LatentDiffusionWeights

/// One pass of every tiny U-Net, module by module, against diffusers.
@Suite struct UNetSinglePassTests {
  /// float32 sums of up to a few hundred products in another order differ by some 1e-6; a U-Net adds up some dozens of layers.
  static let tolerance: Float = 1e-4

  @Test(
    .compares("UNet2DConditionModel of Stable Diffusion 1, 2 and XL, every block", in: .architectures, with: "diffusers"),
    arguments: ["sd1", "sd2", "inpaint9", "edit8", "lcm", "odd", "sdxl", "refiner", "ssd", "xl-inpaint9", "xl-edit8", "tiny"].map(
      ReferenceModel.init))
  func equalsDiffusers(_ model: ReferenceModel) throws {
    struct Inputs: Decodable { let timestep: Float }
    let (inputs, tensors) = try model.pass("unet", Inputs.self)
    let files = try ModelFiles(model.folder)
    let json = try #require(try files.configuration(of: "unet"))
    var context = ExecutionContext()
    let (unet, report) = try LoadReport.load(from: files.weights(of: "unet"), in: context) {
      try UNet2DConditionModel(UNet2DConfiguration(json: json), weights: $0)
    }
    #expect(report.unused == [])
    let comparison = ModuleComparison(tensors, tolerance: Self.tolerance)
    context.observer = { comparison.observe($0, $1) }
    let conditioning = Conditioning(
      hiddenStates: try #require(tensors["input.encoder_hidden_states"]),
      pooled: tensors["input.text_embeds"],
      inputs: ["timestep_cond": tensors["input.timestep_cond"], "time_ids": tensors["input.time_ids"]].compactMapValues { $0 })
    let latents = try #require(tensors["input.sample"]).channelsLast()
    let found = try unet.predict(latents, timestep: inputs.timestep, conditioning: conditioning, in: context)
    expectClose(found, try #require(tensors["output"]).channelsLast(), tolerance: Self.tolerance, "output")
    #expect(comparison.missed == [], "\(comparison.count) were compared")
    print("\(model.name): \(comparison.count) modules, largest difference in \(comparison.largest)")
  }
}
