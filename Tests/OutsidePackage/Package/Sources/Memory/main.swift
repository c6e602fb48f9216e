import EmojiModel
import Foundation
import LatentDiffusion

// Whether a plan's bytes are those of real processes: a model of random weights, larger than any cache, is made on the spot, and this
// program runs itself once for each way to hold it.

struct Case: Codable {
  var name: String
  var side: Int
  var images = 1
  var limit: Int?
  var weights: String?
  var isSteered = false
  var seesPicture = false

  /// What is used beside the model in its folder.
  func company(in folder: URL) -> ModelCompany {
    ModelCompany(
      controls: isSteered ? [folder.appending(path: "controlnet")] : [],
      ipAdapters: seesPicture
        ? ModelCompany.IPAdapters([folder.appending(path: "ip-adapter.safetensors")], encoder: folder.appending(path: "image_encoder"))
        : nil)
  }
}

/// The most memory that this process has had resident.
func peakResidentBytes() -> Int {
  let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
  let line = status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") } ?? ""
  return line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) }.map { $0 * 1024 } ?? 0
}

/// Two steps and the decoding of a case; prints what was predicted and what it took.
func run(_ text: String, model url: URL) async throws {
  let used = try JSONDecoder().decode(Case.self, from: Data(text.utf8))
  let form = used.weights.flatMap(WeightForm.init)
  let extent = GenerationExtent(size: PixelSize(width: used.side, height: used.side), images: used.images)
  let company = used.company(in: url), context = ExecutionContext(threads: 2)
  let plan = try MemoryPlan(for: url, beside: company, extent, limit: used.limit, weights: form, threads: 2)
  var model = try DiffusionModel.load(from: url, plan: plan, in: context)
  let picture = Tensor(repeating: 0.5, shape: [1, used.side, used.side, 3])
  if let adapters = company.ipAdapters {
    let encoder = try CLIPImageEncoder.load(from: adapters.encoder, plan: plan, in: context)
    model = try model.adding(ipAdapter: adapters.files[0], imageEncoder: encoder, in: context)
    precondition(model.warnings.isEmpty, "The plan knows of the adapter.")
  }
  var request = model.request("a cat", seed: 1)
  (request.width, request.height, request.imagesPerPrompt, request.steps, request.guidance) = (used.side, used.side, used.images, 2, 3)
  request.controls = try company.controls.map { Control(try ControlNetModel.load(from: $0, plan: plan, in: context), picture: picture) }
  if used.seesPicture { request.imagePrompts = [ImagePrompt([picture])] }
  _ = try await model.pipeline.images(for: request, in: context)
  print(plan.predictedPeakBytes, peakResidentBytes())
}

/// Gives random weights and remembers them, so that a configuration alone makes a checkpoint.
final class Recorder: WeightSource, @unchecked Sendable {
  private(set) var tensors: [String: WeightTensor] = [:]
  private let lock = NSLock()
  let names: Set<String> = []
  func tensor(_ name: String, shape: Shape) throws(WeightError) -> WeightTensor {
    let tensor = try RandomWeights(seed: 1, elementType: .float16).tensor(name, shape: shape)
    lock.withLock { tensors[name] = tensor }
    return tensor
  }
}

func write<Component: ModelComponent>(_ type: Component.Type, _ name: String, _ changes: [String: any Sendable], to folder: URL) throws {
  let config = folder.appending(path: "\(name)/config.json")
  var json = try JSONSerialization.jsonObject(with: Data(contentsOf: config)) as? [String: Any] ?? [:]
  for (key, value) in changes { json[key] = value }
  let data = try JSONSerialization.data(withJSONObject: json)
  try data.write(to: config)
  let recorder = Recorder()
  _ = try LoadReport.load(from: recorder, in: ExecutionContext()) { try Component(configuration: data, weights: $0) }
  let file = type == CLIPVisionModelWithProjection.self ? "model" : "diffusion_pytorch_model"
  try SafetensorsWriter.write(recorder.tensors, to: folder.appending(path: "\(name)/\(file).safetensors"))
}

/// A plain IP-Adapter of four tokens for a U-Net, and an image encoder of so many features.
func writeIPAdapter(for unet: UNet2DConditionModel, features: Int, to folder: URL) throws {
  let encoder = folder.appending(path: "image_encoder"), recorder = Recorder()
  try FileManager.default.createDirectory(at: encoder, withIntermediateDirectories: true)
  try Data(#"{"_class_name": "CLIPVisionModelWithProjection", "architectures": ["CLIPVisionModelWithProjection"]}"#.utf8)
    .write(to: encoder.appending(path: "config.json"))
  let tower: [String: any Sendable] = [
    "hidden_size": features, "projection_dim": features, "intermediate_size": 4 * features, "num_hidden_layers": 12,
    "num_attention_heads": features / 64, "image_size": 224, "patch_size": 14, "hidden_act": "gelu",
  ]
  try write(CLIPVisionModelWithProjection.self, "image_encoder", tower, to: folder)
  _ = try LoadReport.load(from: recorder, in: ExecutionContext()) { weights in
    (
      try ImageProjection(features, tokens: 4, contextChannels: unet.configuration.contextChannels, weights: weights["image_proj"]),
      try unet.pictureAttentions(weights: weights["ip_adapter"])
    )
  }
  try SafetensorsWriter.write(recorder.tensors, to: folder.appending(path: "ip-adapter.safetensors"))
}

if CommandLine.arguments.count == 3 {
  try await run(CommandLine.arguments[1], model: URL(filePath: CommandLine.arguments[2]))
} else {
  let root = FileManager.default.temporaryDirectory.appending(path: "memory-" + UUID().uuidString, directoryHint: .isDirectory)
  try FileManager.default.createDirectory(at: root, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: root) }
  let folder = root.appending(path: "model", directoryHint: .isDirectory)
  try FileManager.default.copyItem(at: EmojiModel.folder(), to: folder)
  let down = ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
  let up = ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"]
  let unet: [String: any Sendable] = [
    "block_out_channels": [160, 320, 480, 480], "down_block_types": down, "up_block_types": up, "layers_per_block": 2,
    "attention_head_dim": 8, "norm_num_groups": 32, "sample_size": 32,
  ]
  let vae: [String: any Sendable] = [
    "block_out_channels": [64, 128, 256, 256], "layers_per_block": 2, "norm_num_groups": 32, "sample_size": 256,
    "down_block_types": Array(repeating: "DownEncoderBlock2D", count: 4), "up_block_types": Array(repeating: "UpDecoderBlock2D", count: 4),
  ]
  try write(UNet2DConditionModel.self, "unet", unet, to: folder)
  try write(AutoencoderKL.self, "vae", vae, to: folder)
  let controlnet = folder.appending(path: "controlnet"), dropped = ["up_block_types", "out_channels", "sample_size"]
  try FileManager.default.createDirectory(at: controlnet, withIntermediateDirectories: true)
  let config = try Data(contentsOf: folder.appending(path: "unet/config.json"))
  var json = try JSONSerialization.jsonObject(with: config) as? [String: Any] ?? [:]
  for key in dropped { json[key] = nil }
  json["_class_name"] = "ControlNetModel"
  try JSONSerialization.data(withJSONObject: json).write(to: controlnet.appending(path: "config.json"))
  try write(ControlNetModel.self, "controlnet", ["conditioning_embedding_out_channels": [16, 32, 96, 256]], to: folder)
  let made = try UNet2DConditionModel.load(from: folder.appending(path: "unet"))
  try writeIPAdapter(for: made, features: 512, to: folder)
  // A file that was written at once lies in the system's cache in pieces of megabytes, of which more stays mapped than of a file that was copied.
  let copied = root.appending(path: "copied", directoryHint: .isDirectory)
  let copying = Process()
  copying.executableURL = URL(filePath: "/bin/cp")
  copying.arguments = ["-r", folder.path(percentEncoded: false), copied.path(percentEncoded: false)]
  try copying.run()
  copying.waitUntilExit()
  let cases = [
    Case(name: "as the files have it", side: 256), Case(name: "a batch", side: 256, images: 3), Case(name: "larger", side: 512),
    Case(name: "within a limit", side: 256, limit: 306_000_000), Case(name: "8 bits", side: 256, weights: "q8"),
    Case(name: "float32", side: 256, weights: "f32"), Case(name: "in tiles", side: 384, images: 2, limit: 400_000_000),
    Case(name: "with a ControlNet", side: 256, images: 2, isSteered: true),
    Case(name: "with a ControlNet within a limit", side: 256, limit: 400_000_000, isSteered: true),
    Case(name: "with an IP-Adapter", side: 256, seesPicture: true),
    Case(name: "with both within a limit", side: 384, limit: 460_000_000, isSteered: true, seesPicture: true),
  ]
  for used in cases {
    let process = Process(), pipe = Pipe()
    process.executableURL = URL(filePath: CommandLine.arguments[0])
    process.arguments = [String(decoding: try JSONEncoder().encode(used), as: UTF8.self), copied.path(percentEncoded: false)]
    process.standardOutput = pipe
    try process.run()
    let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    let numbers = output.split(whereSeparator: \.isWhitespace).compactMap { Double($0) }
    let isRight = numbers.count == 2 && abs(numbers[0] / numbers[1] - 1) < 0.1 && numbers[1] < 1.03 * Double(used.limit ?? .max)
    let megabytes = numbers.map { "\(Int($0 / 1e6))" }.joined(separator: " MB predicted, in fact ")
    print(isRight ? "passed:" : "FAILED:", "memory \(used.name), \(used.side) pixels, \(used.images): \(megabytes) MB")
  }
}
