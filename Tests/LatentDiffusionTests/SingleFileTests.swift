import Foundation
import LatentDiffusion
import TestSupport
import Testing

/// The networks of a single file with the original keys compute what diffusers' compute, from the derived configurations alone.
@Suite struct SingleFileTests {
  @Test(arguments: ["sd1", "sd2"]) func networksAgreeWithDiffusers(_ name: String) throws {
    let folder = fixtures.appending(path: "weights")
    let files = try ModelFiles.open(folder.appending(path: "\(name).safetensors"))
    let reference = try SafetensorsFile(folder.appending(path: "\(name)-reference.safetensors"))
    let context = ExecutionContext(threads: 2)
    func expected(_ key: String) throws -> Tensor {
      try reference.tensor(key, shape: #require(reference.tensors[key]).shape).decoded()
    }
    func load<Network>(_ component: String, _ build: (Data, WeightScope) throws -> Network) throws -> Network {
      let json = try #require(try files.configuration(of: component))
      let (network, report) = try LoadReport.load(from: files.weights(of: component), in: context) { try build(json, $0) }
      #expect(report.unused.isEmpty, "\(component)")
      return network
    }

    let text = try load("text_encoder") { try CLIPTextModel(CLIPTextShape(json: $0), weights: $1) }
    let ids = try expected("ids").elements.map { Int($0) }
    let states = try text([ids], in: context).lastHiddenState
    expectClose(states, try expected("states"), tolerance: 1e-4, "states")

    let unet = try load("unet") { try UNet2DConditionModel(UNet2DShape(json: $0), weights: $1) }
    let latents = try expected("latents").channelsLast()
    let prediction = try unet.predict(latents, timestep: 321, conditioning: Conditioning(hiddenStates: states), in: context)
    expectClose(prediction.channelsFirst(), try expected("prediction"), tolerance: 1e-4, "prediction")

    let autoencoder = try load("vae") { try AutoencoderKL(AutoencoderKLShape(json: $0), weights: $1) }
    let picture = try autoencoder.decode(latents, in: context)
    expectClose(picture.channelsFirst(), try expected("picture"), tolerance: 1e-4, "picture")
    let posterior = try autoencoder.encode(expected("picture").channelsLast(), in: context)
    let mean = try expected("moments").channelsLast().channels(0..<4)
    expectClose(posterior.mean, mean, tolerance: 1e-4, "mean")
  }
}
