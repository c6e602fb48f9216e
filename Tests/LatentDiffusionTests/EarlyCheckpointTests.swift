import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Single files of Stable unCLIP and of the first latent diffusion models: their configurations, and what their networks compute, are diffusers'.
@Suite struct EarlyCheckpointTests {
  private let folder = fixtures.appending(path: "weights"), context = ExecutionContext(threads: 2)

  private struct Expected: Decodable {
    let configurations: [String: [String: JSONValue]]
    let betas: [Double]?
  }

  private func file(_ name: String) -> URL { folder.appending(path: "\(name).safetensors") }

  private func reference(_ name: String) throws -> (String) throws -> Tensor {
    let file = try SafetensorsFile(folder.appending(path: "\(name)-reference.safetensors"))
    return { try file.tensor($0, shape: #require(file.tensors[$0]).shape).decoded() }
  }

  private func files(_ name: String) throws -> ModelFiles { try ModelFiles.open(file(name)) }

  @Test(
    arguments: [
      ("unclip", "StableUnCLIPImg2ImgPipeline"), ("ldm-classes", "LDMPipeline"), ("ldm-text", "LDMTextToImagePipeline"),
      ("ldm-plain", "LDMPipeline"),
    ])
  func areDiffusers(_ name: String, _ className: String) throws {
    let files = try files(name),
      expected = try JSONDecoder().decode(Expected.self, from: Data(contentsOf: folder.appending(path: "\(name).json")))
    #expect(files.className == className && files.leftOver == [])
    for (component, values) in expected.configurations {
      let found = try JSONValue.of(files, component)
      for (key, value) in values { #expect(found[key]?.says(value) == true, "\(component) \(key): \(String(describing: found[key]))") }
      let made = try files.component(component, in: context), className = try #require(files.className(of: component))
      #expect(type(of: made).classNames.contains(className))
    }
    if let betas = expected.betas {
      let scheduler = try JSONValue.of(files, "scheduler")
      #expect(scheduler["beta_start"] == .number(betas[0]) && scheduler["beta_end"] == .number(betas[1]))
      #expect(scheduler["beta_schedule"] == .text("scaled_linear") && files.className(of: "scheduler") == "DDIMScheduler")
    }
    let report = try DiffusionModel.inspect(file(name))
    #expect(report.problem == nil && report.components.allSatisfy { $0.problem == nil && ($0.unused ?? []).isEmpty }, "\(report)")
  }

  @Test(arguments: ["unclip", "ldm-classes", "ldm-text", "ldm-plain"]) func theirNetworksEqualDiffusers(_ name: String) throws {
    let files = try files(name), tensor = try reference(name)
    let unet = try #require(try files.component("unet", in: context) as? any NoisePredictor)
    let inputs = name == "unclip" ? ["class_labels": try tensor("labels")] : [:]
    let conditioning = Conditioning(rows: 1, contexts: name == "ldm-plain" ? [] : [try tensor("states")], inputs: inputs)
    let latents = try tensor("latents").channelsLast()
    let predicted = try unet.predict(latents, timestep: 321, conditioning: conditioning, in: context)
    let one = expectClose(predicted.channelsFirst(), try tensor("prediction"), tolerance: 1e-4, "prediction")
    let component = files.components.contains("vae") ? "vae" : "vqvae"
    let autoencoder = try #require(try files.component(component, in: context) as? any LatentAutoencoder)
    let two = expectClose(
      try autoencoder.decode(latents, in: context).channelsFirst(), try tensor("decoded"), tolerance: 1e-4, "decoded")
    print("\(name).safetensors: prediction differs by \(one.error), decoded picture by \(two.error)")
    switch name {
    case "unclip":
      let tower = try #require(try files.component("image_encoder", in: context) as? CLIPVisionModelWithProjection)
      let found = try tower(tensor("pixels").channelsLast(), in: context).imageEmbeds
      expectClose(found, try tensor("image_embeds"), tolerance: 1e-4, "image_embeds")
    case "ldm-text":
      let bert = try #require(try files.component("bert", in: context) as? LDMBertModel)
      expectClose(try bert([[7, 3, 59, 0, 21]], in: context), try tensor("text"), tolerance: 1e-4, "text")
    default: break
    }
  }

  /// The whole models draw, but for those of texts, whose tokenizer is in no such file and comes from another model.
  @Test func wholeModelsDraw() async throws {
    for (name, prompt) in [("ldm-classes", "3"), ("ldm-plain", "")] {
      let model = try DiffusionModel.load(from: file(name))
      #expect(model.warnings == [])
      var request = model.request(Prompt(prompt), seed: 1)
      (request.steps, request.width, request.height) = (2, 16, 16)
      #expect(try await model.pipeline.images(for: request)[0].image.shape == [1, 16, 16, 3], "\(name)")
    }
    #expect(throws: ModelFilesError.self) { try DiffusionModel.load(from: file("ldm-text")) }
    let other = ReferenceModel("ldm-text").folder
    let model = try DiffusionModel.load(from: file("ldm-text"), replacing: ["tokenizer": other])
    #expect(model.warnings == [] && model.pipeline.autoencoder.latentScale == 0.25)
    let conditioner = try #require(model.pipeline.conditioner as? LDMBertConditioner)
    #expect(conditioner.tokenizer != nil)
  }

  /// unCLIP's statistics are in the file or there are none, but for OpenAI's tower, which has some.
  @Test func theNormalizerOfUnCLIP() throws {
    let place = try TemporaryFolder(), source = try SafetensorsFile(file("unclip"))
    func normalizer(_ changes: [String: Tensor]) throws -> StableUnCLIPImageNormalizer {
      var tensors: [String: WeightTensor] = [:]
      for (key, stored) in source.tensors { tensors[key] = try source.tensor(key, shape: stored.shape) }
      for (key, tensor) in changes { tensors[key] = WeightTensor(tensor) }
      let files = try ModelFiles.open(place.write("unclip.safetensors", SafetensorsWriter.encode(tensors)))
      return try #require(try files.component("image_normalizer", in: context) as? StableUnCLIPImageNormalizer)
    }
    let ones = Tensor(repeating: 1, shape: [1, 12])
    #expect(try normalizer([:]).scaled(ones).elements == ones.elements)
    let statistics = [
      "noise_augmentor.data_mean": Tensor(repeating: 3, shape: [1, 12]), "noise_augmentor.data_std": Tensor(repeating: 2, shape: [1, 12]),
    ]
    #expect(try normalizer(statistics).scaled(ones).elements == Array(repeating: -1, count: 12))
    let wide = ["embedder.model.visual.proj": Tensor(shape: [16, 768])]
    let error = #expect(throws: ModelFilesError.self) { try normalizer(wide) }
    #expect(error?.description.contains("noise_augmentor.data_mean") == true)
  }

  @Test func whatIsMissingIsSaid() throws {
    let place = try TemporaryFolder()
    for (name, left) in [
      ("ldm-classes", "first_stage_model."), ("ldm-text", "cond_stage_model.transformer.pos_emb."),
      ("unclip", "embedder.model.visual.conv1"),
    ] {
      let source = try SafetensorsFile(file(name))
      var tensors: [String: WeightTensor] = [:]
      for (key, stored) in source.tensors where !key.hasPrefix(left) { tensors[key] = try source.tensor(key, shape: stored.shape) }
      let damaged = try place.write("\(name).safetensors", SafetensorsWriter.encode(tensors))
      #expect(throws: ModelFilesError.self, "\(name)") { try ModelFiles.open(damaged) }
    }
  }
}
