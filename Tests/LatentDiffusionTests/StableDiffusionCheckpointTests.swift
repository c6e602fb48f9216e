import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// 64-bit FNV-1a, as the fixtures' script computes it.
private func fnv(_ data: Data) -> String {
  let value = data.reduce(0xCBF2_9CE4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01B3 }
  let digits = String(value, radix: 16)
  return String(repeating: "0", count: 16 - digits.count) + digits
}

@Suite struct StableDiffusionCheckpointTests {
  private static let folder = fixtures.appending(path: "weights")
  private let folder = Self.folder

  private struct Expected: Decodable {
    struct Tensor: Decodable {
      let shape: [Int]
      let hash: String
    }
    let tensors: [String: [String: Tensor]]
    let configurations: [String: [String: JSONValue]]
  }

  private struct Shapes: Decodable {
    let checkpoint: [String: [Int]]
    let tensors: [String: [String: [Int]]]
    let configurations: [String: [String: JSONValue]]
  }

  private func expect(_ configurations: [String: [String: JSONValue]], of files: ModelFiles) throws {
    for (component, expected) in configurations {
      let found = try JSONValue.of(files, component)
      for (key, value) in expected { #expect(found[key]?.says(value) == true, "\(component) \(key): \(String(describing: found[key]))") }
    }
  }

  @Test(arguments: ["sd1", "sd2", "sdxl", "refiner", "ssd"]) func hasTheTensorsThatDiffusersHas(_ name: String) throws {
    let files = try ModelFiles.open(folder.appending(path: "\(name).safetensors"))
    let expected = try JSONDecoder().decode(Expected.self, from: Data(contentsOf: folder.appending(path: "\(name).json")))
    #expect(files.layout == .singleFile)
    let texts = expected.tensors.keys.filter { $0.hasPrefix("text_encoder") }
    let tokenizers = texts.map { $0.replacing("text_encoder", with: "tokenizer") }
    #expect(files.components == (["scheduler", "unet", "vae"] + texts + tokenizers).sorted())
    #expect(files.leftOver.isEmpty)
    for (component, tensors) in expected.tensors {
      let weights = try files.weights(of: component)
      #expect(weights.names == Set(tensors.keys), "\(component) \(weights.names.symmetricDifference(tensors.keys).sorted())")
      for (key, tensor) in tensors {
        let found = try weights.tensor(key, shape: Shape(tensor.shape))
        #expect(fnv(found.data) == tensor.hash, "\(component) \(key)")
      }
    }
    try expect(expected.configurations, of: files)
  }

  /// A file of the published size with nothing in it: it takes no room on the disk.
  static func sparse(_ shapes: [String: [Int]], at url: URL) throws {
    var members: [String] = []
    var end = 0
    for (name, shape) in shapes.sorted(by: { $0.key < $1.key }) {
      let bytes = 2 * shape.reduce(1, *)
      members.append("\"\(name)\":{\"dtype\":\"F16\",\"shape\":\(shape),\"data_offsets\":[\(end),\(end + bytes)]}")
      end += bytes
    }
    let start = rawSafetensors("{\(members.joined(separator: ","))}", data: Data())
    try start.write(to: url)
    let handle = try FileHandle(forWritingTo: url)
    try handle.truncate(atOffset: UInt64(start.count + end))
    try handle.close()
  }

  @Test(arguments: [
    ("sd15", "PNDMScheduler", 1_066_235_307), ("sd21", "DDIMScheduler", 1_289_952_427),
    ("sdxl", "EulerDiscreteScheduler", 3_385_184_004), ("sdxl-refiner", "EulerDiscreteScheduler", 2_954_186_500),
  ])
  func knowsThePublishedSizes(_ name: String, _ scheduler: String, _ parameters: Int) throws {
    let temporary = try TemporaryFolder()
    let shapes = try JSONDecoder().decode(Shapes.self, from: Data(contentsOf: folder.appending(path: "\(name)-shapes.json")))
    let url = temporary.url.appending(path: "model.safetensors")
    try Self.sparse(shapes.checkpoint, at: url)
    let files = try ModelFiles.open(url)
    for (component, tensors) in shapes.tensors {
      let weights = try files.weights(of: component)
      #expect(weights.names.isSuperset(of: tensors.keys), "\(component)")
      if name.hasPrefix("sd1") || name.hasPrefix("sd2") { #expect(weights.names.count == tensors.count, "\(component)") }
      for (key, shape) in tensors { #expect(throws: Never.self) { try weights.tensor(key, shape: Shape(shape)) } }
    }
    // The other way round, as adapters need it: every module of the U-Net has the original's name.
    let family: any ModelFamily = name.hasPrefix("sdxl") ? StableDiffusionXLFamily() : StableDiffusionFamily()
    let modules = family.otherNames(of: "unet", parameters: try files.weights(of: "unet").names)
    let original = shapes.checkpoint.keys.filter { $0.hasPrefix("model.diffusion_model.") }
    #expect(
      Set(modules.keys)
        == Set(original.map { $0.dropFirst("model.diffusion_model.".count).split(separator: ".").dropLast().joined(separator: ".") }))
    try expect(shapes.configurations, of: files)
    #expect(files.className(of: "scheduler") == scheduler)
    let report = InspectReport(files, family: family.description(of: files) ?? "")
    #expect(report.parameters == parameters)
    let families = [
      "sd15": "Stable Diffusion 1.x", "sd21": "Stable Diffusion 2.x", "sdxl": "Stable Diffusion XL",
      "sdxl-refiner": "Stable Diffusion XL refiner",
    ]
    #expect(report.family == families[name])
  }

  // MARK: variants

  /// The tiny version 1 or 2 with some tensors replaced, and what training of the original tells besides.
  private func variant(
    of name: String = "sd1", _ changes: [String: WeightTensor?] = [:], metadata: [String: String] = [:], steps: Int64? = nil
  ) throws -> (TemporaryFolder, ModelFiles) {
    let file = try SafetensorsFile(folder.appending(path: "\(name).safetensors"))
    var tensors: [String: WeightTensor] = [:]
    for (key, stored) in file.tensors where stored.elementType != "I64" {
      tensors[key] = try file.tensor(key, shape: stored.shape)
    }
    for (key, tensor) in changes { tensors[key] = tensor }
    var data = SafetensorsWriter.encode(tensors, metadata: metadata)
    if let steps { data = try Self.adding(steps, to: data) }
    let temporary = try TemporaryFolder()
    return (temporary, try ModelFiles.open(temporary.write("model.safetensors", data)))
  }

  /// The writer knows no whole numbers, so `global_step` is put at the end by hand.
  private static func adding(_ steps: Int64, to file: Data) throws -> Data {
    let length = file.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    var header = String(decoding: file[8..<8 + length], as: UTF8.self)
    while header.last != "}" { header.removeLast() }
    let end = file.count - 8 - length
    header.removeLast()
    header += ",\"global_step\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[\(end),\(end + 8)]}}"
    let bytes = Data((0..<8).map { UInt8(truncatingIfNeeded: steps >> (8 * $0)) })
    return rawSafetensors(header, data: file[(8 + length)...] + bytes)
  }

  private static func prediction(_ files: ModelFiles) throws -> JSONValue? { try JSONValue.of(files, "scheduler")["prediction_type"] }

  @Test func tellsWhatIsPredicted() throws {
    #expect(try Self.prediction(variant().1) == .text("epsilon"))
    #expect(try Self.prediction(variant(of: "sd2").1) == .text("v_prediction"))
    #expect(try Self.prediction(variant(of: "sd2", steps: 875_000).1) == .text("epsilon"))
    #expect(try Self.prediction(variant(of: "sd2", steps: 875_001).1) == .text("v_prediction"))
    // A pickle has it as a plain number.
    #expect(try Self.prediction(variant(of: "sd2", metadata: ["global_step": "875000"]).1) == .text("epsilon"))
    #expect(try Self.prediction(variant(of: "sd2", metadata: ["modelspec.prediction_type": "epsilon"]).1) == .text("epsilon"))
    #expect(try Self.prediction(variant(metadata: ["modelspec.prediction_type": "v"]).1) == .text("v_prediction"))
    let base = try variant(of: "sd2", steps: 875_000).1
    #expect(try JSONValue.of(base, "unet")["sample_size"] == .number(128))
    #expect(try JSONValue.of(base, "tokenizer")["pad_token"] == .text("!"))
    #expect(base.className(of: "scheduler") == "PNDMScheduler")
  }

  /// The marks that other programs put into files of version 1, and what follows from them.
  @Test func honoursMarks() throws {
    let empty: [String: WeightTensor?] = ["v_pred": WeightTensor(shape: [0], elementType: .float32, data: Data())]
    var both = empty
    both["ztsnr"] = WeightTensor(shape: [0], elementType: .float32, data: Data())
    let v = try variant(empty).1
    #expect(try Self.prediction(v) == .text("v_prediction") && JSONValue.of(v, "scheduler")["timestep_spacing"] == .text("leading"))
    #expect(v.leftOver.isEmpty)
    for files in [
      try variant(both).1, try variant(metadata: ["ss_v_parameterization": "True", "ss_zero_terminal_snr": "True"]).1,
      try variant(["ztsnr": both["ztsnr"] ?? nil], metadata: ["modelspec.prediction_type": "v"]).1,
    ] {
      let scheduler = try JSONValue.of(files, "scheduler")
      #expect(scheduler["prediction_type"] == .text("v_prediction") && scheduler["rescale_betas_zero_snr"] == .bool(true))
      #expect(scheduler["timestep_spacing"] == .text("trailing") && scheduler["_class_name"] == .text("DDIMScheduler"))
      // Version 1 was trained on 512 pixels, whatever it predicts.
      #expect(try JSONValue.of(files, "unet")["sample_size"] == JSONValue.of(variant().1, "unet")["sample_size"])
    }
    #expect(try Self.prediction(variant(metadata: ["ss_v_parameterization": "None"]).1) == .text("epsilon"))
  }

  /// Version 2's text encoder under CLIP's names, as old converters wrote it, has version 2's activation and padding, and the layers that it uses.
  @Test(arguments: [true, false]) func version2MayHaveCLIPsNames(_ isWhole: Bool) throws {
    let original = try ModelFiles.open(folder.appending(path: "sd2.safetensors"))
    let table = try #require(try original.weights(of: "text_encoder") as? WeightTable)
    var changes: [String: WeightTensor?] = [:]
    for name in try SafetensorsFile(original.url).names where name.hasPrefix("cond_stage_model.") { changes[name] = .some(nil) }
    for (name, tensor) in table.tensors {
      changes["cond_stage_model.transformer.text_model." + name] = try table.tensor(name, shape: tensor.shape)
      // The last layer and the projection, which are not used.
      if isWhole, name.hasPrefix("encoder.layers.1.") {
        changes["cond_stage_model.transformer.text_model." + name.replacing("layers.1.", with: "layers.2.")] = try table.tensor(
          name, shape: tensor.shape)
        changes["cond_stage_model.transformer.text_projection.weight"] = WeightTensor(Tensor(shape: [16, 16]))
      }
    }
    let files = try variant(of: "sd2", changes).1
    let text = try JSONValue.of(files, "text_encoder")
    #expect(text["hidden_act"] == .text("gelu") && text["num_hidden_layers"] == .number(2))
    #expect(try JSONValue.of(files, "tokenizer")["pad_token"] == .text("!"))
    #expect(try files.weights(of: "text_encoder").names == table.names && files.leftOver.isEmpty)
  }

  /// The autoencoder's attention under any of its names is the attention; a part that is missing is missed.
  @Test(arguments: [["to_q", "to_k", "to_v", "to_out.0", "norm"], ["query", "key", "value", "proj_attn", "group_norm"]])
  func autoencodersAttentionHasSeveralNames(_ names: [String]) throws {
    let file = try SafetensorsFile(folder.appending(path: "sd1.safetensors"))
    var changes: [String: WeightTensor?] = [:]
    for name in file.names where name.contains(".attn_1.") {
      let tensor = try file.tensor(name, shape: #require(file.tensors[name]).shape)
      changes[name] = .some(nil)
      for (old, new) in zip(["q", "k", "v", "proj_out", "norm"], names) where name.contains(".attn_1.\(old).") {
        changes[name.replacing(".attn_1.\(old).", with: ".attn_1.\(new).")] = tensor
      }
    }
    #expect(changes.count >= 20)
    let files = try variant(changes).1
    #expect(try files.weights(of: "vae").names == ModelFiles.open(file.url).weights(of: "vae").names)
    #expect(try JSONValue.of(files, "vae")["mid_block_add_attention"] == .bool(true))
    var partly = changes
    for name in changes.keys where name.contains(".attn_1.\(names[0]).") || name.contains(".attn_1.\(names[1]).") {
      partly[name] = .some(nil)
    }
    #expect(try JSONValue.of(variant(partly).1, "vae")["mid_block_add_attention"] == .bool(true))
    let other = try variant(["first_stage_model.encoder.down.1.attn.0.q.weight": WeightTensor(Tensor([1]))]).1
    #expect(
      try JSONValue.of(other, "vae")["down_block_types"]
        == .list(["DownEncoderBlock2D", "AttnDownEncoderBlock2D", "DownEncoderBlock2D"].prefix(Self.levels(of: other)).map { .text($0) }))
  }

  private static func levels(of files: ModelFiles) throws -> Int {
    guard case .list(let channels) = try JSONValue.of(files, "vae")["block_out_channels"] else { return 0 }
    return channels.count
  }

  /// What belongs to no component and is none of what training leaves is told.
  @Test func tellsWhatIsLeftOver() throws {
    let stray = WeightTensor(Tensor([1]))
    let files = try variant(["model_ema.decay": stray, "betas": stray, "sqrt_alphas_cumprod": stray, "hypernet.x": stray, "a": stray]).1
    #expect(files.leftOver == ["a", "hypernet.x"])
    #expect(InspectReport(files, family: StableDiffusionFamily().description(of: files) ?? "").leftOver == ["a", "hypernet.x"])
  }

  @Test(arguments: [(9, "StableDiffusionInpaintPipeline"), (8, "StableDiffusionInstructPix2PixPipeline"), (4, "StableDiffusionPipeline")])
  func knowsOtherInputs(_ channels: Int, _ className: String) throws {
    let input = try RandomWeights(seed: 1).tensor("conv_in.weight", shape: [4, channels, 3, 3])
    let files = try variant(of: "sd2", ["model.diffusion_model.input_blocks.0.0.weight": input]).1
    #expect(files.className == className)
    #expect(try JSONValue.of(files, "unet")["in_channels"] == .number(Double(channels)))
    #expect(try Self.prediction(files) == .text(channels == 9 ? "epsilon" : "v_prediction"))
    #expect(try files.weights(of: "unet").tensor("conv_in.weight", shape: [4, channels, 3, 3]).data == input.data)
  }

  @Test func keepsUnknownKeysWhereAReportShowsThem() throws {
    let stray = WeightTensor(Tensor([1]))
    let files = try variant([
      "model.diffusion_model.input_blocks.1.7.weight": stray, "model.diffusion_model.new.weight": stray,
      "first_stage_model.encoder.x": stray,
      "first_stage_model.decoder.up.-1.block.0.norm1.weight": stray, "first_stage_model.x": stray, "cond_stage_model.transformer.y": stray,
      "model.diffusion_model.time_embed.cond_proj.weight": WeightTensor(Tensor(shape: [32, 5])),
    ]).1
    #expect(
      try files.weights(of: "unet").names.isSuperset(of: ["input_blocks.1.7.weight", "new.weight", "time_embedding.cond_proj.weight"]))
    #expect(try files.weights(of: "vae").names.isSuperset(of: ["encoder.x", "decoder.up.-1.block.0.norm1.weight", "x"]))
    #expect(try files.weights(of: "text_encoder").names.contains("y"))
    #expect(try JSONValue.of(files, "unet")["time_cond_proj_dim"] == .number(5))
    #expect(InspectReport(files, family: StableDiffusionFamily().description(of: files) ?? "").ignoredTensors == 3)
  }

  @Test func aFileConvertedBackFromDiffusersHasNoLastBlock() throws {
    let file = try SafetensorsFile(folder.appending(path: "sd2.safetensors"))
    var gone: [String: WeightTensor?] = ["cond_stage_model.model.text_projection": nil]
    for key in file.names where key.contains("resblocks.2.") { gone[key] = .some(nil) }
    let files = try variant(of: "sd2", gone).1
    #expect(try JSONValue.of(files, "text_encoder")["num_hidden_layers"] == .number(2))
    #expect(try files.weights(of: "text_encoder").names == ModelFiles.open(file.url).weights(of: "text_encoder").names)
  }

  @Test func refusesWhatIsNoWholeModel() throws {
    let one = WeightTensor(Tensor([1]))
    let cases: [([String: WeightTensor], String)] = [
      (["x": one], "no tensors below model.diffusion_model"), ([:], "no tensors below"), (["down_blocks.0.x": one], "a U-Net alone"),
      (["lora_unet_x": one], "LoRA"), (["model.diffusion_model.x": one], "its U-Net lacks"),
      (["first_stage_model.encoder.conv_in.weight": one], "its autoencoder lacks the encoder's blocks"),
      (["first_stage_model.encoder.down.0.block.0.conv2.weight": one], "its autoencoder lacks encoder.conv_in.weight"),
      (["cond_stage_model.transformer.x": one], "its text encoder lacks embeddings.token_embedding.weight"),
      (["cond_stage_model.model.x": one], "its text encoder lacks"),
      (["vae.x": one, "conditioner.embedders.0.x": one], "its autoencoder lacks"),
      (["model.diffusion_model.joint_blocks.0.x": one], "Stable Diffusion 3"), (["double_blocks.0.img_attn.x": one], "a Flux model"),
      (["unet.down_blocks.0.attn1.to_q.lora_A.weight": one], "a LoRA"), (["unet.x.processor.to_q_lora.down.weight": one], "a LoRA"),
      (["lora_te_text_model_encoder_layers_0.hada_w1_a": one], "a LoRA"), (["a.lokr_w1": one], "a LoRA"),
      (["control_model.input_blocks.0.0.weight": one], "its ControlNet lacks its blocks"),
      (["controlnet_cond_embedding.conv_in.weight": one], "its ControlNet lacks its blocks"),
      (["emb_params": one], "an embedding"), (["<cat-toy>": one], "an embedding"), (["clip_l": one, "clip_g": one], "an embedding"),
      (["noise_augmentor.data_mean": one, "model.diffusion_model.label_emb.0.0.weight": one], "as an image encoder it lacks"),
      (["taesd_decoder.1.weight": one], "tiny autoencoder"), (["0.weight": one, "1.conv.0.weight": one], "tiny autoencoder"),
      (["adapter.body.0.resnets.0.x": one], "T2I-Adapter"), (["image_proj.proj.weight": one], "IP-Adapter"),
      (["decoder.layers.1.weight": one], "tiny autoencoder"),
      (["state_dict.model.diffusion_model.x": one], "without this prefix"),
      (["text_model.encoder.layers.0.x": one], "a text encoder alone"),
      (["decoder.up_blocks.0.x": one], "an autoencoder alone"), (["mid_block.resnets.0.time_mixer.mix_factor": one], "Video"),
      (["down_blocks.0.motion_modules.0.x": one], "AnimateDiff"),
      (["depth_model.x": one, "model.diffusion_model.x": one], "its U-Net lacks"),
    ]
    for (tensors, expected) in cases {
      let temporary = try TemporaryFolder()
      let url = try temporary.write("model.safetensors", SafetensorsWriter.encode(tensors))
      let error = #expect(throws: ModelFilesError.self) { try ModelFiles.open(url) }
      #expect(error?.description.contains(expected) == true, "\(expected), not \(String(describing: error))")
    }
  }

  @Test func componentsMayBeAbsent() throws {
    let file = try SafetensorsFile(folder.appending(path: "sd1.safetensors"))
    var gone: [String: WeightTensor?] = [:]
    for key in file.names where !key.hasPrefix("model.diffusion_model.") { gone[key] = .some(nil) }
    let files = try variant(gone).1
    #expect(files.components == ["scheduler", "unet"])
    #expect(throws: ModelFilesError.noSuchComponent(name: "vae", model: files.url.path)) { try files.weights(of: "vae") }
    #expect(throws: ModelFilesError.self) { try files.weights(of: "scheduler") }
    #expect(files.file("tokenizer", "vocab.json") == nil)
  }
}
