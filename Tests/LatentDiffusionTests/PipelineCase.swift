import Foundation
import ImageFiles
import LatentDiffusion
import Synchronization
import LatentDiffusionTestSupport
import Testing

/// A run of one of diffusers' pipelines on a tiny model, as `Tests/Fixtures/models/README.md` describes it.
struct PipelineCase: Decodable, Sendable, CustomTestStringConvertible {
  let name: String
  let files: [String]
  let pipeline: String
  let prompts: [String]
  let negativePrompts: [String]?
  let imagesPerPrompt: Int?
  let steps: Int
  let guidance: Double
  let imageGuidance: Double?
  let strength: Double?
  let clipSkip: Int?
  let width: Int?
  let height: Int?
  let image: String?
  let mask: String?
  let depth: String?
  let noiseLevel: Int?
  let seed: UInt64
  let scheduler: String?
  let timesteps: [Float]
  let draws: [[Int]]
  let prompt2: String?
  let negativePrompt2: String?
  /// Heights before widths, as are the other sizes.
  let originalSize: [Int]?
  let crop: [Int]?
  let targetSize: [Int]?
  let negativeOriginalSize: [Int]?
  let negativeCrop: [Int]?
  let negativeTargetSize: [Int]?
  let aestheticScore: Double?
  let negativeAestheticScore: Double?
  let denoisingStart: Double?
  let denoisingEnd: Double?
  let guidanceRescale: Double?
  /// Whether the pipeline is told that the model is CosXL's.
  let scalesPictures: Bool?
  /// The shape of the latents that the reference was given as a picture.
  let latents: [Int]?
  /// IP-Adapters, with what they are shown.
  let adapters: [Adapter]?
  /// The folder of the tiny model, where the case is not in it.
  private let base: String?

  struct Adapter: Decodable, Sendable {
    let file: String
    let scale: Double
    let pictures: [String]
  }

  private enum CodingKeys: String, CodingKey {
    case name, files, pipeline, prompts, steps, guidance, strength, width, height, image, mask, depth, seed, scheduler, timesteps, draws
    case negativePrompts = "negative_prompts"
    case noiseLevel = "noise_level"
    case imagesPerPrompt = "images_per_prompt"
    case imageGuidance = "image_guidance"
    case clipSkip = "clip_skip"
    case prompt2 = "prompt_2"
    case negativePrompt2 = "negative_prompt_2"
    case originalSize = "original_size"
    case crop, latents, adapters
    case base = "model"
    case targetSize = "target_size"
    case negativeOriginalSize = "negative_original_size"
    case negativeCrop = "negative_crop"
    case negativeTargetSize = "negative_target_size"
    case aestheticScore = "aesthetic_score"
    case negativeAestheticScore = "negative_aesthetic_score"
    case denoisingStart = "denoising_start"
    case denoisingEnd = "denoising_end"
    case guidanceRescale = "guidance_rescale"
    case scalesPictures = "is_cosxl_edit"
  }

  /// The name of the folder that it is in.
  var home = ""
  /// The name of the model's folder.
  var model: String { base ?? home }

  var testDescription: String { "\(home), \(name)" }

  /// - Parameter home: a model's folder, or one of cases alone.
  static func all(of home: String) throws -> [PipelineCase] {
    struct File: Decodable { let pipelines: [PipelineCase] }
    let decoder = JSONDecoder()
    decoder.allowsJSON5 = true
    let data = try Data(contentsOf: ReferenceModel(home).folder.appending(path: "cases.json"))
    return try decoder.decode(File.self, from: data).pipelines.map {
      var found = $0
      found.home = home
      return found
    }
  }

  /// What the reference made of it, as PyTorch lays it out.
  func reference() throws -> [String: Tensor] {
    try files.reduce(into: [:]) { all, file in
      all.merge(try readTensors(ReferenceModel(home).folder.appending(path: "reference/\(file)"))) { first, _ in first }
    }
  }
}

extension PipelineCase {
  func request() throws -> GenerationRequest {
    var request = GenerationRequest(prompts: prompts.map { Prompt($0, skippedLayers: clipSkip ?? 0, second: prompt2) }, seed: seed)
    request.negativePrompts = (negativePrompts ?? []).map { Prompt($0, second: negativePrompt2) }
    request.sizes = sizes(originalSize, crop, targetSize, aestheticScore)
    if negativeOriginalSize != nil || negativeAestheticScore != nil {
      request.negativeSizes = sizes(negativeOriginalSize, negativeCrop, negativeTargetSize, negativeAestheticScore)
    }
    (request.denoisingStart, request.denoisingEnd) = (denoisingStart, denoisingEnd)
    request.imagesPerPrompt = imagesPerPrompt ?? 1
    request.steps = steps
    request.guidance = guidance
    request.guidanceRescale = guidanceRescale ?? 0
    (request.width, request.height) = (width, height)
    request.task = try task()
    request.imagePrompts = try imagePrompts()
    return request
  }

  private func sizes(_ original: [Int]?, _ crop: [Int]?, _ target: [Int]?, _ score: Double?) -> SizeConditioning {
    func size(_ sides: [Int]?) -> PixelSize? { sides.map { PixelSize(width: $0[1], height: $0[0]) } }
    return SizeConditioning(
      original: size(original), crop: crop.map { .init(top: $0[0], left: $0[1]) }, target: size(target), aestheticScore: score)
  }

  private func picture(_ name: String?) throws -> Picture {
    try Picture(contentsOf: fixtures.appending(path: "models/inputs/\(name ?? "")"))
  }

  private func imagePrompts() throws -> [ImagePrompt] {
    if ["unclip", "variation"].contains(pipeline) { return [ImagePrompt([try picture(image).tensor()], noiseLevel: noiseLevel)] }
    return try (adapters ?? []).map { ImagePrompt(try $0.pictures.map { try picture($0).tensor() }, scale: $0.scale) }
  }

  private func task() throws -> GenerationTask {
    return switch pipeline {
    case "image-to-image", "latent-consistency-image-to-image":
      latents != nil
        ? ImageToImage(.latents(try #require(reference()["input.latents"]).channelsLast()), strength: strength ?? 0.8)
        : ImageToImage(.pixels(try picture(image).tensor()), strength: strength ?? 0.8)
    case "inpainting": Inpainting(image: try picture(image).tensor(), mask: try picture(mask).mask(), strength: strength ?? 1)
    case "depth-to-image":
      DepthToImage(.pixels(try picture(image).tensor()), depth: try picture(depth).mask(), strength: strength ?? 0.8)
    case "latent-upscaling":
      try LatentUpscaling(image == nil ? .latents(#require(reference()["input.latents"]).channelsLast()) : .pixels(picture(image).tensor()))
    case "upscaling": Upscaling(try picture(image).tensor(), noiseLevel: noiseLevel ?? 20)
    case "editing": InstructionEditing(try picture(image).tensor(), imageGuidance: imageGuidance ?? 1.5)
    default: TextToImage()
    }
  }
}

/// A generator that writes down what is drawn from it.
struct RecordedNoise: NoiseSource {
  final class Record: Sendable {
    private let all = Mutex<[[Float]]>([])
    var draws: [[Float]] { all.withLock { $0 } }
    func note(_ draw: [Float]) { all.withLock { $0.append(draw) } }
  }

  private var source: TorchGenerator
  private let record: Record

  /// The generator alone: what was written down stays behind.
  init(from decoder: any Decoder) throws { (source, record) = (try TorchGenerator(from: decoder), Record()) }

  func encode(to encoder: any Encoder) throws { try source.encode(to: encoder) }

  init(seed: UInt64, record: Record) {
    source = TorchGenerator(seed: seed)
    self.record = record
  }

  mutating func normal(_ count: Int) -> [Float] {
    let draw = source.normal(count)
    record.note(draw)
    return draw
  }

  mutating func permutation(_ count: Int) -> [Int] { source.permutation(count) }
}
