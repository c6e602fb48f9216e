import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionVideoFiles

// Draws a clip that walks from one prompt and seed to another, and back: Walk [MODEL].
do {
  let arguments = CommandLine.arguments.dropFirst()
  let model = try StableDiffusion.load(from: arguments.first.map { URL(filePath: $0) } ?? EmojiModel.folder())

  // snippet: walk
  let morph = try Morph(
    [.init("red apple", seed: 1, time: 0), .init("sunflower", seed: 2, time: 1)], easing: .easeInOut, isPingPong: true)
  let walk = try await model.pipeline.walk(morph, frames: 16, like: model.request(""))
  var images: [GeneratedImage] = []
  for batch in walk.batches(of: 4) { images += try await model.pipeline.images(for: walk.request(batch)) }
  let clip = try Clip(walk.frames.map { Picture(images[$0].image) }, framesPerSecond: 8)
  // end snippet
  try clip.write(to: URL(filePath: "walk.webp"))
  print("The clip of \(clip.frames.count) frames is in walk.webp.")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
