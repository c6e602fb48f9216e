import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// One of diffusers' own fast tests with the slice that it expects, as `Tests/Fixtures/published/make_published.py` wrote it down.
struct PublishedCase: Decodable, Sendable, CustomTestStringConvertible {
  let name: String
  /// The class in diffusers.
  let pipeline: String
  /// The components' files, by what they are in the pipeline.
  let parts: [String: String]
  /// Their libraries and classes.
  let types: [String: [String]]
  let schedulers: [String: JSONValue]
  /// What else `model_index.json` says.
  let options: [String: JSONValue]
  let processor: JSONValue?
  let arguments: Arguments
  /// Which picture of the batch is looked at.
  let picture: Int
  /// What stands in the test, and what the test allows.
  let expected: [Float]
  let tolerance: Float
  /// What the version of diffusers that wrote the case down gave.
  let reference: [Float]

  private enum CodingKeys: String, CodingKey {
    case name, pipeline, parts, types, schedulers, options, arguments, picture, expected, tolerance, reference
    case processor = "feature_extractor"
  }

  /// What the test calls the pipeline with.
  struct Arguments: Decodable, Sendable {
    enum Key: String, CodingKey, CaseIterable {
      case prompt, generator, image, strength, height, width
      case negativePrompt = "negative_prompt"
      case steps = "num_inference_steps"
      case guidance = "guidance_scale"
      case mask = "mask_image"
      case imageGuidance = "image_guidance_scale"
      case isGuessing = "guess_mode"
      case controlImage = "control_image"
      case noiseLevel = "noise_level"
      case batch = "batch_size"
    }

    let prompts, negativePrompts, images: [String]
    let seed: UInt64
    let steps: Int
    let guidance, strength, imageGuidance: Double?
    let width, height, noiseLevel: Int?
    let mask, controlImage: String?
    let isGuessing: Bool

    init(from decoder: any Decoder) throws {
      let given = try [String: JSONValue](from: decoder).keys.filter { Key(rawValue: $0) == nil }
      try #require(given.isEmpty, "arguments that this test does not know: \(given)")
      let values = try decoder.container(keyedBy: Key.self)
      func texts(_ key: Key) throws -> [String] {
        if let one = try? values.decode(String.self, forKey: key) { return [one] }
        return try values.decodeIfPresent([String].self, forKey: key) ?? []
      }
      (prompts, negativePrompts, images) = (try texts(.prompt), try texts(.negativePrompt), try texts(.image))
      seed = try values.decode(UInt64.self, forKey: .generator)
      steps = try values.decode(Int.self, forKey: .steps)
      guidance = try values.decodeIfPresent(Double.self, forKey: .guidance)
      strength = try values.decodeIfPresent(Double.self, forKey: .strength)
      imageGuidance = try values.decodeIfPresent(Double.self, forKey: .imageGuidance)
      (width, height) = (try values.decodeIfPresent(Int.self, forKey: .width), try values.decodeIfPresent(Int.self, forKey: .height))
      noiseLevel = try values.decodeIfPresent(Int.self, forKey: .noiseLevel)
      mask = try values.decodeIfPresent(String.self, forKey: .mask)
      controlImage = try values.decodeIfPresent(String.self, forKey: .controlImage)
      isGuessing = try values.decodeIfPresent(Bool.self, forKey: .isGuessing) ?? false
      try #require(try values.decodeIfPresent(Int.self, forKey: .batch) ?? 1 == 1)
    }
  }

  var testDescription: String { name }

  static let folder = fixtures.appending(path: "published")

  static func all() throws -> [PublishedCase] {
    try JSONDecoder().decode([PublishedCase].self, from: Data(contentsOf: folder.appending(path: "cases.json")))
  }
}

// MARK: the model

extension PublishedCase {
  /// They are no part of the model here.
  private static let controls: Set<String> = ["controlnet", "adapter"]
  private var isUnconditional: Bool { ["DDPMPipeline", "DDIMPipeline", "PNDMPipeline"].contains(pipeline) }

  /// The test's components as diffusers would have saved them, in a folder.
  func save() throws -> TemporaryFolder {
    let folder = try TemporaryFolder()
    var index = options
    index["_class_name"] = .text(pipeline)
    for (part, file) in parts {
      let library = try #require(types[part])
      let component = try SeededComponent(contentsOf: Self.folder.appending(path: "components/\(file).json"))
      try folder.write("\(part)/config.json", JSONEncoder().encode(component.config))
      let weights = library[0] == "diffusers" ? "diffusion_pytorch_model" : "model"
      try SafetensorsWriter.write(component.tensors(), to: folder.url.appending(path: "\(part)/\(weights).safetensors"))
      if !Self.controls.contains(part) { index[part] = .list(library.map(JSONValue.text)) }
      guard part.hasPrefix("text_encoder") else { continue }
      let tokenizer = part.replacing("text_encoder", with: "tokenizer")
      index[tokenizer] = .list([.text("transformers"), .text("CLIPTokenizer")])
      try FileManager.default.copyItem(at: Self.folder.appending(path: "tokenizer"), to: folder.url.appending(path: tokenizer))
    }
    for (part, configuration) in schedulers {
      guard case .object(let values) = configuration, let name = values["_class_name"] else { continue }
      index[part] = .list([.text("diffusers"), name])
      try folder.write("\(part)/scheduler_config.json", JSONEncoder().encode(configuration))
    }
    if let processor {
      index["feature_extractor"] = .list([.text("transformers"), .text("CLIPImageProcessor")])
      try folder.write("feature_extractor/preprocessor_config.json", JSONEncoder().encode(processor))
    }
    try folder.write("model_index.json", JSONEncoder().encode(index))
    return folder
  }

  /// The pipeline with the test's scheduler as it is: tests exchange it after diffusers' pipelines have corrected the model's own.
  func load(from folder: TemporaryFolder) throws -> DiffusionPipeline {
    let json = try JSONEncoder().encode(#require(schedulers["scheduler"]))
    let configuration = try SchedulerConfiguration(json: json)
    let kind = try SchedulerKind(of: configuration), isConsistent = pipeline == "LatentConsistencyModelImg2ImgPipeline"
    let schedule: @Sendable (Int, any GenerationTask, SamplingSettings) throws -> Schedule = { steps, task, _ in
      // The others leave steps out of all that are made.
      if isConsistent { return Schedule(try LCMScheduler(configuration, steps: steps, strength: task.strength)) }
      return Schedule(try kind.make(configuration: configuration, steps: steps), steps: steps, strength: task.strength)
    }
    if isUnconditional {
      return DiffusionPipeline(
        predictor: try UNet2DModel.load(from: folder.url.appending(path: "unet")), autoencoder: Pixels(), conditioner: NoConditioner(),
        schedule: schedule)
    }
    var pipeline = try DiffusionModel.load(from: folder.url).pipeline
    pipeline.schedule = schedule
    return pipeline
  }

  func loadControl(from folder: TemporaryFolder) throws -> (any ControlModel)? {
    if parts["controlnet"] != nil { return try ControlNetModel.load(from: folder.url.appending(path: "controlnet")) }
    return try parts["adapter"].map { _ in try T2IAdapter.load(from: folder.url.appending(path: "adapter")) }
  }
}

/// What networks of pixels have for an autoencoder.
private struct Pixels: LatentAutoencoder {
  var spatialScale: Int { 1 }
  var latentChannels: Int { 3 }
  var latentScale: Float { 1 }
  func encode(_ image: Tensor, in context: ExecutionContext) -> EncodedPicture { .latents(image) }
  func decode(_ latents: Tensor, in context: ExecutionContext) -> Tensor { latents }
}

// MARK: the request

extension PublishedCase {
  func request(control: (any ControlModel)?) throws -> GenerationRequest {
    let isVariation = parts["image_encoder"] != nil
    let prompts = arguments.prompts.isEmpty ? Array(repeating: "", count: max(1, arguments.images.count)) : arguments.prompts
    var request = GenerationRequest(prompts: prompts.map { Prompt($0) }, seed: arguments.seed)
    request.negativePrompts = arguments.negativePrompts.map { Prompt($0) }
    request.steps = arguments.steps
    if let guidance = arguments.guidance ?? (isUnconditional ? 1 : nil) { request.guidance = guidance }
    (request.width, request.height) = (arguments.width, arguments.height)
    if isVariation {
      // One picture for all; the tests have no other.
      try #require(Set(arguments.images).count == 1)
      request.imagePrompts = [ImagePrompt([try input(arguments.images[0])])]
    } else {
      request.task = try task()
    }
    if let control {
      let given = try #require(arguments.controlImage ?? arguments.images.first)
      request.controls = [Control(control, picture: try input(given), isGuessing: arguments.isGuessing)]
    }
    return request
  }

  private func task() throws -> any GenerationTask {
    // A tensor of -1…1 is taken as it is by diffusers, and one of 0…1 becomes that.
    func image() throws -> Tensor {
      let tensor = try input(#require(arguments.images.first))
      return tensor.elements.contains { $0 < 0 } ? tensor * 0.5 + Tensor(repeating: 0.5, shape: tensor.shape) : tensor
    }
    if pipeline.contains("Img2Img") { return ImageToImage(.pixels(try image()), strength: arguments.strength ?? 0.8) }
    if pipeline.contains("Inpaint") {
      return Inpainting(image: try image(), mask: try input(#require(arguments.mask), asMask: true), strength: arguments.strength ?? 1)
    }
    if pipeline.contains("InstructPix2Pix") { return InstructionEditing(try image(), imageGuidance: arguments.imageGuidance ?? 1.5) }
    if pipeline.contains("Upscale") { return Upscaling(try image(), noiseLevel: arguments.noiseLevel ?? 20) }
    return TextToImage()
  }

  /// A picture as the test gives it: a file, or numbers.
  private func input(_ name: String, asMask isMask: Bool = false) throws -> Tensor {
    let url = Self.folder.appending(path: "inputs/\(name)")
    guard name.hasSuffix(".png") else { return try #require(try readTensors(url)["input"]).channelsLast() }
    let picture = try Picture(contentsOf: url)
    return isMask ? picture.mask() : picture.tensor()
  }
}
