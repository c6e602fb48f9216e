import ArgumentParser
import Foundation
import LatentDiffusionTraining

extension PictureFraming.Crop: @retroactive ExpressibleByArgument {}

/// What is learnt from.
struct DataOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help: """
      A folder of PNG, JPEG and WebP pictures. The caption of NAME.png is the text of NAME.txt, or of its line in metadata.jsonl or metadata.csv (file_name, \
      text).
      """)
  var data: String

  @Option(parsing: .unconditional, help: "A file with captions, as metadata.jsonl or metadata.csv, in place of those in the folder.")
  var captions: String?

  @Option(parsing: .unconditional, help: "The caption of pictures that have none. Without it, they are left out.")
  var defaultCaption: String?

  @Flag(help: "Stop where a picture or a caption would be left out.")
  var strict = false

  @Option(parsing: .unconditional, help: "Pixels a side. Without it, the size that the model was made for.")
  var resolution: Int?

  @Flag(help: "Train pictures in sizes of about as many pixels and their own proportions, in place of squares.")
  var buckets = false

  @Option(parsing: .unconditional, help: "Which part of a picture is taken: center, or random, another one each time.")
  var crop = PictureFraming.Crop.center

  @Flag(help: "Mirror half of the pictures, left to right.")
  var flip = false

  @Option(name: [.long, .customLong("batch-size")], parsing: .unconditional, help: "Pictures that are looked at together.")
  var batch = 1

  func validate() throws {
    guard (1...BatchOrder.largestBatch).contains(batch) else {
      throw ValidationError("--batch must be from 1 to \(BatchOrder.largestBatch).")
    }
    guard (8...AspectBuckets.longestSide).contains(resolution ?? 8) else {
      throw ValidationError("--resolution must be from 8 to \(AspectBuckets.longestSide).")
    }
  }

  /// Reads the folder, and lays out in which order its pictures are seen.
  ///
  /// - Parameters:
  ///   - usual: pixels a side, where nobody says it.
  ///   - multiple: that sides must be of.
  func order(
    usualSide usual: Int?, multiple: Int, captioned: Bool = true, seed: UInt64, in context: ExecutionContext, _ progress: Progress
  ) async throws -> BatchOrder {
    guard let side = resolution ?? usual else { throw Failure("The model does not say for which size it was made; give --resolution.") }
    let step = max(multiple, min(64, side / 4 / multiple * multiple))
    let buckets =
      try buckets ? AspectBuckets(resolution: side, step: step) : AspectBuckets(only: .init(width: side, height: side), multiple: multiple)
    let framing = PictureFraming(buckets, crop: crop, flips: flip)
    // Autoencoders learn from pictures alone.
    let options = PictureFolder.Options(
      captions: captions.map { URL(filePath: $0) }, defaultCaption: defaultCaption ?? (captioned ? nil : ""), isStrict: strict)
    var context = context
    context.progress = { done, count in progress.begin("Reading pictures, \(done) of \(count)") }
    let url = URL(filePath: data, directoryHint: .isDirectory)
    let folder = try await context.run { try PictureFolder(url, options: options, in: $0) }
    for problem in folder.problems.prefix(20) { progress.warn("\(problem)") }
    if folder.problems.count > 20 { progress.warn("\(folder.problems.count - 20) more of these follow.") }
    let order = try BatchOrder(folder.pictures, framing: framing, batchSize: batch, seed: seed)
    if let small = order.enlarged.first {
      progress.warn(
        "\(order.enlarged.count) of \(folder.pictures.count) pictures are enlarged, \(small.name) (\(small.size.width)×\(small.size.height)) among them."
      )
    }
    progress.tell("Pictures in \(data): \(folder.pictures.count); batches until each was seen once: \(order.batchesPerEpoch)")
    return order
  }
}
