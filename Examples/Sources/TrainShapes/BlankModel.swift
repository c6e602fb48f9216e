import Foundation
import LatentDiffusion
import LatentDiffusionTraining

/// A small Stable Diffusion that has learnt nothing: a folder as diffusers writes it, with random weights.
struct BlankModel {
  private let vocabulary = Vocabulary(words: Scene.words)

  /// `[N, h, w, C]` of the latents of N pictures, whose sides are a quarter of theirs.
  static func latents(_ count: Int) -> Shape { [count, Scene.height / 4, Scene.width / 4, latentChannels] }

  private static let latentChannels = 8
  private static let textFeatures = 64
  /// How strongly pictures follow their captions.
  private static let guidance = 2.0
  /// How uncertain the encoder is at first, as the logarithm of the variance. An untrained one would give latents as wide as a standard normal distribution, in
  /// whose noise the decoder sees nothing.
  private static let firstLogVariance: Float = -5

  private typealias Configuration = [String: Any]

  private let index: Configuration = [
    "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1", "requires_safety_checker": false,
    "safety_checker": [NSNull(), NSNull()], "feature_extractor": [NSNull(), NSNull()], "image_encoder": [NSNull(), NSNull()],
    "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
  ]

  /// Nothing of the picture is left at the last timestep, where drawing begins. So the model learns to say the colour of a background from the caption alone.
  private let scheduler: Configuration = [
    "_class_name": "DDIMScheduler", "_diffusers_version": "0.42.1", "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear", "prediction_type": "v_prediction", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing",
    "clip_sample": false, "set_alpha_to_one": true, "steps_offset": 1,
  ]

  private var textEncoder: Configuration {
    [
      "architectures": ["CLIPTextModel"], "model_type": "clip_text_model", "vocab_size": vocabulary.count,
      "hidden_size": Self.textFeatures, "intermediate_size": 4 * Self.textFeatures, "projection_dim": Self.textFeatures,
      "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": Vocabulary.length, "hidden_act": "quick_gelu",
      "layer_norm_eps": 1e-5, "bos_token_id": vocabulary.count - 2, "eos_token_id": vocabulary.count - 1,
      "pad_token_id": vocabulary.count - 1, "dtype": "float32",
    ]
  }

  /// What programs take that are not told anything else, such as `ldm txt2img`.
  private let recommended: Configuration = [
    "steps": 20, "guidance": Self.guidance, "width": Scene.width, "height": Scene.height, "scheduler": "ddim",
  ]

  private let unet: Configuration = [
    "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.42.1", "sample_size": [Scene.height / 4, Scene.width / 4],
    "act_fn": "silu",
    "in_channels": Self.latentChannels, "out_channels": Self.latentChannels, "block_out_channels": [32, 64], "layers_per_block": 1,
    "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D"], "cross_attention_dim": Self.textFeatures, "attention_head_dim": 4,
    "norm_num_groups": 8, "norm_eps": 1e-5, "flip_sin_to_cos": true, "freq_shift": 0, "downsample_padding": 1,
  ]

  /// One group for all channels: a normalisation of few channels each would hide the colour of a picture that has only one.
  private static func autoencoder(latentScale: Double) -> Configuration {
    [
      "_class_name": "AutoencoderKL", "_diffusers_version": "0.42.1", "sample_size": Scene.width, "in_channels": 3, "out_channels": 3,
      "block_out_channels": [8, 16, 32], "layers_per_block": 1, "latent_channels": latentChannels, "norm_num_groups": 1, "act_fn": "silu",
      "down_block_types": [String](repeating: "DownEncoderBlock2D", count: 3), "mid_block_add_attention": false,
      "up_block_types": [String](repeating: "UpDecoderBlock2D", count: 3), "scaling_factor": latentScale,
    ]
  }

  /// The autoencoder's `config.json`.
  /// - Parameter latentScale: what latents are multiplied by, so that their standard deviation is about 1.
  static func autoencoderConfiguration(latentScale: Double) throws -> Data { try JSON.data(autoencoder(latentScale: latentScale)) }

  /// Writes the folder.
  /// - Parameter generator: draws the weights.
  func write(to folder: URL, drawing generator: inout TorchGenerator, in context: ExecutionContext) throws {
    try component("vae", Self.autoencoder(latentScale: 1), in: folder, drawing: &generator, context) {
      try AutoencoderKL(configuration: $0, weights: $1)
    }
    try component("text_encoder", textEncoder, weights: "model", in: folder, drawing: &generator, context) {
      try CLIPTextModel(configuration: $0, weights: $1)
    }
    try component("unet", unet, in: folder, drawing: &generator, context) { try UNet2DConditionModel(configuration: $0, weights: $1) }
    try vocabulary.write(to: folder.appending(path: "tokenizer"))
    let place = folder.appending(path: "scheduler")
    try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
    try JSON.data(scheduler).write(to: place.appending(path: "scheduler_config.json"))
    try JSON.data(index).write(to: folder.appending(path: "model_index.json"))
    try JSON.data(recommended).write(to: folder.appending(path: "generation_defaults.json"))
  }

  /// Writes a component's folder. Its parameters are those that its layers ask for.
  private func component<Component>(
    _ name: String, _ configuration: Configuration, weights stem: String = "diffusion_pytorch_model", in folder: URL,
    drawing generator: inout TorchGenerator, _ context: ExecutionContext, _ build: (Data, WeightScope) throws -> Component
  ) throws {
    let json = try JSON.data(configuration), place = folder.appending(path: name)
    let (_, report) = try LoadReport.load(from: RandomWeights(seed: 0), in: context) { try build(json, $0) }
    var tensors = TrainedParameters(report.parameters, drawing: &generator).tensors
    if let bias = tensors["quant_conv.bias"] {
      let half = bias.count / 2
      let spread = [Float](repeating: Self.firstLogVariance, count: half)
      tensors["quant_conv.bias"] = Tensor(bias.elements.prefix(half) + spread, shape: bias.shape)
    }
    try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
    try json.write(to: place.appending(path: "config.json"))
    try SafetensorsWriter.write(tensors, to: place.appending(path: stem + ".safetensors"))
  }
}
