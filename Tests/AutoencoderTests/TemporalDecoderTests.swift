import Autoencoder
import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing

/// The autoencoder of Stable Video Diffusion, module by module, against diffusers.
@Suite struct TemporalDecoderTests {
  private static let model = ReferenceModel("tiny", in: "svd")
  private typealias NoInputs = AutoencoderSinglePassTests.NoInputs
  private static let tolerance = AutoencoderSinglePassTests.tolerance

  private static func load() throws -> AutoencoderKLTemporalDecoder {
    let files = try ModelFiles(model.folder), json = try #require(try files.configuration(of: "vae"))
    let (autoencoder, report) = try LoadReport.load(from: files.weights(of: "vae"), in: ExecutionContext()) {
      try AutoencoderKLTemporalDecoder(configuration: json, weights: $0)
    }
    #expect(report.unused == [])
    return autoencoder
  }

  @Test(.compares("AutoencoderKLTemporalDecoder (Stable Video Diffusion), every block", in: .architectures, with: "diffusers"))
  func decodesLikeDiffusers() throws {
    let tensors = try Self.model.pass("decode", NoInputs.self).tensors, autoencoder = try Self.load()
    let comparison = ModuleComparison(tensors, tolerance: Self.tolerance)
    var context = ExecutionContext()
    context.observer = { comparison.observe($0, $1) }
    let latents = try #require(tensors["input"]).channelsLast()
    let found = try autoencoder.decode(framesOfClip: latents, in: context)
    expectClose(found, try #require(tensors["output"]).channelsLast(), tolerance: Self.tolerance, "output")
    #expect(comparison.missed == [], "\(comparison.count) were compared")
    print("svd decode: \(comparison.count) modules, largest difference in \(comparison.largest)")
    // A picture is a clip of one frame, which is another result.
    let alone = try autoencoder.decode(latents, in: ExecutionContext())
    for frame in 0..<3 {
      let one = try autoencoder.decode(framesOfClip: latents.rows(frame..<frame + 1), in: ExecutionContext())
      expectClose(alone.rows(frame..<frame + 1), one, tolerance: 2e-5, "frame \(frame)")
    }
    #expect(compare(alone.elements, found.elements).error > 1e-2)
  }

  @Test(.compares("AutoencoderKLTemporalDecoder (Stable Video Diffusion), every block", in: .architectures, with: "diffusers"))
  func encodesLikeDiffusers() throws {
    let tensors = try Self.model.pass("encode", NoInputs.self).tensors
    let comparison = ModuleComparison(tensors, tolerance: Self.tolerance)
    var context = ExecutionContext()
    context.observer = { comparison.observe($0, $1) }
    let encoded = try Self.load().encode(try #require(tensors["input"]).channelsLast(), in: context)
    expectClose(encoded.mode, try #require(tensors["output"]).channelsLast(), tolerance: Self.tolerance, "mode")
    #expect(comparison.missed == [], "\(comparison.count) were compared")
  }

  /// A tile is a part of all frames: tiles that need no blending are what they are by themselves.
  @Test func tilesHaveAllFrames() throws {
    let autoencoder = try Self.load(), tiled = TiledAutoencoder(autoencoder, tiling: .tiles(AutoencoderTiles(latentSide: 4, overlap: 0)))
    var numbers = Numbers(seed: 2)
    let latents = numbers.tensor([3, 4, 8, 4]), context = ExecutionContext()
    let found = try tiled.decode(framesOfClip: latents, in: context)
    let left = latents.part(rows: 0..<4, columns: 0..<4)
    #expect(tiled.decodesClips && found.shape == [3, 32, 64, 3])
    #expect(
      found.part(rows: 0..<32, columns: 0..<32).elements == (try autoencoder.decode(framesOfClip: left, in: context)).elements)
  }

  @Test func configurationsAreChecked() throws {
    for json in [
      "[]", #"{"layers_per_block": 1}"#, #"{"layers_per_block": 3, "block_out_channels": [32]}"#,
      #"{"block_out_channels": [33], "layers_per_block": 2}"#,
      #"{"scaling_factor": 0, "layers_per_block": 2}"#, #"{"down_block_types": ["DownBlock3D"], "layers_per_block": 2}"#,
    ] {
      #expect(throws: ConfigurationError.self, "\(json)") {
        try LoadReport.load(from: RandomWeights(seed: 0), in: ExecutionContext()) {
          try AutoencoderKLTemporalDecoder(configuration: Data(json.utf8), weights: $0)
        }
      }
    }
  }
}
