import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

// Draws with a scheduler, steps and a negative prompt that are chosen, and tells of each step: ChosenSettings [MODEL].
do {
  let folder = try CommandLine.arguments.dropFirst().first.map { URL(filePath: $0) } ?? EmojiModel.folder()

  // step: 2
  // snippet: request
  var model = try StableDiffusion.load(from: folder)
  try model.use(.dpmSolverMultistep, spacing: .karras)
  // step: 3
  var request = model.request("red apple", seed: 7)
  request.negativePrompts = ["blurry"]
  request.steps = 15
  // step: 4
  for try await event in try model.pipeline.generate(request) {
    switch event {
    case .step(let step): print("step \(step.index + 1) of \(step.count)")
    case .image(let image): try Picture(image.image).write(to: URL(filePath: "chosen.png"))
    }
  }
  // end snippet
  print("The picture is in chosen.png.")
  // end step
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
