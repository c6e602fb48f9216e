import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

/// Writes a model that remembers pictures with captions, as a folder in diffusers' layout.
func write(_ pictures: [GeneratedImage], captions: [String], autoencoder: URL, to folder: URL) throws {
  for name in ["memory", "scheduler"] {
    try FileManager.default.createDirectory(at: folder.appending(path: name), withIntermediateDirectories: true)
  }
  try FileManager.default.copyItem(at: autoencoder, to: folder.appending(path: "vae"))
  let texts = [
    "model_index.json": """
    {"_class_name": "RememberingPipeline", "memory": ["own", "RememberedPictures"], "vae": ["diffusers", "AutoencoderKL"],
     "scheduler": ["diffusers", "DDIMScheduler"]}
    """,
    "scheduler/scheduler_config.json": #"{"_class_name": "DDIMScheduler", "prediction_type": "sample", "clip_sample": false}"#,
  ]
  for (path, text) in texts { try Data(text.utf8).write(to: folder.appending(path: path)) }
  let side = pictures[0].latents.shape[1]
  let configuration = RememberedPictures.Configuration(sample_size: side, captions: captions)
  try JSONEncoder().encode(configuration).write(to: folder.appending(path: "memory/config.json"))
  let table = Tensor.concatenated(pictures.map(\.latents), axis: 0).reshaped([pictures.count, side * side * 4])
  let halves = pictures.map { picture in -0.5 * picture.latents.elements.reduce(0) { $0 + $1 * $1 } }
  try SafetensorsWriter.write(
    ["likeness.weight": table, "likeness.bias": Tensor(halves), "mean.weight": table.permuted([1, 0])],
    to: folder.appending(path: "memory/model.safetensors"))
}

// step: 2
// Writes a model of a kind that the library does not know, loads it and draws with it.
do {
  let folder = FileManager.default.temporaryDirectory.appending(path: "remembered-" + UUID().uuidString)
  defer { try? FileManager.default.removeItem(at: folder) }
  let emoji = try StableDiffusion.load(from: EmojiModel.folder())
  let examples = [("fruit", ["red apple", "grapes", "pear", "cherries"]), ("animal", ["cat face", "penguin", "fox", "turtle"])]
  var request = emoji.request("", seed: 1)
  request.prompts = examples.flatMap { $0.1.map { Prompt($0) } }
  let captions = examples.flatMap { Array(repeating: $0.0, count: $0.1.count) }
  let autoencoder = try EmojiModel.folder().appending(path: "vae")
  try write(try await emoji.pipeline.images(for: request), captions: captions, autoencoder: autoencoder, to: folder)

  // step: 3
  // snippet: registry
  var registry = ModelRegistry.standard
  registry.components.register(RememberedPictures.self)
  registry.families.append(RememberingFamily())
  let model = try DiffusionModel.load(from: folder, registry: registry)
  // end snippet
  print(try MemoryPlan(for: folder, registry: registry))

  // step: 4
  request = model.request("fruit", seed: 1)
  request.imagesPerPrompt = 4
  let images = try await model.pipeline.images(for: request).map(\.image)
  try Picture(Tensor.concatenated(images, axis: 2)).write(to: URL(filePath: "own-family.png"))
  print("The pictures are in own-family.png.")
  // step: 2
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
