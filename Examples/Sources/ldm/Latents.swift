import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion

struct Encode: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "encode", abstract: "Turns a picture into latents.",
    discussion: "The most likely latents, scaled as the noise predictor takes them. The sides must be multiples of the model's scale.")
  @OptionGroup var model: ModelOptions
  @OptionGroup var tiles: TileOptions

  @Option(parsing: .unconditional, help: "The picture: PNG, JPEG or WebP.")
  var image: String

  @Option(parsing: .unconditional, help: "Where the latents go: one tensor latents, float32, [1, 4, h, w].")
  var saveLatents: String

  func run() async throws {
    try checkWritable(URL(filePath: saveLatents))
    let progress = Progress()
    defer { progress.clear() }
    progress.begin("Reading \(image)")
    let image = try picture(image).tensor()
    var context = model.context
    progress.begin("Loading \(model.name)")
    let pipeline = try await model.load(tiles: tiles, in: context).pipeline
    progress.phase(.encodingPicture(done: 0, count: 1))
    context.progress = { progress.phase(.encodingPicture(done: $0, count: $1)) }
    let latents = try await pipeline.encode(image, in: context)
    try Signals.whole { try writeTensor("latents", latents.channelsFirst(), to: saveLatents) }
  }
}

struct Decode: AsyncParsableCommand {
  static let configuration = CommandConfiguration(commandName: "decode", abstract: "Turns latents into a picture.")
  @OptionGroup var model: ModelOptions
  @OptionGroup var tiles: TileOptions

  @Option(parsing: .unconditional, help: "A tensor [N, 4, h, w], named latents or the only one.")
  var latents: String

  @OptionGroup var output: OutputOptions

  func run() async throws {
    let latents = try readLatents(latents, names: ["latents"])
    let count = latents.shape[0]
    try output.check(count: count)
    var context = model.context
    let progress = Progress(keepsOutputFree: output.isStandardOutput)
    defer { progress.clear() }
    progress.begin("Loading \(model.name)")
    let pipeline = try await model.load(tiles: tiles, in: context).pipeline
    let channels = pipeline.autoencoder.latentChannels
    guard latents.shape[3] == channels else {
      throw Failure("The latents have shape \(channelsFirst(latents.shape)), but this model's have \(channels) channels.")
    }
    progress.phase(.decoding(done: 0, count: 1))
    context.progress = { progress.phase(.decoding(done: $0, count: $1)) }
    let images = try await pipeline.decode(latents, in: context)
    try Signals.whole {
      for (index, file) in output.pictures(count).enumerated() { try output.write(Picture(images, index: index), to: file) }
      if let path = output.saveImageTensor { try writeTensor("image", images, to: path) }
      if let path = output.saveLatents { try writeTensor("latents", latents.channelsFirst(), to: path) }
    }
  }
}
