import Autoencoder
import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing

/// Autoencoders whose latents are no distribution, `AutoencoderTiny` and `VQModel`, module by module, against diffusers.
@Suite struct PlainLatentsTests {
  static let tolerance: Float = 1e-4
  static let models = ["taesd", "taesd4", "vq"].map(ReferenceModel.init)
  struct NoInputs: Decodable {}

  private func load(_ model: ReferenceModel) throws -> any LatentAutoencoder {
    let files = try ModelFiles(model.folder.appending(path: "vae"))
    let json = try #require(try files.configuration(of: "vae"))
    let isTiny = files.className(of: "vae") == "AutoencoderTiny"
    let (autoencoder, report) = try LoadReport.load(from: files.weights(of: "vae"), in: ExecutionContext()) {
      isTiny
        ? try AutoencoderTiny(configuration: json, weights: $0) : try VQModel(configuration: json, weights: $0) as any LatentAutoencoder
    }
    #expect(report.unused == [])
    return autoencoder
  }

  private func pass(
    _ model: ReferenceModel, _ name: String, _ run: (any LatentAutoencoder, Tensor, ExecutionContext) throws -> Tensor
  ) throws {
    let tensors = try model.pass("vae-\(name)", NoInputs.self).tensors
    let comparison = ModuleComparison(tensors, tolerance: Self.tolerance)
    var context = ExecutionContext()
    context.observer = { comparison.observe($0, $1) }
    let found = try run(try load(model), #require(tensors["input"]).channelsLast(), context)
    let difference = expectClose(found, try #require(tensors["output"]).channelsLast(), tolerance: Self.tolerance, "output")
    #expect(comparison.missed == [] && comparison.count >= 5, "\(comparison.count) were compared")
    print("\(model.name) \(name): \(comparison.count) modules, largest difference in \(comparison.largest), result \(difference.error)")
  }

  @Test(.compares("AutoencoderTiny and VQModel, every block", in: .architectures, with: "diffusers"), arguments: models)
  func encodesLikeDiffusers(_ model: ReferenceModel) throws {
    try pass(model, "encode") {
      let encoded = try $0.checkedEncode($1, in: $2)
      #expect(encoded.gaussian == nil)
      var noise: any NoiseSource = TorchGenerator(seed: 0)
      #expect(encoded.sample(drawing: &noise).elements == encoded.mode.elements)
      var untouched: any NoiseSource = TorchGenerator(seed: 0)
      #expect(noise.normal(4) == untouched.normal(4), "nothing is drawn")
      return encoded.mode
    }
  }

  @Test(.compares("AutoencoderTiny and VQModel, every block", in: .architectures, with: "diffusers"), arguments: models)
  func decodesLikeDiffusers(_ model: ReferenceModel) throws {
    try pass(model, "decode") { try $0.checkedDecode($1, in: $2) }
  }

  /// Tiles that overlap show no seam that is larger than what a border costs.
  @Test(arguments: models) func tilesAreBlended(_ model: ReferenceModel) throws {
    let autoencoder = try load(model), context = ExecutionContext()
    var numbers = Numbers(seed: 3)
    let latents = numbers.tensor([1, 12, 10, autoencoder.latentChannels])
    let whole = try autoencoder.decode(latents, in: context)
    let tiled = TiledAutoencoder(autoencoder, tiling: .tiles(AutoencoderTiles(latentSide: 8, overlap: 0.5)))
    let decoded = try tiled.decode(latents, in: context)
    #expect(decoded.shape == whole.shape && decoded.elements != whole.elements)
    let far = compare(decoded.elements, whole.elements)
    #expect(far.error < 3, "\(far)")
    #expect(try tiled.encode(whole.clamped(to: -1...1), in: context).gaussian == nil)
  }

  @Test func codesAreNotQuantisedIfAskedNotTo() throws {
    let model = try #require(try load(ReferenceModel("vq")) as? VQModel)
    var numbers = Numbers(seed: 4)
    let latents = numbers.tensor([1, 4, 4, 4]), context = ExecutionContext()
    let (plain, quantised) = (
      try model.decode(latents, quantizing: false, in: context), try model.decode(latents, quantizing: true, in: context)
    )
    #expect(plain.elements != quantised.elements)
    #expect(try model.decode(latents, in: context).elements == quantised.elements)
  }

  @Test(arguments: [
    ("AutoencoderTiny", #"{"act_fn": "mish"}"#, "act_fn"), ("AutoencoderTiny", #"{"upsample_fn": "bilinear"}"#, "upsample_fn"),
    ("AutoencoderTiny", #"{"in_channels": 4}"#, "in_channels"), ("AutoencoderTiny", #"{"out_channels": 4}"#, "out_channels"),
    ("AutoencoderTiny", #"{"num_encoder_blocks": [1, 3]}"#, "encoder_block_out_channels"),
    ("AutoencoderTiny", #"{"num_decoder_blocks": [3, 3, -3, 1]}"#, "num_decoder_blocks"),
    ("AutoencoderTiny", #"{"decoder_block_out_channels": [64, 32, 64, 64]}"#, "decoder_block_out_channels"),
    ("AutoencoderTiny", #"{"encoder_block_out_channels": [], "num_encoder_blocks": []}"#, "encoder_block_out_channels"),
    ("AutoencoderTiny", #"{"upsampling_scaling_factor": 4}"#, "upsampling_scaling_factor"),
    ("AutoencoderTiny", #"{"upsampling_scaling_factor": 9000000000000000000}"#, "upsampling_scaling_factor"),
    ("AutoencoderTiny", #"{"scaling_factor": 0}"#, "scaling_factor"), ("AutoencoderTiny", #"{"latent_channels": 0}"#, "latent_channels"),
    ("VQModel", #"{"norm_type": "spatial"}"#, "norm_type"), ("VQModel", #"{"lookup_from_codebook": true}"#, "lookup_from_codebook"),
    ("VQModel", #"{"num_vq_embeddings": 0}"#, "num_vq_embeddings"), ("VQModel", #"{"vq_embed_dim": -1}"#, "vq_embed_dim"),
    ("VQModel", #"{"down_block_types": ["DownBlock2D"]}"#, "down_block_types"),
    ("VQModel", #"{"up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D"]}"#, "up_block_types"),
    ("VQModel", #"{"scaling_factor": 0}"#, "scaling_factor"), ("VQModel", #"{"norm_num_groups": 30}"#, "norm_num_groups"),
  ])
  func refusesConfigurations(_ component: String, _ json: String, _ key: String) throws {
    let error = #expect(throws: ConfigurationError.self) {
      if component == "VQModel" {
        _ = try VQModelConfiguration(json: Data(json.utf8))
      } else {
        _ = try AutoencoderTinyConfiguration(json: Data(json.utf8))
      }
    }
    #expect(error?.description.contains(component) == true && error?.description.contains(key) == true, "\(String(describing: error))")
  }
}
