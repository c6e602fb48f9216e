import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusionTraining

/// Teaches the embedded model a logo by a LoRA of eight pictures, and measures how near its pictures come: `TrainLoRA FOLDER [STEPS]`.
@main struct TrainLoRA {
  static let caption = "the voltaro logo"

  static func main() async throws {
    let arguments = CommandLine.arguments.dropFirst()
    let folder = URL(filePath: arguments.first ?? "logo", directoryHint: .isDirectory)
    let steps = arguments.dropFirst().first.flatMap { Int($0) } ?? 600
    let context = ExecutionContext()
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)

    // The data: pictures with their caption, and what autoencoder and text encoder make of them.
    let model = try StableDiffusion.load(from: EmojiModel.folder(), in: context)
    let side = (model.pipeline.predictor.sampleSize ?? 16) * model.pipeline.autoencoder.spatialScale
    let logos = Logo.variants(8).map { $0.picture(side: side) }
    let pictures = logos.enumerated().map { CaptionedPicture($1, name: "logo \($0)", caption: caption) }
    let framing = PictureFraming(try AspectBuckets(only: PixelSize(width: side, height: side)))
    let order = try BatchOrder(pictures, framing: framing, batchSize: 4, seed: 0)
    var cache = try EncodingCache(at: nil)
    _ = try cache.encode(order.framedPictures(), by: model.pipeline.autoencoder, model: ContentHash(), in: context)
    _ = try cache.encode([Prompt(caption)], by: model.pipeline.conditioner, model: ContentHash(), in: context)

    // What is trained, and how.
    var generator = TorchGenerator(seed: 0)
    let labels = LowRankTargets.convolutions.labels(among: try model.parameters(of: "unet"))
    let changes = TrainedComponents([("unet", TrainedLowRank(labels, rank: 16, with: &generator))])
    let objective = try model.noiseObjective()
    let data = try CaptionedLatents(
      order, encodedBy: model.pipeline.autoencoder, model.pipeline.conditioner, objective: objective, cache: cache)
    let trainer = try Trainer(
      NoisePrediction(by: model.pipeline.predictor, objective: objective), on: data, training: changes, by: AdamW(),
      schedule: LearningRateSchedule(.cosine, rate: 1e-3, warmupSteps: 20, steps: steps), seed: 0)

    let before = try await draw(model, nil, side, to: folder.appending(path: "before.png"), in: context)
    let start = ContinuousClock.now, run = trainer.steps(in: context)
    for try await step in run where step.number.isMultiple(of: 100) || step.number == steps {
      print(
        "step \(step.number) of \(steps), loss \(String(format: "%.4f", step.loss)), \((ContinuousClock.now - start).components.seconds) s")
    }
    let trained = run.trainer.trained
    let after = try await draw(model, trained, side, to: folder.appending(path: "after.png"), in: context)

    // What is left: pictures, the file, and how far the pictures are from the logos.
    try logos[0].write(to: folder.appending(path: "logo.png"))
    if let trained = trained as? TrainedComponents, let file = LowRankFile(trained) {
      try file.write(to: folder.appending(path: "logo.safetensors"))
    }
    let (far, near) = (distance(before, to: logos), distance(after, to: logos))
    print(
      "distance to the nearest logo: before \(String(format: "%.3f", far)), after \(String(format: "%.3f", near)) of the range of a pixel")
    guard near < far / 3 else { throw Failure("The model has not learnt the logo: its pictures are less than three times as near.") }
  }

  /// Draws the caption with eight seeds, side by side in a file.
  static func draw(
    _ model: StableDiffusion, _ trained: (any Trainable)?, _ side: Int, to url: URL, in context: ExecutionContext
  ) async throws -> [Picture] {
    var images: [Tensor] = []
    for seed in 0..<8 {
      var request = model.request(caption, seed: UInt64(seed))
      (request.width, request.height) = (side, side)
      request.adaptation = try trained.map { try model.adaptation(placing: $0, in: context) }
      images += try await model.pipeline.images(for: request, in: context).map(\.image)
    }
    try Picture(Tensor.concatenated(images, axis: 2)).write(to: url)
    return images.map { Picture($0) }
  }

  /// The mean over the pictures of the root mean square difference from the logo that is nearest.
  static func distance(_ pictures: [Picture], to logos: [Picture]) -> Double {
    let distances = pictures.map { picture in
      logos.map { logo in
        let squares = zip(picture.pixels, logo.pixels).reduce(0.0) { $0 + pow((Double($1.0) - Double($1.1)) / 255, 2) }
        return (squares / Double(logo.pixels.count)).squareRoot()
      }.min() ?? 1
    }
    return distances.reduce(0, +) / Double(max(distances.count, 1))
  }
}

struct Failure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
