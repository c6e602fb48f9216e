import Autoencoder
import Foundation
import Tensor
import LatentDiffusionTestSupport
import Testing
import LatentDiffusionWeights

/// Tiles against diffusers' `enable_tiling`.
@Suite struct TilingTests {
  private let tensors: [String: Tensor]
  private let tiles = AutoencoderTiles(latentSide: 8)

  init() throws { tensors = try readTensors(fixtures.appending(path: "tiles/tiles.safetensors")) }

  private func autoencoder(_ tiling: AutoencoderTiling, residency: WeightResidency = .packed) throws -> TiledAutoencoder {
    let files = try ModelFiles(ReferenceModel("sd1").folder)
    let json = try #require(try files.configuration(of: "vae"))
    let model = try LoadReport.load(from: files.weights(of: "vae"), residency: residency, in: ExecutionContext()) {
      try AutoencoderKL(AutoencoderKLConfiguration(json: json), weights: $0)
    }.component
    return TiledAutoencoder(model, tiling: tiling)
  }

  private func tensor(_ name: String) throws -> Tensor { try #require(tensors[name]).channelsLast() }

  @Test(
    .compares("Tiled autoencoders", in: .architectures, with: "diffusers"), arguments: [("latents", "decoded"), ("wide", "decoded_wide")])
  func decodesLikeDiffusers(_ latents: String, _ decoded: String) throws {
    let found = try autoencoder(.tiles(tiles)).decode(tensor(latents), in: ExecutionContext())
    expectClose(found, try tensor(decoded), tolerance: 1e-4, decoded)
  }

  @Test(.compares("Tiled autoencoders", in: .architectures, with: "diffusers")) func encodesLikeDiffusers() throws {
    let found = try autoencoder(.tiles(tiles)).encode(tensor("image"), in: ExecutionContext())
    expectClose(found.mode, try tensor("mean"), tolerance: 1e-4, "mean")
    expectClose(try #require(found.gaussian).logVariance, try tensor("logvar"), tolerance: 1e-4, "logvar")
  }

  @Test func tilesOnlyWhatIsLargerThanATile() throws {
    let context = ExecutionContext()
    let latents = try tensor("latents")
    let whole = try autoencoder(.off).decode(latents, in: context)
    #expect(try autoencoder(.automatic).decode(latents, in: context).elements == whole.elements)
    #expect(try autoencoder(.tiles(AutoencoderTiles(latentSide: 22))).decode(latents, in: context).elements == whole.elements)
    #expect(try autoencoder(.tiles(tiles)).decode(latents, in: context).elements != whole.elements)
  }

  @Test func startsByItselfAtAMillionPixels() {
    #expect(AutoencoderTiling.automatic.tiles(height: 127, width: 128, scale: 8) == nil)
    #expect(AutoencoderTiling.automatic.tiles(height: 128, width: 128, scale: 8) == AutoencoderTiles(latentSide: 64))
    #expect(AutoencoderTiling.off.tiles(height: 1024, width: 1024, scale: 8) == nil)
    #expect(AutoencoderTiles(latentSide: 64).latentStep == 48)
    #expect(AutoencoderTiles(latentSide: 1, overlap: 0.9).latentStep == 1)
    #expect(AutoencoderTiles(latentSide: 8).areaFactor(height: 6, width: 12) == 14.0 / 12)
  }

  @Test func batchesAndStreamedWeightsMakeTheSame() throws {
    let context = ExecutionContext()
    let latents = try tensor("latents")
    let one = try autoencoder(.tiles(tiles)).decode(latents, in: context)
    let two = try autoencoder(.tiles(tiles)).decode(latents.repeated(2), in: context)
    #expect(two.rows(0..<1).elements == one.elements && two.rows(1..<2).elements == one.elements)
    let streamed = try autoencoder(.tiles(tiles), residency: .streamed(above: 0))
    for _ in 0..<2 { #expect(try streamed.decode(latents, in: context).elements == one.elements) }
    let image = try tensor("image")
    let packed = try autoencoder(.tiles(tiles)).encode(image, in: context)
    #expect(try streamed.encode(image, in: context).mode.elements == packed.mode.elements)
  }
}
