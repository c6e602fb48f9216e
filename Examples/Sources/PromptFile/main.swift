import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

/// What is wrong with what the program was given.
struct Mistake: Error, CustomStringConvertible {
  let description: String
}

// Draws each line of a file, with a model that is loaded once: PromptFile FILE [MODEL].
do {
  let arguments = CommandLine.arguments.dropFirst()
  guard let name = arguments.first else { throw Mistake(description: "Give a file that has a prompt in each line.") }
  guard let text = try? String(contentsOf: URL(filePath: name), encoding: .utf8) else {
    throw Mistake(description: "There is no text at \(name); give a file that has a prompt in each line.")
  }
  let prompts = text.split(whereSeparator: \.isNewline).map { $0.trimmingCharacters(in: .whitespaces) }.filter { !$0.isEmpty }
  guard !prompts.isEmpty else { throw Mistake(description: "\(name) has no prompts; give a file that has one in each line.") }
  let model = try StableDiffusion.load(from: arguments.dropFirst().first.map { URL(filePath: $0) } ?? EmojiModel.folder())

  // snippet: pictures
  for (index, prompt) in prompts.enumerated() {
    let images = try await model.pipeline.images(for: model.request(prompt, seed: 42))
    let file = String(format: "picture-%03d.png", index + 1)
    try Picture(images[0].image).write(to: URL(filePath: file))
    print("The picture of \(prompt) is in \(file).")
  }
  // end snippet
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
