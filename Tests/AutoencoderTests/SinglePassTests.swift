import Autoencoder
import LatentDiffusionComponents
import Foundation
import Tensor
import LatentDiffusionTestSupport
import Testing
import LatentDiffusionWeights

/// Both directions of every tiny autoencoder, module by module, against diffusers.
@Suite struct AutoencoderSinglePassTests {
  static let tolerance: Float = 1e-4
  static let models = ["sd1", "sd2", "inpaint9", "edit8", "lcm", "odd", "asymmetric"].map(ReferenceModel.init)
  struct NoInputs: Decodable {}

  private func load(_ model: ReferenceModel) throws -> any LatentAutoencoder {
    let isAsymmetric = model.name == "asymmetric"
    let files = try ModelFiles(isAsymmetric ? model.folder.appending(path: "vae") : model.folder)
    let json = try #require(try files.configuration(of: "vae"))
    let (autoencoder, report) = try LoadReport.load(from: files.weights(of: "vae"), in: ExecutionContext()) {
      isAsymmetric
        ? try AsymmetricAutoencoderKL(configuration: json, weights: $0)
        : try AutoencoderKL(AutoencoderKLConfiguration(json: json), weights: $0) as any LatentAutoencoder
    }
    // What would see a mask is not used.
    #expect(report.unused.filter { !$0.hasPrefix("decoder.condition_encoder.") } == [])
    return autoencoder
  }

  @Test(.compares("AutoencoderKL and AsymmetricAutoencoderKL, every block", in: .architectures, with: "diffusers"), arguments: models)
  func encodesLikeDiffusers(_ model: ReferenceModel) throws {
    let tensors = try model.pass("vae-encode", NoInputs.self).tensors
    let comparison = ModuleComparison(tensors, tolerance: Self.tolerance)
    var context = ExecutionContext()
    context.observer = { comparison.observe($0, $1) }
    let encoded = try load(model).encode(try #require(tensors["input"]).channelsLast(), in: context)
    let posterior = try #require(encoded.gaussian)
    expectClose(posterior.mean, try #require(tensors["output.mean"]).channelsLast(), tolerance: Self.tolerance, "mean")
    expectClose(posterior.logVariance, try #require(tensors["output.logvar"]).channelsLast(), tolerance: Self.tolerance, "logvar")
    #expect(comparison.missed == [], "\(comparison.count) were compared")
    print("\(model.name) encode: \(comparison.count) modules, largest difference in \(comparison.largest)")
  }

  @Test(.compares("AutoencoderKL and AsymmetricAutoencoderKL, every block", in: .architectures, with: "diffusers"), arguments: models)
  func decodesLikeDiffusers(_ model: ReferenceModel) throws {
    let tensors = try model.pass("vae-decode", NoInputs.self).tensors
    let comparison = ModuleComparison(tensors, tolerance: Self.tolerance)
    var context = ExecutionContext()
    context.observer = { comparison.observe($0, $1) }
    let found = try load(model).decode(try #require(tensors["input"]).channelsLast(), in: context)
    expectClose(found, try #require(tensors["output"]).channelsLast(), tolerance: Self.tolerance, "output")
    #expect(comparison.missed == [], "\(comparison.count) were compared")
    print("\(model.name) decode: \(comparison.count) modules, largest difference in \(comparison.largest)")
  }
}
