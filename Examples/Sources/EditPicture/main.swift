import Foundation
import ImageFiles
import LatentDiffusion

/// What is wrong with what the program was given.
struct Mistake: Error, CustomStringConvertible {
  let description: String
}

// Changes a picture as words say, with a model that was made for it: EditPicture MODEL PICTURE WORDS.
do {
  let arguments = Array(CommandLine.arguments.dropFirst())
  guard arguments.count == 3 else { throw Mistake(description: "Give a model for editing, a picture, and words that say what to change.") }
  let picture = try Picture(contentsOf: URL(filePath: arguments[1]))

  // snippet: request
  let model = try StableDiffusion.load(from: URL(filePath: arguments[0]))
  var request = model.request(arguments[2], seed: 42)
  request.task = InstructionEditing(picture.tensor(), imageGuidance: 1.5)
  request.steps = 20
  let images = try await model.pipeline.images(for: request)
  // end snippet
  try Picture(images[0].image).write(to: URL(filePath: "edited.png"))
  print("The picture is in edited.png.")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
