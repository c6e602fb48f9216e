import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusionMPI
import LatentDiffusionTraining

/// What is varied in how noise is learnt.
struct NoiseOptions: ParsableArguments {
  @Option(parsing: .unconditional, help: "How often a caption is left out, 0 to 1; a model trained from nothing needs 0.1 to be guided.")
  var captionDropout = 0.0

  @Option(parsing: .unconditional, help: "Let timesteps with little noise count less: gamma of min-SNR, 5 as a rule.")
  var snrGamma: Double?

  @Option(
    parsing: .unconditional, help: "Noise that is the same for all pixels, so that a model learns very dark and bright pictures: 0.05.")
  var noiseOffset: Float = 0

  @Option(
    parsing: .unconditional, help: "What the model predicts: epsilon, v or sample. Without it, what its scheduler's configuration says.")
  var prediction: Prediction?

  var settings: NoiseObjective.Settings {
    var settings = NoiseObjective.Settings()
    settings.offset = noiseOffset
    if let snrGamma { settings.weighting = .minSNR(gamma: snrGamma) }
    return settings
  }
}

/// Pictures that show how a training goes.
struct SampleOptions: ParsableArguments {
  @Option(parsing: .unconditional, help: "A folder for pictures that are drawn while the model learns.")
  var samples: String?

  @Option(parsing: .unconditional, help: "Steps from one set of pictures to the next.")
  var sampleEvery = 100

  @Option(parsing: .unconditionalSingleValue, help: "What to draw; several can be given. Without any, the first caption.")
  var samplePrompt: [String] = []

  @Option(parsing: .unconditional, help: "The seed of the pictures, always the same.")
  var sampleSeed: UInt64 = 0

  @Option(parsing: .unconditional, help: "Steps of each picture. Without it, what is usual for the model.")
  var sampleSteps: Int?

  func validate() throws {
    guard (1...1_000_000_000).contains(sampleEvery) else { throw ValidationError("--sample-every must be from 1 to 1000000000.") }
    guard (1...1000).contains(sampleSteps ?? 1) else { throw ValidationError("--sample-steps must be from 1 to 1000.") }
  }

  /// The folder, made if it is not there.
  func folder() throws -> URL? {
    guard let samples else { return nil }
    let url = URL(filePath: samples, directoryHint: .isDirectory)
    do { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) } catch {
      throw Failure("The folder \(samples) cannot be made; name another with --samples.")
    }
    return url
  }

  /// The name of a picture.
  static func name(_ step: Int, _ index: Int) -> String { String(format: "step-%06d-%d.png", step, index) }

  /// Draws the prompts with what is trained.
  func draw(_ prompts: [String], with model: StableDiffusion, size: PixelSize, into folder: URL, in context: ExecutionContext)
    -> (Int, any Trainable) async throws -> Void
  {
    { step, trained in
      let adaptation = try await context.run { try model.adaptation(placing: trained, in: $0) }
      for (index, prompt) in prompts.enumerated() {
        var request = model.request(prompt, seed: sampleSeed)
        (request.width, request.height, request.adaptation) = (size.width, size.height, adaptation)
        if let sampleSteps { request.steps = sampleSteps }
        guard let image = try await model.pipeline.images(for: request, in: context).first else { continue }
        try Signals.whole { try Picture(image.image).write(to: folder.appending(path: Self.name(step, index))) }
      }
    }
  }
}

/// The model that a training begins with. Unlike commands that draw, these use `--text-encoder` to say what is trained.
struct BaseModelOptions: ParsableArguments {
  @Option(
    parsing: .unconditional, help: "A folder in diffusers' layout, or a .safetensors or .ckpt file. Without it, the embedded model is used."
  )
  var model: String?

  @Option(parsing: .unconditional, help: "An autoencoder in the place of the model's, as for ldm txt2img.")
  var vae: String?

  @Option(
    parsing: .unconditional,
    help: """
      The form in which weights that are not trained are held: \(WeightForm.allCases.map(\.rawValue).joined(separator: ", ")). Without it, as the files have \
      them, and small parts of a model as f32.
      """)
  var weights: WeightForm?

  @Option(parsing: .unconditional, help: "Threads to compute on. Without it, one for each processor.")
  var threads: Int?

  func validate() throws {
    guard (1...1024).contains(threads ?? 1) else { throw ValidationError("--threads must be from 1 to 1024.") }
  }

  /// The same as options of all other commands.
  var options: ModelOptions {
    var options = ModelOptions()
    (options.model, options.parts, options.weights, options.threads) = (model, PartOptions(autoencoder: vae), weights, threads)
    return options
  }
}

/// The options of all commands that teach how noise is predicted.
struct NoiseTraining: ParsableArguments {
  @OptionGroup(title: "Model") var base: BaseModelOptions
  @OptionGroup(title: "Data") var data: DataOptions
  @OptionGroup(title: "Noise") var noise: NoiseOptions
  @OptionGroup(title: "Run") var run: RunOptions
  @OptionGroup(title: "Samples") var samples: SampleOptions

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp("A file that keeps what was made of pictures and captions. Without it, beside the result.", valueName: "file"))
  var cache: String?

  /// - Parameters:
  ///   - traits: what distinguishes the run, beside the options.
  ///   - learnsTexts: whether a text encoder is trained.
  ///   - isFolder: whether the result is a folder.
  ///   - subject: what is trained, for a plan of memory.
  ///   - word: a word that the model is taught; nil: none.
  ///   - make: what is trained of the model.
  ///   - write: writes the result, and returns what it is called.
  func train(
    _ subject: @autoclosure () -> TrainingPlan.Subject, traits: [String: String], learnsTexts: Bool, isFolder: Bool,
    teaching word: ((StableDiffusion) throws -> TextualInversion)? = nil,
    _ make: (StableDiffusion) throws -> TrainedComponents,
    write: @escaping (TrainedComponents, StableDiffusion) throws -> String
  ) async throws {
    let company = try MPIExchange(), isFirst = company?.isFirst ?? true
    let progress = Progress(isQuiet: !isFirst)
    do {
      if isFirst { try run.check(isFolder: isFolder) }
      if isFolder, base.vae != nil {
        throw Failure("A whole model is written with its own autoencoder; put the other one into it instead of --vae.")
      }
      let model = base.options
      let rates = try run.learningRates, optimizer = try run.optimizer.make(weightDecay: run.weightDecay), context = model.context
      let dropout = try noise.captionDropout > 0 ? CaptionDropout(probability: noise.captionDropout) : nil
      let folder = try samples.folder()
      let recomputes = try plan(subject(), optimizer, progress)
      progress.begin("Loading \(model.name)")
      var loaded = try await model.load(in: context)
      let taught = try word?(loaded)
      if let taught { loaded = try await model.load(adapters: ModelAdapters(embeddings: [taught]), in: context) }
      if let prediction = noise.prediction {
        // A folder is written with its own scheduler_config.json, which would then say something else than was trained.
        guard !isFolder || loaded.predictionType == prediction.type || model.model.map(isFile) ?? false else {
          throw Failure(
            "The model's scheduler_config.json says \(loaded.predictionType.rawValue), and the result would say so, too; change its prediction_type."
          )
        }
        loaded.predictionType = prediction.type
      }
      let objective = try loaded.noiseObjective(settings: noise.settings)
      if case .parameters(let components) = subject() {
        for component in components where loaded.reports[component] != nil { try loaded.checkIsTrainable(component) }
      }
      let pipeline = loaded.pipeline, scale = pipeline.autoencoder.spatialScale
      let side = loaded.defaults.width ?? pipeline.predictor.sampleSize.map { $0 * scale }
      let order = try await data.order(
        usualSide: side, multiple: scale * pipeline.predictor.sideMultiple, seed: run.seed, in: context, progress)
      tellTruncations(order, loaded, progress)
      if let taught { try tellCaptions(order, without: taught.name, progress) }
      let cache = try await encoded(order, by: loaded, texts: learnsTexts ? [] : texts(order, dropout), company, in: context, progress)
      let dataset = try CaptionedLatents(
        order, encodedBy: pipeline.autoencoder, pipeline.conditioner, objective: objective, dropout: dropout, cache: cache,
        encodesTexts: learnsTexts)
      let prediction = try NoisePrediction(by: pipeline.predictor, objective: objective)
      let settings = try run.settings(of: Trainer<NoisePrediction>.self, with: company, recomputes: recomputes)
      let size = order.framing.buckets.nearest(to: order.pictures[0].size)
      let prompts = samples.samplePrompt.isEmpty ? [order.pictures[0].caption] : samples.samplePrompt
      let training = LoggedTraining<NoisePrediction>(
        options: run, company: company, traits: try self.traits(order, loaded, company).merging(traits) { $1 }, parts: [],
        progress: progress,
        samples: folder.map { (samples.sampleEvery, samples.draw(prompts, with: loaded, size: size, into: $0, in: context)) })
      try await training.run(
        from: {
          try Trainer(
            prediction, on: dataset, training: make(loaded), by: optimizer, schedule: rates, settings: settings, seed: run.seed)
        }, in: context
      ) { result in
        guard let result = result as? TrainedComponents else { throw Failure("What was trained cannot be written.") }
        return try write(result, loaded)
      }
    } catch {
      progress.clear()
      throw error
    }
  }

  /// Whether a model is a single file, of which the trained components alone are written.
  private func isFile(_ path: String) -> Bool {
    var isFolder: ObjCBool = false
    return FileManager.default.fileExists(atPath: path, isDirectory: &isFolder) && !isFolder.boolValue
  }

  /// Whether layers are computed again on the way back, because that was asked for or because a limit on memory asks for it.
  private func plan(_ subject: TrainingPlan.Subject, _ optimizer: any Optimizer, _ progress: Progress) throws -> Bool {
    guard let limit = run.memoryLimit else { return run.recompute }
    let files = try base.options.files
    let usual = try MemoryPlan.usualSize(of: files.base, replacing: files.parts).size
    guard let side = data.resolution ?? usual?.width else {
      throw Failure("The model does not say for which size it was made; give --resolution.")
    }
    progress.begin("Planning")
    let plan = try TrainingPlan(
      for: files.base, replacing: files.parts, subject, size: PixelSize(width: side, height: side), batch: data.batch, optimizer: optimizer,
      averages: run.ema != nil, accumulates: run.gradientAccumulation > 1, recomputes: run.recompute ? true : nil, limit: limit,
      weights: base.weights, threads: base.threads ?? ProcessInfo.processInfo.activeProcessorCount)
    progress.tell("\(plan)")
    return plan.recomputes
  }

  private func traits(_ order: BatchOrder, _ model: StableDiffusion, _ company: MPIExchange?) throws -> [String: String] {
    run.traits(with: company).merging([
      "model": try model.content(of: Array(model.reports.keys).sorted()).description,
      "data, with their sizes and batches,": order.content.description,
      "noise": "\(noise.captionDropout), \(noise.snrGamma.map { "\($0)" } ?? "-"), \(noise.noiseOffset), \(model.predictionType.rawValue)",
    ]) { $1 }
  }

  /// All captions, and the empty one where captions are left out now and then.
  private func texts(_ order: BatchOrder, _ dropout: CaptionDropout?) -> [Prompt] {
    order.pictures.map { Prompt($0.caption) } + (dropout == nil ? [] : [Prompt("")])
  }

  private func tellTruncations(_ order: BatchOrder, _ model: StableDiffusion, _ progress: Progress) {
    let cut = order.pictures.compactMap { picture in
      model.pipeline.conditioner.truncation(of: Prompt(picture.caption)).map { (picture.name, $0) }
    }
    guard let (name, first) = cut.first else { return }
    progress.warn("\(cut.count) captions are longer than the text encoder reads, that of \(name) among them: \(first)")
  }

  /// - Throws: a `Failure` where no caption has the word.
  private func tellCaptions(_ order: BatchOrder, without word: String, _ progress: Progress) throws {
    let others = order.pictures.filter { !$0.caption.lowercased().contains(word.lowercased()) }
    guard let first = others.first else { return }
    guard others.count < order.pictures.count else {
      throw Failure("No caption has the word \(word), so nothing would be learnt of it; write it into them, as in \"a photo of \(word)\".")
    }
    progress.warn("\(others.count) captions do not have the word \(word) and teach nothing of it, that of \(first.name) among them.")
  }

  /// Encodes pictures and texts that are always the same, or finds them in the cache.
  private func encoded(
    _ order: BatchOrder, by model: StableDiffusion, texts: [Prompt], _ company: MPIExchange?, in context: ExecutionContext,
    _ progress: Progress
  ) async throws -> EncodingCache {
    // The first process encodes, and the others read what it wrote.
    if company?.isFirst == false { try company?.wait() }
    defer { if company?.isFirst == true { try? company?.wait() } }
    let url = cache.map { URL(filePath: $0) } ?? run.beside("cache.safetensors")
    try checkWritable(url)
    let pictures = order.framing.crop == .random ? [] : try order.framedPictures()
    guard !pictures.isEmpty || !texts.isEmpty else { return try EncodingCache(at: nil) }
    let form = base.weights?.rawValue ?? "as stored"
    func content(_ role: ModelPart.Role) throws -> ContentHash {
      var hash = try model.content(of: model.family.parts.filter { $0.role == role }.map(\.name))
      hash.add(form)
      return hash
    }
    let (vae, encoders) = (try content(.autoencoder), try content(.conditioner))
    let pipeline = model.pipeline
    let (filled, reports) = try await context.run { context in
      var cache = try EncodingCache(at: url), own = context
      own.progress = { done, count in progress.begin("Encoding pictures, \(done) of \(count)") }
      var reports = try pictures.isEmpty ? [] : [cache.encode(pictures, by: pipeline.autoencoder, model: vae, in: own)]
      own.progress = { done, count in progress.begin("Encoding captions, \(done) of \(count)") }
      if !texts.isEmpty { reports.append(try cache.encode(texts, by: pipeline.conditioner, model: encoders, in: own)) }
      return (cache, reports)
    }
    for report in reports { progress.tell("\(report)") }
    return filled
  }
}
