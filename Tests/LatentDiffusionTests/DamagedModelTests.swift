import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Models that are not what they should be end in an error of a known type that says what is wrong.
@Suite struct DamagedModelTests {
  private static let unet = "unet/diffusion_pytorch_model.safetensors"
  private static let key = "down_blocks.0.resnets.0.conv1.weight"

  /// A kind of damage and the words that the error must have.
  struct Damage: Sendable, CustomTestStringConvertible {
    let name: String
    let words: String
    let apply: @Sendable (ModelCopy) throws -> Void

    init(_ name: String, _ words: String, _ apply: @escaping @Sendable (ModelCopy) throws -> Void) {
      (self.name, self.words, self.apply) = (name, words, apply)
    }

    var testDescription: String { name }
  }

  static let damages: [Damage] = [
    Damage("no folder", "There is no model at") { try FileManager.default.removeItem(at: $0.folder) },
    Damage("no index", "no model_index.json") { try $0.remove("model_index.json") },
    Damage("index of noise", "model_index.json cannot be used") { try $0.write("{\"_class_name", to: "model_index.json") },
    Damage("index that is a list", "model_index.json cannot be used") { try $0.write("[1]", to: "model_index.json") },
    Damage("no component", "unet is missing") { try $0.remove("unet") },
    Damage("component not in the index", "has no vae") { try $0.set("vae", nil, in: "model_index.json") },
    Damage("no configuration", "unet cannot be read: there is no config.json") { try $0.remove("unet/config.json") },
    Damage("configuration of noise", "no JSON object") { try $0.write("\u{0}\u{1}", to: "vae/config.json") },
    Damage("no weights", "has no weights") { try $0.remove(unet) },
    Damage("a pickle that runs a program", "asks to call os.system") {
      try $0.remove(unet)
      try $0.write("cos\nsystem\n(S'true'\ntR.", to: "unet/diffusion_pytorch_model.bin")
    },
    Damage("no pickle", "damaged or no file of PyTorch") {
      try $0.remove(unet)
      try $0.write("x", to: "unet/diffusion_pytorch_model.bin")
    },
    Damage("empty weights", "has only 0 bytes") { try $0.write("", to: unet) },
    Damage("half the weights", "is truncated") { try $0.edit(unet) { $0 = $0.prefix($0.count / 2) } },
    Damage("one byte less", "is truncated") { try $0.edit(unet) { $0.removeLast() } },
    Damage("a header longer than the file", "announces a header") { try $0.edit(unet) { $0[3] = 0x7F } },
    Damage("a header of noise", "damaged header") { try $0.edit(unet) { $0[8] = 0x00 } },
    Damage("a missing key", "The tensor \(key) is missing") { try $0.editTensors(unet) { $0[key] = nil } },
    Damage("a wrong shape", "The tensor \(key) has shape") { try $0.editTensors(unet) { $0[key] = Tensor(shape: [8, 8, 3, 5]) } },
    Damage("not a number", "The tensor \(key) holds values") {
      try $0.editTensors(unet) { $0[key] = $0[key].map { $0.map { $0 > 0 ? $0 : .nan } } }
    },
    Damage("infinite", "The tensor post_quant_conv.bias holds values") {
      try $0.editTensors("vae/diffusion_pytorch_model.safetensors") { $0["post_quant_conv.bias"] = Tensor([1, .infinity, 0, 0]) }
    },
    Damage("no scheduler", "has no scheduler") { try $0.set("scheduler", nil, in: "model_index.json") },
    Damage("no scheduler's configuration", "no scheduler_config.json") { try $0.remove("scheduler/scheduler_config.json") },
    Damage("unknown scheduler", "Magic, cannot be used. There is no scheduler named") {
      try $0.set("scheduler", "[\"diffusers\", \"Magic\"]", in: "model_index.json")
    },
    Damage("another pipeline", "is a Flux model (FluxPipeline), which is not supported") {
      try $0.set("_class_name", "\"FluxPipeline\"", in: "model_index.json")
    },
    Damage("an unknown pipeline", "is a model for MagicPipeline") {
      try $0.set("_class_name", "\"MagicPipeline\"", in: "model_index.json")
    },
    Damage("another autoencoder", "whose vae is a consistency decoder") {
      try $0.set("vae", "[\"diffusers\", \"ConsistencyDecoderVAE\"]", in: "model_index.json")
    },
    Damage("a Git LFS pointer", "is a Git LFS pointer") { try $0.write("version https://git-lfs.github.com/spec/v1\n", to: unet) },
    Damage("no vocabulary", "vocab.json is missing") { try $0.remove("tokenizer/vocab.json") },
    Damage("vocabulary of noise", "vocabulary") { try $0.write("{\"a\": -1}", to: "tokenizer/vocab.json") },
    Damage("merges of another vocabulary", "merges") { try $0.write("#version\nqq zz</w>\n", to: "tokenizer/merges.txt") },
    Damage("a tokenizer of longer texts", "1 to 24 tokens, but was given 77") {
      try $0.set("model_max_length", "77", in: "tokenizer/tokenizer_config.json")
    },
    Damage("a tokenizer of more words", "do not belong together") {
      try $0.set("vocab_size", "800", in: "text_encoder/config.json")
      try $0.editTensors("text_encoder/model.safetensors") {
        $0["embeddings.token_embedding.weight"] = $0["embeddings.token_embedding.weight"]?.rows(0..<800)
      }
    },
    Damage("another model's text encoder", "bad cross_attention_dim") { try $0.replace("text_encoder", with: "odd") },
    Damage("another model's U-Net", "cross_attention_dim") { try $0.replace("unet", with: "odd") },
    Damage("another model's configuration", "The tensor") {
      try $0.remove("unet/config.json")
      try FileManager.default.copyItem(
        at: ReferenceModel("sd2").folder.appending(path: "unet/config.json"), to: $0.folder.appending(path: "unet/config.json"))
    },
  ]

  @Test(arguments: damages) func saysWhatIsWrong(_ damage: Damage) throws {
    let model = try ModelCopy()
    try damage.apply(model)
    let sentence = try sentence(of: model)
    print("\(damage.name): \(sentence.replacing(model.folder.path(percentEncoded: false), with: "MODEL"))")
    #expect(sentence.contains(damage.words))
  }

  /// Values that no model has, in every key that decides how much is allocated or how far something runs.
  static let hostile: [(file: String, keys: [String], values: [String])] = [
    (
      "unet/config.json", ["block_out_channels"], ["[]", "[0]", "[-8, 8, 12]", "[8, 8]", "[8, 8, 1099511627776]", "\"8\"", "[8, null, 12]"]
    ),
    ("unet/config.json", ["down_block_types", "up_block_types"], ["[]", "[\"DownBlock2D\"]", "[\"A\", \"B\", \"C\"]", "3"]),
    (
      "unet/config.json",
      ["in_channels", "out_channels", "layers_per_block", "norm_num_groups", "cross_attention_dim", "attention_head_dim"],
      ["0", "-1", "9223372036854775807", "1e300", "3.5", "\"four\"", "[1, 2]", "{}"]
    ),
    ("unet/config.json", ["sample_size"], ["0", "-1", "9223372036854775807", "\"four\"", "{}"]),
    ("text_encoder/config.json", ["layer_norm_eps"], ["-1", "\"x\""]),
    ("unet/config.json", ["norm_eps"], ["-1", "\"NaN\"", "1e999"]),
    ("unet/config.json", ["act_fn", "mid_block_type", "addition_embed_type", "class_embed_type"], ["\"magic\"", "7"]),
    ("vae/config.json", ["block_out_channels"], ["[]", "[0, 8, 16]", "[-1, 8, 16]", "[8, 8]", "[8, 8, 9007199254740993]"]),
    (
      "vae/config.json", ["latent_channels", "layers_per_block", "norm_num_groups", "in_channels"],
      ["0", "-1", "9223372036854775807", "1e300", "\"four\""]
    ),
    ("vae/config.json", ["scaling_factor"], ["0", "1e999", "\"x\""]),
    (
      "text_encoder/config.json",
      ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings"],
      ["0", "-1", "9223372036854775807", "1048577", "1e300", "\"four\"", "7"]
    ),
    ("text_encoder/config.json", ["hidden_act"], ["\"magic\"", "1"]),
    (
      "scheduler/scheduler_config.json", ["num_train_timesteps"], ["0", "-1", "9223372036854775807", "1e300", "\"four\""]
    ),
    ("scheduler/scheduler_config.json", ["beta_start", "beta_end"], ["-1", "2", "1e999", "\"x\""]),
    ("scheduler/scheduler_config.json", ["beta_schedule", "prediction_type", "timestep_spacing"], ["\"magic\"", "1"]),
    ("tokenizer/tokenizer_config.json", ["model_max_length"], ["0", "-1", "9223372036854775807", "\"four\""]),
  ]

  @Test(arguments: hostile.indices) func refusesValuesThatNoModelHas(_ index: Int) throws {
    let (file, keys, values) = Self.hostile[index]
    for key in keys {
      for value in values {
        let model = try ModelCopy()
        // 1e999 is no number that a JSON writer writes.
        if value == "1e999" {
          try model.set(key, "\"HERE\"", in: file)
          let text = try String(contentsOf: model.folder.appending(path: file), encoding: .utf8)
          try model.write(text.replacing("\"HERE\"", with: value), to: file)
        } else {
          try model.set(key, value, in: file)
        }
        print("\(file) \(key) = \(value): \(try sentence(of: model))")
      }
    }
  }

  /// The sentence that loading ends with, or else the first picture.
  private func sentence(of model: ModelCopy, sourceLocation: SourceLocation = #_sourceLocation) throws -> String {
    do {
      let loaded = try StableDiffusion.load(from: model.folder)
      // A scheduler that cannot be used is told when it is to be used, since another can be taken.
      _ = try loaded.pipeline.generate(loaded.request("a"))
    } catch let error as ModelFilesError {
      return "\(error)"
    } catch let error as SafetensorsError {
      return "\(error)"
    } catch let error as PyTorchFileError {
      return "\(error)"
    } catch let error as ConfigurationError {
      return "\(error)"
    } catch let error as WeightErrors {
      return "\(error)"
    } catch let error as TokenizerError {
      return "\(error)"
    } catch let error as SchedulerError {
      return "\(error)"
    } catch let error as CLIPTextError {
      return "\(error)"
    } catch {
      Issue.record("\(type(of: error)): \(error)", sourceLocation: sourceLocation)
      return "\(error)"
    }
    Issue.record("the model was loaded", sourceLocation: sourceLocation)
    return "nothing"
  }
}
