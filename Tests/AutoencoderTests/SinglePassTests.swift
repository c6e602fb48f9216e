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
    #expect(report.unused == [])
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

  /// Decoding is shown what is kept of a picture, module by module; in tiles, too.
  @Test func decodesBesideWhatIsKept() throws {
    let model = ReferenceModel("asymmetric")
    let tensors = try model.pass("vae-decode-masked", NoInputs.self).tensors
    func tensor(_ name: String) throws -> Tensor { try #require(tensors[name]).channelsLast() }
    let comparison = ModuleComparison(tensors, tolerance: Self.tolerance)
    var context = ExecutionContext()
    context.observer = { comparison.observe($0, $1) }
    let (latents, kept) = (try tensor("input"), KeptPicture(try tensor("input.image"), new: try tensor("input.mask")))
    let autoencoder = try load(model)
    #expect(autoencoder.decodesKeptPictures)
    let found = try autoencoder.decode(latents, keeping: kept, in: context)
    expectClose(found, try tensor("output"), tolerance: Self.tolerance, "output")
    #expect(comparison.missed == [], "\(comparison.count) were compared")
    print("\(model.name) masked decode: \(comparison.count) modules, largest difference in \(comparison.largest)")
    // Tiles of the whole are the whole, and of a tile are seen its own latents and its own part of the picture.
    context.observer = nil
    let whole = TiledAutoencoder(autoencoder, tiling: .tiles(AutoencoderTiles(latentSide: 6)))
    #expect(try whole.decode(latents, keeping: kept, in: context).elements == found.elements)
    let tiled = TiledAutoencoder(autoencoder, tiling: .tiles(AutoencoderTiles(latentSide: 4, overlap: 0)))
    let part = KeptPicture(kept.image.part(rows: 0..<16, columns: 16..<24), new: kept.new.part(rows: 0..<16, columns: 16..<24))
    let right = try autoencoder.decode(latents.part(rows: 0..<4, columns: 4..<6), keeping: part, in: context)
    #expect(try tiled.decode(latents, keeping: kept, in: context).part(rows: 0..<16, columns: 16..<24).elements == right.elements)
    for wrong in [KeptPicture(part.image, new: kept.new), KeptPicture(kept.image, new: part.new)] {
      #expect(throws: ComponentError.self) { try autoencoder.decode(latents, keeping: wrong, in: context) }
    }
  }
}
