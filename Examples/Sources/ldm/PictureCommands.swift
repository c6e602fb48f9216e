import ArgumentParser
import ImageFiles
import LatentDiffusion

struct Txt2Img: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "txt2img", abstract: "Draws a picture from words.",
    discussion: """
      Example: ldm txt2img --prompt "red apple" --seed 42 -o apple.png
      """)
  @OptionGroup var options: GenerateOptions

  func run() async throws { try await options.run(TextToImage()) }
}

struct Img2Img: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "img2img", abstract: "Draws a picture over another one.",
    discussion: """
      A picture whose sides do not fit the model is resampled to the next smaller size that does, and one of more than four times the pixels that the \
      model was made for to as many as that, in its proportions. --width, --height and --resize-mode say otherwise.

      Example: ldm img2img --prompt tomato --image apple.png --strength 0.6 -o tomato.png
      """)
  @OptionGroup var options: GenerateOptions

  @Option(parsing: .unconditional, help: "The picture to start from: PNG, JPEG or WebP.")
  var image: String

  @Option(parsing: .unconditional, help: "How much to change, 0…1: the part of the steps that is run. Without it, 0.8; 0.3 for SDXL.")
  var strength: Double?

  func validate() throws { try checkStrength(strength) }

  func run() async throws {
    try await options.run(reading: [image], strength: strength, ImageToImage(.pixels(picture(image).tensor())))
  }
}

struct Inpaint: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inpaint", abstract: "Repaints a part of a picture.",
    discussion: """
      Example: ldm inpaint --prompt "green apple" --image apple.png --mask mask.png --keep-unmasked -o green.png
      """)
  @OptionGroup var options: GenerateOptions

  @Option(parsing: .unconditional, help: "The picture: PNG, JPEG or WebP.")
  var image: String

  @Option(parsing: .unconditional, help: "A picture: white is repainted, black is kept. One of another size is resampled.")
  var mask: String

  @Option(
    parsing: .unconditional,
    help: "How much to change under the mask, 0…1: the part of the steps that is run. Without it, 1; 0.9999 for SDXL.")
  var strength: Double?

  @Flag(help: "Gives back the pixels outside the mask exactly, and the picture's own size, instead of what the autoencoder makes of them.")
  var keepUnmasked = false

  func validate() throws { try checkStrength(strength) }

  func run() async throws {
    try await options.run(
      reading: [image, mask], strength: strength,
      Inpainting(image: picture(image).tensor(), mask: picture(mask).mask(), keepsPixelsOutsideMask: keepUnmasked))
  }
}

struct Outpaint: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "outpaint", abstract: "Paints more around a picture.",
    discussion: """
      The picture itself comes back exactly.

      Example: ldm outpaint --prompt "red apple" --image apple.png --left 32 --right 32 -o wide.png
      """)
  @OptionGroup var options: GenerateOptions

  @Option(parsing: .unconditional, help: "The picture: PNG, JPEG or WebP.")
  var image: String

  @Option(parsing: .unconditional, help: "Pixels to add at the left.") var left = 0
  @Option(parsing: .unconditional, help: "Pixels to add at the right.") var right = 0
  @Option(parsing: .unconditional, help: "Pixels to add at the top.") var top = 0
  @Option(parsing: .unconditional, help: "Pixels to add at the bottom.") var bottom = 0

  func validate() throws {
    let sides = [left, right, top, bottom]
    guard sides.allSatisfy({ (0...Picture.largestSide).contains($0) }), sides.contains(where: { $0 > 0 }) else {
      throw ValidationError(
        "--left, --right, --top and --bottom must be from 0 to \(Picture.largestSide), and at least one more than 0.")
    }
  }

  func run() async throws {
    try await options.run(
      reading: [image], strength: 1,
      Inpainting.outpainting(picture(image).tensor(), left: left, right: right, top: top, bottom: bottom))
  }
}

struct Unconditional: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "unconditional", abstract: "Draws anything, with a model that reads no text.",
    discussion: """
      Example: ldm unconditional --model models/ldm-celebahq --seed 1 -o face.png
      """)
  @OptionGroup var options: DrawingOptions<NoWords, PictureOptions>

  func run() async throws { try await options.run(TextToImage()) }
}

struct Class2Img: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "class2img", abstract: "Draws a picture of a class, with a model made for it.",
    discussion: """
      Example: ldm class2img --model models/ldm-imagenet --class-label "tabby, tabby cat" -o cat.png
      """)
  @OptionGroup var options: DrawingOptions<ClassOptions, PictureOptions>

  func run() async throws { try await options.run(TextToImage()) }
}

func checkStrength(_ strength: Double?) throws {
  guard (0...1).contains(strength ?? 1) else { throw ValidationError("--strength must be a number from 0 to 1.") }
}
