import ArgumentParser
import ImageFiles
import LatentDiffusion

struct Upscale: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "upscale", abstract: "Enlarges a picture, with a model made for it.",
    discussion: """
      A latent upscaler doubles the sides. It takes a picture, which is resampled to sides that the model can double, or the latents of one. Other upscalers \
      take a picture as it is. With another model, ldm img2img --width W --height H --strength 0.3 enlarges a picture and draws over it, and ldm hires draws a \
      large one from words.

      Example: ldm upscale --model models/x4-upscaler --prompt "a castle" --image small.png -o large.png
      """)
  @OptionGroup var options: GenerateOptions

  @Option(parsing: .unconditional, help: "The picture: PNG, JPEG or WebP.")
  var image: String?

  @Option(
    parsing: .unconditional,
    help: "The latents in the place of a picture, for a latent upscaler: a tensor [N, 4, h, w], named latents or the only one.")
  var latents: String?

  @Option(
    parsing: .unconditional,
    help: """
      How much noise the picture gets first, from 0 to what the model allows: the more, the freer the result. Without it, 20. A latent upscaler gives none.
      """)
  var noiseLevel: Int?

  func validate() throws {
    guard (image == nil) != (latents == nil) else { throw ValidationError("Give either --image or --latents.") }
    guard noiseLevel ?? 0 >= 0 else { throw ValidationError("--noise-level must be a whole number from 0.") }
    guard latents == nil || noiseLevel == nil else { throw ValidationError("Latents get no noise: leave --noise-level out.") }
  }

  func run() async throws { try await options.run(reading: [image, latents].compactMap(\.self), task()) }

  private func task() throws -> any GenerationTask {
    // What is wrong with a model is said when it is loaded.
    let files = try options.model.files, family = try? DiffusionModel.family(of: files.base, replacing: files.parts)
    let isLatent = family is StableDiffusionLatentUpscaleFamily, name = options.model.name
    guard isLatent || family == nil || family is StableDiffusionUpscaleFamily else {
      throw Failure(
        "\(name) is no upscaler; give --model one, such as stable-diffusion-x4-upscaler or sd-x2-latent-upscaler, or enlarge the picture and draw over "
          + "it with ldm img2img --width W --height H --strength 0.3.")
    }
    switch (image, latents) {
    case (let image?, _) where isLatent:
      guard noiseLevel == nil else { throw Failure("\(name) is a latent upscaler and takes no --noise-level.") }
      return LatentUpscaling(.pixels(try picture(image).tensor()))
    case (let image?, _): return Upscaling(try picture(image).tensor(), noiseLevel: noiseLevel ?? 20)
    case (nil, let latents):
      guard isLatent || family == nil else { throw Failure("\(name) is no latent upscaler and takes no --latents; give it an --image.") }
      return LatentUpscaling(.latents(try readLatents(latents ?? "", names: ["latents"])))
    }
  }
}
