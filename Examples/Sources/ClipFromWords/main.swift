import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionVideoFiles

/// What is wrong with what the program was given.
struct Mistake: Error, CustomStringConvertible {
  let description: String
}

// Draws a clip with a model for pictures and motion modules (AnimateDiff): ClipFromWords MODEL MOTION-MODULE WORDS.
do {
  let arguments = Array(CommandLine.arguments.dropFirst())
  guard arguments.count == 3 else { throw Mistake(description: "Give a model, motion modules for it, and words that say what to draw.") }

  // snippet: clip
  var model = try StableDiffusion.load(
    from: URL(filePath: arguments[0]), replacing: ["motion_adapter": URL(filePath: arguments[1])])
  try model.use(.ddim, betas: .linear)  // as AnimateDiff was trained
  var request = model.request(arguments[2], seed: 42)
  request.task = TextToVideo(frames: 16)
  let frames = try await model.pipeline.images(for: request)
  let clip = try Clip(frames.map { Picture($0.image) }, framesPerSecond: 8)
  // end snippet
  try clip.write(to: URL(filePath: "clip.webp"))
  print("The clip of \(clip.frames.count) frames is in clip.webp.")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
