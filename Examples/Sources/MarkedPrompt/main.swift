import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

// Draws a prompt whose marks are read as stable-diffusion-webui reads them: MarkedPrompt [MODEL].
do {
  let arguments = CommandLine.arguments.dropFirst()
  let model = try StableDiffusion.load(from: arguments.first.map { URL(filePath: $0) } ?? EmojiModel.folder())

  // snippet: request
  var request = model.request("a (red:1.2) [apple|tomato]", seed: 42)
  request.follow(.webui)  // all prompts of the request, and its noise
  // end snippet
  let images = try await model.pipeline.images(for: request)
  try Picture(images[0].image).write(to: URL(filePath: "marked.png"))
  print("The picture is in marked.png.")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
