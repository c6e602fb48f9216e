import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// The networks of a single file with the original keys compute what diffusers' compute, from the derived configurations alone.
@Suite struct SingleFileTests {
  @Test(
    .compares("Single files of Stable Diffusion 1 and 2, every network", in: .files, with: "diffusers"),
    arguments: [("sd1", "sd1.safetensors"), ("sd1", "pytorch/sd1.ckpt"), ("sd2", "sd2.safetensors")])
  func networksAgreeWithDiffusers(_ name: String, _ file: String) throws {
    let folder = fixtures.appending(path: "weights")
    let files = try ModelFiles.open(folder.appending(path: file))
    let reference = try SafetensorsFile(folder.appending(path: "\(name)-reference.safetensors"))
    let context = ExecutionContext(threads: 2)
    func expected(_ key: String) throws -> Tensor {
      try reference.tensor(key, shape: #require(reference.tensors[key]).shape).decoded()
    }
    func load<Network>(_ component: String, _ build: (Data, WeightScope) throws -> Network) throws -> Network {
      let json = try #require(try files.configuration(of: component))
      let (network, report) = try LoadReport.load(from: files.weights(of: component), in: context) { try build(json, $0) }
      #expect(report.unused.isEmpty, "\(component)")
      return network
    }

    let text = try load("text_encoder") { try CLIPTextModel(CLIPTextConfiguration(json: $0), weights: $1) }
    let ids = try expected("ids").elements.map { Int($0) }
    let states = try text([ids], in: context).lastHiddenState
    expectClose(states, try expected("states"), tolerance: 1e-4, "states")

    let unet = try load("unet") { try UNet2DConditionModel(UNet2DConfiguration(json: $0), weights: $1) }
    let latents = try expected("latents").channelsLast()
    let prediction = try unet.predict(latents, timestep: 321, conditioning: Conditioning(hiddenStates: states), in: context)
    expectClose(prediction.channelsFirst(), try expected("prediction"), tolerance: 1e-4, "prediction")

    let autoencoder = try load("vae") { try AutoencoderKL(AutoencoderKLConfiguration(json: $0), weights: $1) }
    let picture = try autoencoder.decode(latents, in: context)
    expectClose(picture.channelsFirst(), try expected("picture"), tolerance: 1e-4, "picture")
    let posterior = try autoencoder.encode(expected("picture").channelsLast(), in: context)
    let mean = try expected("moments").channelsLast().channels(0..<4)
    expectClose(posterior.mode, mean, tolerance: 1e-4, "mean")
  }

  @Test(.compares("Single files of SDXL, every network", in: .files, with: "diffusers"), arguments: ["sdxl", "refiner", "ssd"])
  func networksOfXLAgreeWithDiffusers(_ name: String) throws {
    let folder = fixtures.appending(path: "weights")
    let url = folder.appending(path: "\(name).safetensors")
    let reference = try SafetensorsFile(folder.appending(path: "\(name)-reference.safetensors"))
    let context = ExecutionContext(threads: 2)
    func expected(_ key: String) throws -> Tensor {
      try reference.tensor(key, shape: #require(reference.tensors[key]).shape).decoded()
    }
    let ids = try expected("ids").elements.map { Int($0) }
    let names = try ModelFiles.open(url).components.filter { $0.hasPrefix("text_encoder") }
    let outputs = try names.map { try CLIPTextModel.load(from: url, named: $0, in: context)([ids], skippedLayers: 1, in: context) }
    let states = Tensor.concatenated(outputs.map(\.unnormalized), axis: -1)
    expectClose(states, try expected("states"), tolerance: 1e-4, "states")
    let pooled = try #require(outputs.last?.textEmbeds)
    expectClose(pooled, try expected("pooled"), tolerance: 1e-4, "pooled")

    let latents = try expected("latents").channelsLast()
    let conditioning = Conditioning(hiddenStates: states, pooled: pooled, inputs: ["time_ids": try expected("numbers")])
    let prediction = try UNet2DConditionModel.load(from: url, in: context).predict(
      latents, timestep: 321, conditioning: conditioning, in: context)
    expectClose(prediction.channelsFirst(), try expected("prediction"), tolerance: 1e-4, "prediction")
    let picture = try AutoencoderKL.load(from: url, in: context).decode(latents, in: context)
    expectClose(picture.channelsFirst(), try expected("picture"), tolerance: 1e-4, "picture")
  }

  /// A file of SDXL without its autoencoder is no U-Net alone: its text encoders are used.
  @Test func aFileOfXLMayLackItsAutoencoder() throws {
    let folder = try TemporaryFolder(), file = try SafetensorsFile(fixtures.appending(path: "weights/sdxl.safetensors"))
    let kept = file.tensors.filter { !$0.key.hasPrefix("first_stage_model.") && $0.value.elementType != "I64" }
    let tensors = try kept.reduce(into: [String: WeightTensor]()) { $0[$1.key] = try file.tensor($1.key, shape: $1.value.shape) }
    let url = folder.url.appending(path: "model.safetensors")
    try SafetensorsWriter.write(tensors, to: url)
    let files = try ModelFiles.open(url, replacing: ["vae": fixtures.appending(path: "models/sdxl/vae")])
    #expect(
      files.className == "StableDiffusionXLPipeline"
        && Set(["text_encoder", "text_encoder_2", "unet", "vae"]).isSubset(of: files.components))
  }

  /// The same tensors as a single file and as a folder, with CLIP's whole vocabulary since a single file carries none.
  @Test(arguments: ["sd1", "sd2"]) func aFileAndAFolderGiveTheSamePicture(_ name: String) async throws {
    let place = FileManager.default.temporaryDirectory.appending(path: "LatentDiffusionTests-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: place) }
    try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
    let file = place.appending(path: "model.safetensors")
    let original = try SafetensorsFile(fixtures.appending(path: "weights/\(name).safetensors"))
    // Counters and places, which nothing computes with, are left behind.
    var tensors = try original.tensors.filter { $0.value.elementType != "I64" }.reduce(into: [String: WeightTensor]()) { all, entry in
      all[entry.key] = try original.tensor(entry.key, shape: entry.value.shape)
    }
    let embedding = try #require(tensors.keys.first { $0.hasSuffix("token_embedding.weight") })
    var numbers = Numbers(seed: 1)
    tensors[embedding] = WeightTensor(numbers.tensor([49408, 16]))
    try SafetensorsWriter.write(tensors, to: file)
    let folder = place.appending(path: "model")
    try writeFolder(of: ModelFiles.open(file), to: folder)

    var pictures: [[Float]] = []
    for url in [file, folder] {
      let model = try StableDiffusion.load(from: url)
      #expect(model.reports.values.allSatisfy { $0.unused.isEmpty })
      var request = GenerationRequest("A red apple, 水彩画", seed: 2)
      (request.steps, request.width, request.height) = (4, 64, 48)
      let image = try #require(try await model.pipeline.images(for: request).first)
      pictures.append(image.latents.elements + image.image.elements)
    }
    #expect(pictures[0] == pictures[1], "\(compare(pictures[0], pictures[1]))")
  }

  /// A model as diffusers lays it out.
  private func writeFolder(of files: ModelFiles, to folder: URL) throws {
    func write(_ data: Data?, _ path: String) throws {
      let file = folder.appending(path: path)
      try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try #require(data).write(to: file)
    }
    let index = """
      {"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "\(files.className(of: "scheduler") ?? "")"],
       "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
       "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
      """
    try write(Data(index.utf8), "model_index.json")
    try write(files.configuration(of: "scheduler"), "scheduler/scheduler_config.json")
    try write(files.configuration(of: "tokenizer"), "tokenizer/tokenizer_config.json")
    for (component, name) in [("text_encoder", "model"), ("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")] {
      try write(files.configuration(of: component), "\(component)/config.json")
      let weights = try #require(try files.weights(of: component) as? WeightTable)
      let tensors = try weights.tensors.reduce(into: [String: WeightTensor]()) { all, entry in
        all[entry.key] = try weights.tensor(entry.key, shape: entry.value.shape)
      }
      try SafetensorsWriter.write(tensors, to: folder.appending(path: "\(component)/\(name).safetensors"))
    }
    try writeVocabulary(to: folder.appending(path: "tokenizer"))
  }

  /// CLIP's vocabulary, which follows from its merges: bytes, bytes at a word's end, what is merged, the two ends.
  private func writeVocabulary(to folder: URL) throws {
    let package = fixtures.deletingLastPathComponent().deletingLastPathComponent()
    let merges = try Data(contentsOf: package.appending(path: "Sources/TextEncoder/Resources/CLIPVocabulary/merges.txt"))
    try merges.write(to: folder.appending(path: "merges.txt"))
    let rules = String(decoding: merges, as: UTF8.self).split(separator: "\n").filter { !$0.hasPrefix("#version") }
    // Bytes that are printable stand for themselves; the others follow from 256 on.
    let printable = Array(33...126) + Array(161...172) + Array(174...255)
    let codes = printable + (0..<256 - printable.count).map { 256 + $0 }
    let bytes = codes.compactMap { UnicodeScalar($0).map { String(Character($0)) } }
    let tokens: [String] =
      bytes + bytes.map { $0 + "</w>" } + rules.map { $0.filter { $0 != " " } } + ["<|startoftext|>", "<|endoftext|>"]
    let vocabulary = Dictionary(zip(tokens, 0...), uniquingKeysWith: { first, _ in first })
    try JSONEncoder().encode(vocabulary).write(to: folder.appending(path: "vocab.json"))
  }
}
