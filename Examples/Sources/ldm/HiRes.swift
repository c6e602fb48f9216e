import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusion

struct HiRes: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "hires", abstract: "Draws a picture larger than the model was made for, in two passes.",
    discussion: """
      Far above the size that a model was made for, it repeats what it draws. So the picture is drawn at that size, enlarged, and drawn over. --width and \
      --height are those of the first pass.

      Example: ldm hires --prompt "a castle on a hill" --model models/sd15 --scale 2 --strength 0.5 -o castle.png
      """)
  @OptionGroup var options: GenerateOptions

  @Option(parsing: .unconditional, help: "How many times as large both sides become.")
  var scale = 2.0

  @Option(parsing: .unconditional, help: "How much the second pass changes, 0…1: the part of the steps that is run.")
  var strength = 0.55

  @Option(parsing: .unconditional, help: "Steps of which the second pass runs its part. Without it, those of the first pass.")
  var secondSteps: Int?

  @Option(
    help: "What enlarges: the picture's pixels (lanczos), or its latents (latent), which takes a strength of 0.6 or more to become sharp.")
  var enlarge = Enlarging.lanczos

  enum Enlarging: String, CaseIterable, ExpressibleByArgument { case lanczos, latent }

  func validate() throws {
    try checkStrength(strength)
    guard (1...16).contains(scale), scale > 1 else { throw ValidationError("--scale must be a number above 1, up to 16.") }
    guard (1...100_000).contains(secondSteps ?? 1) else { throw ValidationError("--second-steps must be from 1 to 100000.") }
    guard options.refining.refiner == nil else { throw ValidationError("ldm hires takes no --refiner.") }
  }

  func run() async throws {
    let output = options.drawn.output
    try options.prompt.checkIsGiven()
    try output.check(count: options.drawn.count)
    try options.drawn.keeping.check(usesOutput: output.isStandardOutput)
    let progress = Progress(keepsOutputFree: output.isStandardOutput, isJSON: options.drawn.keeping.json)
    do {
      var ready = try await options.ready(loadNoise: options.drawn.seeds.loadNoise, progress, TextToImage())
      let name = "the second of two, over \(enlarge == .latent ? "latents" : "pixels")"
      let small: Tensor
      if let kept = try ready.kept?.start(of: name, count: options.drawn.count, channels: enlarge == .latent ? nil : 3) {
        small = kept
      } else {
        let images = try await options.images(of: ready, pass: DrawingPass(name: "the first of two"), progress)
        small = Tensor.concatenated(images.map { enlarge == .latent ? $0.latents : $0.image }, axis: 0)
        ready.kept = nil
      }
      ready.request = try second(ready, over: small)
      let images = try await options.images(of: ready, pass: DrawingPass(name: name, start: small), progress)
      let (sentence, files) = try options.write(
        images, ready, settings: [.init("Hires upscale", "\(scale)"), .init("Hires upscaler", enlarge == .latent ? "Latent" : "Lanczos")])
      options.drawn.keeping.forget()
      try progress.end(sentence, files)
    } catch {
      progress.clear()
      throw error
    }
  }

  /// The request of the second pass.
  /// - Parameter small: what the first one made, latents `[N, h, w, C]` or pictures `[N, H, W, 3]`.
  private func second(_ ready: DrawingOptions<PromptOptions, PictureOptions>.Ready, over small: Tensor) throws -> GenerationRequest {
    let pipeline = ready.model.pipeline, multiple = pipeline.sideMultiple
    var request = ready.request
    func enlarged(_ side: Int) -> Int { max(multiple, Int((Double(side) * scale / Double(multiple)).rounded()) * multiple) }
    let side = enlarge == .latent ? pipeline.autoencoder.spatialScale : 1
    let width = enlarged(small.shape[2] * side), height = enlarged(small.shape[1] * side)
    switch enlarge {
    case .lanczos:
      let pictures = (0..<small.shape[0]).map { Picture(small, index: $0).resized(width: width, height: height).tensor() }
      request.task = ImageToImage(.pixels(Tensor.concatenated(pictures, axis: 0)), strength: strength)
    case .latent:
      request.task = ImageToImage(.latents(small.interpolatedBicubic(height: height / side, width: width / side)), strength: strength)
    }
    (request.width, request.height, request.noise) = (nil, nil, nil)
    request.steps = secondSteps ?? request.steps
    return request
  }
}
