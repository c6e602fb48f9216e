import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Components from other files: whichever files they are in, they are the same components.
@Suite struct ReplacedPartsTests {
  private let place: TemporaryFolder
  private let sd1 = ReferenceModel("sd1").folder
  private let context = ExecutionContext(threads: 2)

  init() throws { place = try TemporaryFolder() }

  /// The tensors of a file under other names; nil leaves one out.
  private func file(_ original: URL, named name: String = "part.safetensors", _ rename: (String) -> String?) throws -> URL {
    let source = try SafetensorsFile(original)
    var tensors: [String: WeightTensor] = [:]
    for (key, stored) in source.tensors where stored.elementType != "I64" {
      if let new = rename(key) { tensors[new] = try source.tensor(key, shape: stored.shape) }
    }
    return try place.write(name, SafetensorsWriter.encode(tensors))
  }

  private func picture(_ url: URL, _ parts: [String: URL] = [:], plan: MemoryPlan? = nil) async throws -> [Float] {
    let model = try StableDiffusion.load(from: url, replacing: parts, plan: plan)
    #expect(model.warnings == [])
    var request = model.request("a photo of the cat", seed: 3)
    (request.steps, request.guidance, request.width, request.height) = (2, 4, 32, 32)
    let image = try #require(try await model.pipeline.images(for: request).first)
    return image.latents.elements + image.image.elements
  }

  // MARK: a component's own file

  /// The model's own tensors, with a configuration that is derived from them and completed by the model's, change nothing.
  @Test(arguments: [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model")])
  func aComponentsFileIsTheComponent(_ component: String, _ name: String) async throws {
    let file = sd1.appending(path: "\(component)/\(name).safetensors")
    #expect(try await picture(sd1, [component: file]) == picture(sd1))
    #expect(try await picture(sd1, [component: sd1.appending(path: component)]) == picture(sd1))
    #expect(try await picture(sd1, [component: sd1]) == picture(sd1))
    let files = try ModelFiles.open(sd1, replacing: [component: file]), own = try ModelFiles.open(sd1)
    let (derived, known) = (try JSONValue.of(files, component), try JSONValue.of(own, component))
    let told = [
      "attention_head_dim", "norm_num_groups", "scaling_factor", "sample_size", "eos_token_id", "num_attention_heads", "hidden_act",
    ]
    for key in told { #expect(derived[key] == known[key], "\(key)") }
  }

  /// Another model's component takes the place of the model's.
  @Test func anotherModelsComponentIsTaken() async throws {
    let copy = try ModelCopy("sd1")
    try copy.replace("vae", with: "inpaint9")
    let expected = try await picture(copy.folder), other = ReferenceModel("inpaint9").folder
    #expect(try await picture(sd1, ["vae": other]) == expected)
    #expect(try await picture(sd1, ["vae": other.appending(path: "vae")]) == expected)
    #expect(try await picture(sd1) != expected)
    let plan = try MemoryPlan(for: sd1, replacing: ["vae": other], GenerationExtent(size: PixelSize(width: 32, height: 32)), limit: 1 << 30)
    #expect(try await picture(sd1, ["vae": other], plan: plan) == expected)
  }

  // MARK: separate files, with and without a model

  /// A whole single file in parts, under all prefixes that such parts have.
  @Test(arguments: ["sd1", "sd2"]) func partsOfAFileMakeTheSamePicture(_ name: String) async throws {
    let original = fixtures.appending(path: "weights/\(name).safetensors")
    var numbers = Numbers(seed: 1)
    let embedding = WeightTensor(numbers.tensor([49408, 16]))
    func write(_ file: String, _ rename: (String) -> String?) throws -> URL {
      let source = try SafetensorsFile(original)
      var tensors: [String: WeightTensor] = [:]
      for (key, stored) in source.tensors where stored.elementType != "I64" && !key.hasPrefix("model_ema") && key != "betas" {
        guard let new = rename(key), !key.contains(".loss.") else { continue }
        tensors[new] = key.hasSuffix("token_embedding.weight") ? embedding : try source.tensor(key, shape: stored.shape)
      }
      return try place.write(file, SafetensorsWriter.encode(tensors))
    }
    func below(_ prefixes: [String], as new: String) -> (String) -> String? {
      { name in prefixes.first { name.hasPrefix($0) }.map { new + name.dropFirst($0.count) } }
    }
    let whole = try write("whole.safetensors") { $0 }
    let expected = try await picture(whole)
    let text = ["cond_stage_model.transformer.", "cond_stage_model.model."]
    for (unet, vae, isBare) in [
      ("model.diffusion_model.", "first_stage_model.", false), ("", "", true), ("diffusion_model.", "vae.", true),
    ] {
      let parts = [
        "unet": try write("unet.safetensors", below(["model.diffusion_model."], as: unet)),
        "vae": try write("vae.safetensors", below(["first_stage_model."], as: vae)),
        "text_encoder": try write("text.safetensors") { name in
          isBare ? below(text, as: "")(name) : text.contains { name.hasPrefix($0) } ? name : nil
        },
      ]
      #expect(try await picture(whole, parts) == expected, "\(unet) with a model")
      // Without a model: the U-Net is the model, the others its parts.
      let others = parts.filter { $0.key != "unet" }
      let base = try #require(parts["unet"])
      if name == "sd1" { #expect(try await picture(base, others) == expected, "\(unet) without a model") }
      #expect(throws: ModelFilesError.self) { try StableDiffusion.load(from: base, replacing: ["vae": try #require(parts["vae"])]) }
    }
  }

  // MARK: tiny and vector-quantised autoencoders

  private func decoded(_ parts: URL) throws -> [Float] {
    let files = try ModelFiles.open(sd1, replacing: ["vae": parts])
    let autoencoder = try #require(try files.component("vae", in: context) as? any LatentAutoencoder)
    var numbers = Numbers(seed: 5)
    return try autoencoder.decode(numbers.tensor([1, 4, 6, 4]), in: context).elements
  }

  /// The original's decoder under each of its names is diffusers' decoder, in the place of a large autoencoder.
  @Test(arguments: ["", "taesd_decoder.", "decoder.layers.", "first_stage_model.taesd_decoder."])
  func theOriginalTinyDecoder(_ prefix: String) async throws {
    let folder = ReferenceModel("taesd").folder
    let file = try file(folder.appending(path: "original/taesd_decoder.safetensors")) { prefix + $0 }
    #expect(try decoded(file) == decoded(folder.appending(path: "vae")))
    let files = try ModelFiles.open(sd1, replacing: ["vae": file])
    #expect(files.className(of: "vae") == "AutoencoderTiny" && files.leftOver == [])
    #expect(try JSONValue.of(files, "vae")["scaling_factor"] == .number(1), "not the large one's")
    #expect(try await picture(sd1, ["vae": file]) == picture(sd1, ["vae": folder.appending(path: "vae")]))
    #expect(try AutoencoderTiny.load(from: file).spatialScale == 4)
    // There is nothing to encode with, and a sentence says so.
    let model = try StableDiffusion.load(from: sd1, replacing: ["vae": file])
    var request = model.request("a cat", seed: 1)
    (request.steps, request.task) = (2, ImageToImage(.pixels(Tensor(repeating: 0.5, shape: [1, 32, 32, 3]))))
    await #expect(throws: ComponentError.missingPart(component: "The tiny autoencoder", part: "encoder")) {
      try await model.pipeline.images(for: request)
    }
  }

  @Test func bothHalvesOfTheOriginalInAFile() throws {
    let folder = ReferenceModel("taesd").folder
    var tensors: [String: WeightTensor] = [:]
    for half in ["encoder", "decoder"] {
      let source = try SafetensorsFile(folder.appending(path: "original/taesd_\(half).safetensors"))
      for (key, stored) in source.tensors { tensors["taesd_\(half).\(key)"] = try source.tensor(key, shape: stored.shape) }
    }
    let file = try place.write("taesd.safetensors", SafetensorsWriter.encode(tensors))
    let (found, expected) = (try AutoencoderTiny.load(from: file), try AutoencoderTiny.load(from: folder.appending(path: "vae")))
    var numbers = Numbers(seed: 6)
    let picture = Tensor(numbers.uniform(16 * 24 * 3, in: -1...1), shape: [1, 16, 24, 3])
    #expect(try found.encode(picture, in: context).mode.elements == expected.encode(picture, in: context).mode.elements)
    #expect(try decoded(file) == decoded(folder.appending(path: "vae")))
    let encoder = folder.appending(path: "original/taesd_encoder.safetensors")
    let error = #expect(throws: ModelFilesError.self) { try ModelFiles.open(sd1, replacing: ["vae": encoder]) }
    #expect(error?.description.contains("lacks the decoder") == true)
  }

  /// The original has a file for each half.
  @Test func bothHalvesOfTheOriginalInTwoFiles() async throws {
    let folder = ReferenceModel("taesd").folder, original = folder.appending(path: "original")
    let (encoder, decoder) = (original.appending(path: "taesd_encoder.safetensors"), original.appending(path: "taesd_decoder.safetensors"))
    let files = try ModelFiles.open(sd1, replacing: ["vae": decoder, "vae_encoder": encoder])
    let own = try ModelFiles.open(sd1)
    #expect(files.leftOver == [] && files.components == own.components)
    let found = try #require(try files.component("vae", in: context) as? AutoencoderTiny)
    let expected = try AutoencoderTiny.load(from: folder.appending(path: "vae"))
    var numbers = Numbers(seed: 6)
    let picture = Tensor(numbers.uniform(16 * 24 * 3, in: -1...1), shape: [1, 16, 24, 3]), latents = numbers.tensor([1, 4, 6, 4])
    #expect(try found.encode(picture, in: context).mode.elements == expected.encode(picture, in: context).mode.elements)
    #expect(try found.decode(latents, in: context).elements == expected.decode(latents, in: context).elements)
    #expect(
      try await self.picture(sd1, ["vae": decoder, "vae_encoder": encoder]) == self.picture(sd1, ["vae": folder.appending(path: "vae")]))
    #expect(try MemoryPlan(for: sd1, replacing: ["vae": decoder, "vae_encoder": encoder]).predictedPeakBytes > 0)
    for parts in [
      ["vae_encoder": encoder], ["vae": encoder, "vae_encoder": decoder], ["vae": decoder, "vae_encoder": decoder],
      ["vae": folder.appending(path: "vae"), "vae_encoder": encoder],
      ["vae": sd1.appending(path: "vae/diffusion_pytorch_model.safetensors"), "vae_encoder": encoder],
      ["vae": decoder, "vae_encoder": sd1.appending(path: "vae/diffusion_pytorch_model.safetensors")],
    ] {
      #expect(throws: ModelFilesError.self, "\(parts)") { try ModelFiles.open(sd1, replacing: parts) }
    }
  }

  /// Previews of a decoder alone come nearer to its pictures than one colour does.
  @Test func aDecoderAloneHasPreviews() async throws {
    let decoder = ReferenceModel("taesd").folder.appending(path: "original/taesd_decoder.safetensors")
    var model = try StableDiffusion.load(from: sd1, replacing: ["vae": decoder])
    let autoencoder = model.pipeline.autoencoder, preview = try LatentPreview(fittedTo: autoencoder, in: context)
    var numbers = Numbers(seed: 7)
    let latents = numbers.tensor([1, 6, 6, 4]).resizedNearest(height: 12, width: 12)
    let picture = try await model.pipeline.decode(latents).elements, side = 12 * autoencoder.spatialScale
    // The mean of each latent's square of pixels.
    var expected = Array(repeating: Float(0), count: 12 * 12 * 3)
    for index in picture.indices {
      let (row, column, colour) = (index / 3 / side, index / 3 % side, index % 3), scale = autoencoder.spatialScale
      expected[(row / scale * 12 + column / scale) * 3 + colour] += picture[index] / Float(scale * scale)
    }
    func error(_ found: [Float]) -> Float { zip(found, expected).reduce(0) { $0 + ($1.0 - $1.1) * ($1.0 - $1.1) } }
    let means = (0..<3).map { colour in stride(from: colour, to: expected.count, by: 3).reduce(0) { $0 + expected[$1] } / 144 }
    let ours = error(preview.image(of: latents).elements), plain = error(expected.indices.map { means[$0 % 3] })
    #expect(ours < plain)
    print("previews of a decoder alone: \(ours / plain) of the error of one colour")
    // A generation that is asked for previews gets them.
    model.pipeline.decodesPreviews = false
    var request = model.request("a cat", seed: 1)
    (request.steps, request.previewInterval) = (2, 1)
    var iterator = try model.pipeline.generate(request).makeAsyncIterator()
    guard case .step(let step)? = try await iterator.next() else { return #expect(Bool(false), "no step") }
    #expect(step.preview != nil)
  }

  /// All numbers of levels and blocks that the names can tell.
  @Test func theShapeOfATinyAutoencoderIsDerived() throws {
    for model in ["taesd", "taesd4"] {
      let folder = ReferenceModel(model).folder.appending(path: "vae")
      let files = try ModelFiles.open(sd1, replacing: ["vae": folder.appending(path: "diffusion_pytorch_model.safetensors")])
      let (derived, known) = (try JSONValue.of(files, "vae"), try JSONValue.of(ModelFiles.open(sd1, replacing: ["vae": folder]), "vae"))
      for key in [
        "encoder_block_out_channels", "decoder_block_out_channels", "num_encoder_blocks", "num_decoder_blocks", "latent_channels",
        "upsampling_scaling_factor",
      ] {
        #expect(derived[key] == known[key], "\(model) \(key)")
      }
    }
  }

  @Test(arguments: ["", "first_stage_model.", "vae."]) func theOriginalVQModel(_ prefix: String) throws {
    let folder = ReferenceModel("vq").folder
    let file = try file(folder.appending(path: "original/vq.safetensors")) { prefix + $0 }
    #expect(try decoded(file) == decoded(folder.appending(path: "vae")))
    let files = try ModelFiles.open(sd1, replacing: ["vae": file])
    #expect(files.className(of: "vae") == "VQModel" && files.leftOver == [])
    let scale = try JSONValue.of(files, "vae")["scaling_factor"]
    #expect(scale == .number(1))
  }

  // MARK: what is told

  @Test func inspectionLooksAtTheReplacedComponent() throws {
    let file = try file(ReferenceModel("taesd").folder.appending(path: "original/taesd_decoder.safetensors")) { $0 }
    let report = try StableDiffusion.inspect(sd1, replacing: ["vae": file], in: context)
    let vae = try #require(report.components.first { $0.name == "vae" })
    #expect(vae.className == "AutoencoderTiny" && vae.files == ["part.safetensors"] && vae.missing == [] && vae.unused == [])
    #expect(report.problem == nil)
  }

  @Test func strayTensorsAreTold() throws {
    let original = ReferenceModel("taesd").folder.appending(path: "original/taesd_decoder.safetensors")
    let file = try file(original) { $0 == "1.bias" ? nil : $0 }
    #expect(throws: WeightErrors.self) { try StableDiffusion.load(from: sd1, replacing: ["vae": file]) }
    let other = try self.file(sd1.appending(path: "vae/diffusion_pytorch_model.safetensors"), named: "other.safetensors") {
      $0 == "quant_conv.bias" ? "stray.bias" : $0
    }
    #expect(throws: WeightErrors.self) { try StableDiffusion.load(from: sd1, replacing: ["vae": other]) }
    let model = try StableDiffusion.load(from: sd1, replacing: ["vae": sd1, "image_encoder": sd1.appending(path: "text_encoder")])
    #expect(model.warnings == [.unusedComponent(name: "image_encoder", className: "CLIPTextModel")])
  }

  @Test func refusesWhatIsNoSuchComponent() throws {
    let one = WeightTensor(Tensor([1]))
    func file(_ tensors: [String: WeightTensor]) throws -> URL {
      try place.write("\(UUID().uuidString).safetensors", SafetensorsWriter.encode(tensors))
    }
    let unet = sd1.appending(path: "unet/diffusion_pytorch_model.safetensors")
    let cases: [([String: URL], String)] = [
      (["vae": unet], "it is to be the model's vae, but holds unet (UNet2DConditionModel)"),
      (["vae": sd1.appending(path: "unet")], "a model whose vae is a UNet2DConditionModel"),
      (["unet": sd1.appending(path: "vae")], "a model whose unet is a AutoencoderKL"),
      (["vae": ReferenceModel("projection").folder], "it is to be the model's vae, but holds text_encoder (CLIPTextModelWithProjection)"),
      (["vae": place.url.appending(path: "nothing")], "There is no model at"),
      (["vae": try file(["lora_unet_x": one])], "a LoRA"),
      (["unet": try file(["zero_convs.0.0.weight": one])], "its ControlNet lacks its blocks"),
      (["vae": try file(["x": one])], "and no tensors below"),
      (["vae": try file(["decoder.conv_in.weight": one, "decoder.conv_out.weight": one])], "lacks the encoder's blocks"),
      (["vae": try file(["2.conv.0.weight": one, "3.weight": WeightTensor(Tensor(shape: [3, 4, 1, 1]))])], "its tiny autoencoder lacks"),
      (["unet": try file(["conv_in.weight": one, "time_embedding.linear_1.weight": one])], "its U-Net lacks"),
      (["text_encoder": try file(["token_embedding.weight": one])], "its text encoder lacks"),
    ]
    for (parts, expected) in cases {
      let error = #expect(throws: (any Error).self) { try StableDiffusion.load(from: sd1, replacing: parts) }
      #expect("\(error.map { "\($0)" } ?? "")".contains(expected), "\(expected): \(error.map { "\($0)" } ?? "")")
    }
    // Configurations that cannot be joined.
    let odd = #expect(throws: ConfigurationError.self) {
      try StableDiffusion.load(from: sd1, replacing: ["vae": ReferenceModel("taesd4").folder.appending(path: "vae")])
    }
    #expect(odd?.description.contains("latents have 5 channels") == true)
  }
}
