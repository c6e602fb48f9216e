import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

// Draws a picture, and draws another one over it: ImageToImage [MODEL].
do {
  let arguments = CommandLine.arguments.dropFirst()
  let model = try StableDiffusion.load(from: arguments.first.map { URL(filePath: $0) } ?? EmojiModel.folder())
  let apple = try await model.pipeline.images(for: model.request("red apple", seed: 42))[0].image

  // snippet: request
  var request = model.request("tomato", seed: 1)
  request.task = ImageToImage(.pixels(apple), strength: 0.7)
  let images = try await model.pipeline.images(for: request)
  // end snippet
  try Picture(images[0].image).write(to: URL(filePath: "image-to-image.png"))
  print("The picture is in image-to-image.png.")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
