import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

// Draws a picture, and paints its right half anew: InpaintPicture [MODEL].
do {
  let arguments = CommandLine.arguments.dropFirst()
  let model = try StableDiffusion.load(from: arguments.first.map { URL(filePath: $0) } ?? EmojiModel.folder())
  let picture = try await model.pipeline.images(for: model.request("red apple", seed: 42))[0].image

  // snippet: mask
  // 1 where the picture is painted anew, 0 where it is kept. `Picture.mask()` reads one from a file.
  let (height, width) = (picture.shape[1], picture.shape[2])
  let mask = Tensor((0..<height * width).map { $0 % width < width / 2 ? Float(0) : 1 }, shape: [1, height, width, 1])
  // end snippet

  // snippet: request
  var request = model.request("green apple", seed: 1)
  request.task = Inpainting(image: picture, mask: mask, keepsPixelsOutsideMask: true)
  let images = try await model.pipeline.images(for: request)
  // end snippet
  try Picture(images[0].image).write(to: URL(filePath: "inpainted.png"))
  print("The picture is in inpainted.png.")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
