import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Single files of a depth-conditioned model and of an upscaler: their configurations, and what their networks compute, are diffusers'.
@Suite struct FamilyCheckpointTests {
  private let folder = fixtures.appending(path: "weights")

  private struct Expected: Decodable { let configurations: [String: [String: JSONValue]] }

  @Test(
    .compares("Single files of the depth model and the upscaler, the U-Net", in: .files, with: "diffusers"),
    arguments: [("depth", "StableDiffusionDepth2ImgPipeline"), ("upscaler", "StableDiffusionUpscalePipeline")])
  func areDiffusers(_ name: String, _ className: String) throws {
    let files = try ModelFiles.open(folder.appending(path: "\(name).safetensors"))
    #expect(files.className == className && files.leftOver == [])
    let expected = try JSONDecoder().decode(Expected.self, from: Data(contentsOf: folder.appending(path: "\(name).json")))
    for (component, values) in expected.configurations {
      let found = try JSONValue.of(files, component)
      for (key, value) in values where !(component == "unet" && key == "only_cross_attention" && found[key] == nil) {
        #expect(found[key]?.says(value) == true, "\(component) \(key): \(String(describing: found[key]))")
      }
    }
    let reference = try SafetensorsFile(folder.appending(path: "\(name)-reference.safetensors"))
    func tensor(_ key: String) throws -> Tensor { try reference.tensor(key, shape: #require(reference.tensors[key]).shape).decoded() }
    let json = try #require(try files.configuration(of: "unet"))
    let context = ExecutionContext(threads: 2)
    let (unet, report) = try LoadReport.load(from: files.weights(of: "unet"), in: context) {
      try UNet2DConditionModel(configuration: json, weights: $0)
    }
    #expect(report.unused == [])
    let inputs = name == "upscaler" ? ["class_labels": Tensor([13])] : [:]
    let found = try unet.predict(
      tensor("latents").channelsLast(), timestep: 321, conditioning: Conditioning(hiddenStates: tensor("states"), inputs: inputs),
      in: context)
    let difference = expectClose(found.channelsFirst(), try tensor("prediction"), tolerance: 1e-4, "prediction")
    print("\(name).safetensors: prediction differs by \(difference.error)")
  }

  @Test func theUpscalersSchedulersAreItsOwn() throws {
    let files = try ModelFiles.open(folder.appending(path: "upscaler.safetensors"))
    for (component, className) in [("scheduler", "DDIMScheduler"), ("low_res_scheduler", "DDPMScheduler")] {
      let found = try JSONValue.of(files, component)
      #expect(files.className(of: component) == className)
      #expect(found["beta_start"] == .number(0.0001) && found["beta_end"] == .number(0.02))
      #expect(found["beta_schedule"] == .text("scaled_linear") && found["prediction_type"] == .text("v_prediction"))
    }
    #expect(try StableDiffusionUpscaleFamily().accessories(of: files)["low_res_scheduler"] is [NoiseLevel])
    // The depth model predicts noise, as all of version 2 but its text-to-image models do.
    let depth = try JSONValue.of(ModelFiles.open(folder.appending(path: "depth.safetensors")), "scheduler")
    #expect(depth["prediction_type"] == .text("epsilon"))
    #expect(
      try DiffusionModel.inspect(folder.appending(path: "upscaler.safetensors")).family == "Stable Diffusion 2.x upscaler, of its own size")
  }
}
