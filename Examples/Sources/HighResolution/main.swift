import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

// Draws a picture in the size that the model was made for, enlarges it, and draws over it in the new size: HighResolution [MODEL].
// Drawn at once in the larger size, a picture often shows its subject several times.
do {
  let arguments = CommandLine.arguments.dropFirst()
  let model = try StableDiffusion.load(from: arguments.first.map { URL(filePath: $0) } ?? EmojiModel.folder())

  // snippet: passes
  var request = model.request("red apple", seed: 42)
  let small = Picture(try await model.pipeline.images(for: request)[0].image)
  let enlarged = small.resized(width: 2 * small.width, height: 2 * small.height)
  request.task = ImageToImage(.pixels(enlarged.tensor()), strength: 0.5)
  let large = Picture(try await model.pipeline.images(for: request)[0].image)
  // end snippet
  try large.write(to: URL(filePath: "high-resolution.png"))
  print("The picture of \(large.width)×\(large.height) pixels is in high-resolution.png.")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
