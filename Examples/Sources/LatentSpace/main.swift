import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

/// Writes a picture, each pixel of which becomes a square.
func save(_ tensor: Tensor, enlarged factor: Int, to name: String) throws {
  let picture = Picture(tensor)
  try picture.resized(width: factor * picture.width, height: factor * picture.height, filter: .nearest).write(to: URL(filePath: name))
  print("A picture is in \(name).")
}

// Shows what a model works on, latents, as colours: LatentSpace [MODEL].
do {
  let arguments = CommandLine.arguments.dropFirst()
  let model = try StableDiffusion.load(from: arguments.first.map { URL(filePath: $0) } ?? EmojiModel.folder())

  // snippet: steps
  var pipeline = model.pipeline
  let colours = try LatentPreview(fittedTo: pipeline.autoencoder, in: ExecutionContext())
  pipeline.latentPreview = colours
  var request = model.request("red apple", seed: 42)
  request.previewInterval = max(1, request.steps / 6)
  // Of some steps: the latents after the step, and the clean ones as they look from there.
  var noisy: [Tensor] = [], estimates: [Tensor] = [], results: [GeneratedImage] = []
  for try await event in try pipeline.generate(request) {
    switch event {
    case .step(let step):
      guard let estimate = step.preview else { continue }
      noisy.append(colours.image(of: step.latents))
      estimates.append(estimate)
    case .image(let image): results.append(image)
    }
  }
  // end snippet
  try save(
    Tensor.concatenated([noisy, estimates].map { Tensor.concatenated($0, axis: 2) }, axis: 1), enlarged: 8, to: "latent-steps.png")

  // snippet: colours
  let (latents, image) = (results[0].latents, results[0].image)
  let small = Picture(colours.image(of: latents))
  let blocks = small.resized(width: image.shape[2], height: image.shape[1], filter: .nearest).tensor()
  try save(Tensor.concatenated([blocks, image], axis: 2), enlarged: 2, to: "latent-colours.png")
  let channels = (0..<latents.shape[3]).map { channel in
    Tensor.concatenated(Array(repeating: latents.channels(channel..<channel + 1) / 6 + 0.5, count: 3), axis: -1)
  }
  try save(Tensor.concatenated(channels, axis: 2), enlarged: 8, to: "latent-channels.png")
  // end snippet
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
