import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

// Draws a picture, and paints more of it on the left and on the right: OutpaintPicture [MODEL].
do {
  let arguments = CommandLine.arguments.dropFirst()
  let model = try StableDiffusion.load(from: arguments.first.map { URL(filePath: $0) } ?? EmojiModel.folder())
  let picture = try await model.pipeline.images(for: model.request("red apple", seed: 42))[0].image

  // snippet: request
  var request = model.request("cherries", seed: 1)
  let border = picture.shape[2] / 4
  request.task = try Inpainting.outpainting(picture, left: border, right: border)
  let images = try await model.pipeline.images(for: request)
  // end snippet
  try Picture(images[0].image).write(to: URL(filePath: "outpainted.png"))
  print("The picture is in outpainted.png.")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
