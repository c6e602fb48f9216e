import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusionMPI
import LatentDiffusionTraining

struct TrainAutoencoder: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "autoencoder", abstract: "Teaches a model's autoencoder to give pictures back, from where it is or from nothing.",
    discussion: """
      The result is a folder with the whole model. Of a model in a single file, it is the autoencoder alone, for --vae. Captions are not needed. Samples are \
      pictures of the data beside what the autoencoder makes of them.

      Example: ldm train autoencoder --data pictures --output models/mine --steps 1000
      """)

  @OptionGroup(title: "Model") var base: BaseModelOptions
  @OptionGroup(title: "Data") var data: DataOptions
  @OptionGroup(title: "Run") var run: RunOptions
  @OptionGroup var beginning: BeginningOptions

  @Flag(help: "Leave the encoder as it is, so that latents keep their meaning and the U-Net goes on fitting.")
  var decoderOnly = false

  @Option(parsing: .unconditional, help: "How much absolute differences of pixels count.")
  var absoluteWeight = 1.0

  @Option(parsing: .unconditional, help: "How much squared differences of pixels count.")
  var squaredWeight = 0.0

  @Option(parsing: .unconditional, help: "How much edges count, at several scales.")
  var edgeWeight = 1.0

  @Option(parsing: .unconditional, help: "How much it counts that latents are not distributed normally.")
  var divergenceWeight = 1e-6

  @Option(parsing: .unconditional, help: "A folder for pictures that are drawn while the autoencoder learns.")
  var samples: String?

  @Option(parsing: .unconditional, help: "Steps from one set of pictures to the next.")
  var sampleEvery = 100

  func validate() throws {
    guard !(decoderOnly && beginning.fromNothing) else {
      throw ValidationError("--decoder-only keeps an encoder that --from-nothing would not have.")
    }
    guard run.memoryLimit == nil else {
      throw ValidationError("--memory-limit is for U-Nets and text encoders; --recompute makes an autoencoder's steps smaller.")
    }
    guard (1...1_000_000_000).contains(sampleEvery) else { throw ValidationError("--sample-every must be from 1 to 1000000000.") }
  }

  private var weights: AutoencoderReconstruction.Weights {
    var weights = AutoencoderReconstruction.Weights()
    (weights.absolute, weights.squared, weights.edges, weights.divergence) = (absoluteWeight, squaredWeight, edgeWeight, divergenceWeight)
    return weights
  }

  func run() async throws {
    let company = try MPIExchange(), isFirst = company?.isFirst ?? true
    let progress = Progress(isQuiet: !isFirst)
    do {
      if isFirst { try run.check(isFolder: true) }
      let model = base.options
      let rates = try run.learningRates, optimizer = try run.optimizer.make(weightDecay: run.weightDecay), context = model.context
      progress.begin("Loading \(model.name)")
      var loaded = try await model.load(in: context)
      let autoencoder = try wholePictures(&loaded)
      let side = loaded.defaults.width ?? loaded.pipeline.predictor.sampleSize.map { $0 * autoencoder.spatialScale }
      let order = try await data.order(
        usualSide: side, multiple: autoencoder.spatialScale, captioned: false, seed: run.seed, in: context, progress)
      let objective = try AutoencoderReconstruction(of: autoencoder, weights: weights),
        data = try AutoencoderPictures(order, for: autoencoder)
      let settings = try run.settings(of: Trainer<AutoencoderReconstruction>.self, with: company, recomputes: run.recompute)
      var traits = run.traits(with: company).merging(beginning.traits) { $1 }
      traits["model"] = try loaded.content(of: ["vae"]).description
      traits["data, with their sizes and batches,"] = order.content.description
      traits["method"] = decoderOnly ? "decoder" : "autoencoder"
      traits["loss"] = "\(absoluteWeight), \(squaredWeight), \(edgeWeight), \(divergenceWeight)"
      let parts = [
        ("absolute", absoluteWeight), ("squared", squaredWeight), ("edges", edgeWeight), ("divergence", 1),
      ].filter { $0.1 > 0 }.map(\.0)
      let training = LoggedTraining<AutoencoderReconstruction>(
        options: run, company: company, traits: traits, parts: parts, progress: progress,
        samples: try folder().map { (sampleEvery, draw(order, with: loaded, into: $0, in: context)) })
      let trainedModel = loaded
      try await training.run(
        from: {
          try Trainer(
            objective, on: data, training: TrainedComponents([("vae", parameters(of: trainedModel))]), by: optimizer, schedule: rates,
            settings: settings, seed: run.seed)
        }, in: context
      ) { try write($0, of: trainedModel, order, in: context, progress) }
    } catch {
      progress.clear()
      throw error
    }
  }

  /// The autoencoder without tiles, since a gradient is of a whole picture.
  private func wholePictures(_ model: inout StableDiffusion) throws -> any LatentAutoencoder {
    guard let tiled = model.pipeline.autoencoder as? TiledAutoencoder else { return model.pipeline.autoencoder }
    model.pipeline.autoencoder = tiled.base
    guard !(tiled.base is VQModel) else {
      throw Failure("The model's autoencoder is a VQModel, whose codebook cannot be trained here; give a model with another with --model.")
    }
    return tiled.base
  }

  private func parameters(of model: StableDiffusion) throws -> TrainedParameters {
    let all = try beginning.parameters("vae", of: model, seed: run.seed)
    guard decoderOnly else { return all }
    let kept = zip(all.labels, all.values).filter { $0.0.name.hasPrefix("decoder.") || $0.0.name.hasPrefix("post_quant_conv.") }
    return TrainedParameters(kept.map(\.0), values: kept.map(\.1))
  }

  private func folder() throws -> URL? {
    var options = SampleOptions()
    options.samples = samples
    return try options.folder()
  }

  /// Draws the first pictures beside what becomes of them.
  private func draw(_ order: BatchOrder, with model: StableDiffusion, into folder: URL, in context: ExecutionContext)
    -> (Int, any Trainable) async throws -> Void
  {
    let pictures = order.pictures.prefix(4).enumerated().map { ($0.offset, $0.element) }
    let size = order.framing.buckets
    return { step, trained in
      for (index, picture) in pictures {
        let pair = try await context.run { context in
          var own = context
          own.adaptation = try model.adaptation(placing: trained, in: context)
          let order = try BatchOrder([picture], framing: PictureFraming(size), batchSize: 1, seed: 0)
          let original = try order.framedPictures()[0].tensor()
          let decoded = try model.pipeline.autoencoder.decode(model.pipeline.autoencoder.encode(original, in: own).mode, in: own)
          return (Tensor.concatenated([original, decoded], axis: 2) * 0.5 + 0.5).clamped(to: 0...1)
        }
        try Signals.whole { try Picture(pair).write(to: folder.appending(path: SampleOptions.name(step, index))) }
      }
    }
  }

  /// Writes the model with the new autoencoder; of one from nothing, with the scale that its latents have.
  private func write(
    _ result: any Trainable, of model: StableDiffusion, _ order: BatchOrder, in context: ExecutionContext, _ progress: Progress
  ) throws -> String {
    guard let result = result as? TrainedComponents else { throw Failure("What was trained cannot be written.") }
    var configurations: [String: Data] = [:]
    if beginning.fromNothing {
      let scale = try model.latentScale(of: order, placing: result, in: context)
      configurations["vae"] = try model.configuration(of: "vae", setting: "scaling_factor", to: Double(scale))
      progress.tell(String(format: "scaling_factor %.5f: latents then have a deviation of 1", scale))
      progress.warn(
        "The U-Net of the model was trained for the latents of the old autoencoder; train it with the new one (ldm train unet).")
    }
    try model.write(result.parameters, configurations: configurations, to: run.outputURL, in: context)
    return run.outputURL.relativePath
  }
}
