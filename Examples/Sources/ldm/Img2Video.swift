import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion
import LatentDiffusionVideoFiles

struct Img2Video: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "img2video", abstract: "Makes a clip of a picture, with Stable Video Diffusion.",
    discussion: """
      The model reads no words. Frames a second are one of its inputs: --fps, or 7. Without --width and --height the clip has 1024×576 pixels, whatever the \
      picture has.

      Example: ldm img2video --model models/stable-video-diffusion --image photo.jpg --frames 14 -o clip.webp
      """)
  @OptionGroup var options: DrawingOptions<NoWords, VideoOptions>

  @Option(parsing: .unconditional, help: "The picture that the clip begins with: PNG, JPEG or WebP.")
  var image: String

  @Option(parsing: .unconditional, help: "Frames of the clip. Without it, as many as the model was made for.")
  var frames: Int?

  @Option(parsing: .unconditional, help: "How much moves: the higher, the more.")
  var motionBucket = 127.0

  @Option(parsing: .unconditional, help: "How much noise the picture gets: the more, the less the clip looks like it.")
  var noiseAug = 0.02

  @Option(parsing: .unconditional, help: "How closely the first frame follows the picture.")
  var minGuidance = 1.0

  @Option(parsing: .unconditional, help: "How closely the last frame follows the picture; up to 1 there is no guidance. Without it, 3.")
  var maxGuidance: Double?

  @Option(
    parsing: .unconditional,
    help: "Frames that are decoded together: the fewer, the less memory, and the worse they go together. Without it, all.")
  var decodeChunk: Int?

  func validate() throws {
    guard frames ?? 1 > 0 else { throw ValidationError("--frames must be more than 0.") }
    guard decodeChunk ?? 1 > 0 else { throw ValidationError("--decode-chunk must be more than 0.") }
    guard (0...100_000).contains(motionBucket) else { throw ValidationError("--motion-bucket must be a number from 0 to 100000.") }
    guard (0...1000).contains(noiseAug) else { throw ValidationError("--noise-aug must be a number from 0 to 1000.") }
    for (name, value) in [("min", minGuidance), ("max", maxGuidance ?? 1)] where !(0...1e6).contains(value) {
      throw ValidationError("--\(name)-guidance must be a number from 0 to 1000000.")
    }
    guard minGuidance <= 1 || maxGuidance ?? 3 > 1 else {
      throw ValidationError("--min-guidance above 1 needs a --max-guidance above 1; up to 1 there is no guidance.")
    }
  }

  func run() async throws {
    try checkOptions()
    // Files of 14 and of 25 frames have the same tensors.
    if frames == nil, !(try options.model.files.base.hasFolder) {
      Progress.warn(
        "A single file does not say for how many frames it was made; 25 are drawn, and --frames 14 is right for the first model.")
    }
    var options = options
    options.sampling.guidance = maxGuidance
    let settings: [GenerationParameters.Setting] =
      [
        .init("Motion bucket", "\(motionBucket)"), .init("Noise augmentation", "\(noiseAug)"), .init("Min guidance", "\(minGuidance)"),
      ] + (decodeChunk.map { [.init("Decode chunk", "\($0)")] } ?? [])
    try await options.run(
      reading: [image], usualRate: Self.usualRate, settings: settings,
      ImageToVideo(
        picture(image).tensor(), frames: frames, framesPerSecond: options.drawn.file.fps ?? Self.usualRate, motionBucket: motionBucket,
        noiseStrength: noiseAug, minimumGuidance: minGuidance, framesDecodedTogether: decodeChunk))
  }

  /// Of clips where nobody says how many frames a second.
  private static let usualRate = 7.0

  /// What other models have, and this one would not look at.
  private func checkOptions() throws {
    guard options.sampling.guidance == nil else {
      throw Failure("A clip of a picture has --min-guidance and --max-guidance; leave --guidance out.")
    }
    let given: [(Bool, String)] = [
      (options.adapters.isEmpty, "LoRA and no embedding"), (options.imagePrompts.isEmpty, "IP-Adapter"),
      (options.controls.isEmpty, "network that steers it"), (options.refining.refiner == nil, "refiner"),
      (options.sizes.settings.isEmpty, "sizes to be told, as Stable Diffusion XL has"),
      (options.model.parts.motionModule == nil, "motion module: it has motion itself"),
    ]
    if let (_, words) = given.first(where: { !$0.0 }) { throw Failure("Stable Video Diffusion takes no \(words); leave that out.") }
  }
}

extension URL {
  /// Whether a folder is there.
  fileprivate var hasFolder: Bool {
    var isFolder: ObjCBool = false
    return FileManager.default.fileExists(atPath: path(percentEncoded: false), isDirectory: &isFolder) && isFolder.boolValue
  }
}
