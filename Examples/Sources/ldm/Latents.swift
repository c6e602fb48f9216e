import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionVideoFiles

struct Encode: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "encode", abstract: "Turns a picture into latents.",
    discussion: """
      The most likely latents, scaled as the noise predictor takes them. The sides must be multiples of the model's scale.

      Example: ldm encode --image apple.png --save-latents apple.safetensors
      """)
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
  static let configuration = CommandConfiguration(
    commandName: "decode", abstract: "Turns latents into pictures or clips.",
    discussion: """
      Example: ldm decode --latents apple.safetensors -o apple.png
      """)
  @OptionGroup var model: ModelOptions
  @OptionGroup var tiles: TileOptions

  @Option(parsing: .unconditional, help: "A tensor [N, 4, h, w], or [N, 4, frames, h, w] of clips, named latents or the only one.")
  var latents: String

  @Option(parsing: .unconditional, help: "Frames a second of a clip, whose file is as for ldm txt2video. Without it, 8.")
  var fps: Double?

  @OptionGroup var output: OutputOptions

  func validate() throws { try checkFrameRate(fps) }

  func run() async throws {
    let latents = try readLatents(latents, names: ["latents"], ofClips: nil)
    let count = latents.shape[0], frames = latents.shape.rank == 5 ? latents.shape[1] : nil
    let rate = fps ?? VideoOptions.usualRate
    let clipFiles = ClipFiles(output: output.output, quality: nil, latents: output.saveLatents, imageTensor: output.saveImageTensor)
    if frames != nil {
      try clipFiles.check(count: count, framesPerSecond: rate)
    } else {
      guard fps == nil else { throw Failure("--fps is for latents of clips, and these are of pictures; leave it out.") }
      try output.check(count: count)
    }
    let images = try await decoded(latents.reshaped(Shape([count * (frames ?? 1)] + latents.shape.dimensions.suffix(3))))
    if let frames {
      let clips = try (0..<count).map { try Clip(images.rows($0 * frames..<($0 + 1) * frames), framesPerSecond: rate) }
      _ = try clipFiles.write(
        clips, latents: withChannelsFirst(latents), image: images.reshaped(Shape([count, frames] + images.shape.dimensions.dropFirst())))
      return
    }
    try Signals.whole {
      for (index, file) in output.pictures(count).enumerated() { try output.write(Picture(images, index: index), to: file) }
      if let path = output.saveImageTensor { try writeTensor("image", images, to: path) }
      if let path = output.saveLatents { try writeTensor("latents", latents.channelsFirst(), to: path) }
    }
  }

  /// The pictures of latents `[N, h, w, C]`.
  private func decoded(_ latents: Tensor) async throws -> Tensor {
    var context = model.context
    let progress = Progress(keepsOutputFree: output.isStandardOutput)
    defer { progress.clear() }
    progress.begin("Loading \(model.name)")
    let pipeline = try await model.load(tiles: tiles, in: context).pipeline
    let channels = pipeline.autoencoder.latentChannels
    guard latents.shape.columns == channels else {
      throw Failure("The latents have \(latents.shape.columns) channels, but this model's have \(channels).")
    }
    progress.phase(.decoding(done: 0, count: 1))
    context.progress = { progress.phase(.decoding(done: $0, count: $1)) }
    return try await pipeline.decode(latents, in: context)
  }
}
