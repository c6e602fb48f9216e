import ArgumentParser
import LatentDiffusion

struct Edit: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "edit", abstract: "Changes a picture as the prompt says, with a model made for it (InstructPix2Pix).",
    discussion: """
      Example: ldm edit --model models/instruct-pix2pix --prompt "make it winter" --image photo.jpg -o winter.png
      """)
  @OptionGroup var options: GenerateOptions

  @Option(parsing: .unconditional, help: "The picture: PNG, JPEG or WebP.")
  var image: String

  @Option(parsing: .unconditional, help: "How closely to keep to the picture, from 1 up.")
  var imageGuidance = 1.5

  func validate() throws {
    guard (0...1e6).contains(imageGuidance) else { throw ValidationError("--image-guidance must be a number from 0 to 1000000.") }
  }

  func run() async throws {
    try await options.run(reading: [image], InstructionEditing(picture(image).tensor(), imageGuidance: imageGuidance))
  }
}

struct Depth2Img: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "depth2img", abstract: "Draws a picture over another one and keeps its depths, with a model made for it.",
    discussion: """
      Example: ldm depth2img --model models/sd2-depth --prompt "a bronze statue" --image photo.jpg --depth depth.png -o statue.png
      """)
  @OptionGroup var options: GenerateOptions

  @Option(parsing: .unconditional, help: "The picture to start from: PNG, JPEG or WebP.")
  var image: String

  @Option(parsing: .unconditional, help: "Its depths as a picture: the brighter, the nearer. One of another size is resampled.")
  var depth: String

  @Option(parsing: .unconditional, help: "How much to change, 0…1: the part of the steps that is run.")
  var strength = 0.8

  func validate() throws { try checkStrength(strength) }

  func run() async throws {
    try await options.run(
      reading: [image, depth], DepthToImage(.pixels(picture(image).tensor()), depth: picture(depth).mask(), strength: strength))
  }
}
