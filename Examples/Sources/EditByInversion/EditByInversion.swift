import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

/// Changes a picture by its words: the noise that it would be drawn from is drawn again with another prompt, so that what the prompts have in common stays.
///
///     EditByInversion FOLDER
///
/// Source: Hertz, Mokady, Tenenbaum et al., "Prompt-to-prompt image editing", arXiv 2208.01626, section 4; diffusers' `DDIMInverseScheduler`.
@main struct EditByInversion {
  static func main() async throws {
    let folder = URL(filePath: CommandLine.arguments.dropFirst().first ?? "inversion")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let model = try StableDiffusion.load(from: EmojiModel.folder())
    let editor = try Inversion(model: model, steps: 50)

    let drawn = try await model.pipeline.images(for: model.request("a red apple", seed: 42))[0]
    let noise = try await editor.noise(of: drawn.latents, saying: "a red apple")
    let again = try await editor.draw("a red apple", from: noise)
    let edited = try await editor.draw("a green apple", from: noise)
    for (name, image) in [("drawn", drawn), ("again", again), ("edited", edited)] {
      try Picture(image.image).write(to: folder.appending(path: "\(name).png"))
      print("\(name).png differs from the first picture by \(distance(image.image, drawn.image)) of 255 on average")
    }
  }

  static func distance(_ one: Tensor, _ other: Tensor) -> Int {
    let apart = zip(one.elements, other.elements).map { abs($0 - $1) }
    return Int((apart.reduce(0, +) / Float(max(apart.count, 1)) * 255).rounded())
  }
}

/// A model with DDIM in both directions. Guidance would lead the two ways apart, so both go without.
struct Inversion {
  private var back, forth: StableDiffusion
  private let steps: Int

  init(model: StableDiffusion, steps: Int) throws {
    (back, forth, self.steps) = (model, model, steps)
    try back.use(.ddimInverse)
    try forth.use(.ddim)
  }

  /// The noise that a picture's latents would be drawn from.
  func noise(of latents: Tensor, saying prompt: String) async throws -> Tensor {
    var request = back.request(prompt, seed: 0)
    (request.steps, request.guidance, request.task) = (steps, 1, ImageToImage(.latents(latents), strength: 1))
    return try await back.pipeline.images(for: request)[0].latents
  }

  func draw(_ prompt: String, from noise: Tensor) async throws -> GeneratedImage {
    var request = forth.request(prompt, seed: 0)
    (request.steps, request.guidance, request.noise) = (steps, 1, noise)
    return try await forth.pipeline.images(for: request)[0]
  }
}
