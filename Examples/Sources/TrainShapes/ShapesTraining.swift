import Foundation
import LatentDiffusion
import LatentDiffusionTraining

/// Trains the model in two stages: the autoencoder, then the text encoder and the U-Net on its latents.
struct ShapesTraining: Sendable {
  private let seed: UInt64
  private let autoencoderSteps: Int, steps: Int, scenes: Int
  private let start = ContinuousClock.now

  /// - Parameter minutes: for which the numbers of steps are meant.
  init(minutes: Double, seed: UInt64) {
    self.seed = seed
    func share(_ count: Double, atLeast least: Int) -> Int { max(least, Int((count * minutes / 15).rounded())) }
    autoencoderSteps = share(5500, atLeast: 20)
    steps = share(6000, atLeast: 20)
    scenes = share(8000, atLeast: 64)
  }

  /// - Parameters:
  ///   - work: a folder for what is between the stages.
  ///   - autoencoder: a model of this program whose autoencoder is taken; nil: one is trained.
  ///   - place: where the model goes.
  /// - Returns: the trained model, loaded from its files.
  func model(in work: URL, encodedBy autoencoder: URL?, at place: URL) async throws -> DiffusionModel {
    let context = ExecutionContext()
    var generator = TorchGenerator(seed: seed)
    let blank = work.appending(path: "blank"), encoding = work.appending(path: "encoding")
    try BlankModel().write(to: blank, drawing: &generator, in: context)
    if let autoencoder {
      try FileManager.default.copyItem(at: blank, to: encoding)
      try FileManager.default.removeItem(at: encoding.appending(path: "vae"))
      try FileManager.default.copyItem(at: autoencoder.appending(path: "vae"), to: encoding.appending(path: "vae"))
    } else {
      try await trainAutoencoder(of: StableDiffusion.load(from: blank, in: context), at: encoding, in: context)
    }
    let model = try StableDiffusion.load(from: encoding, in: context)
    try reportRoundTrip(of: model, in: context)
    try await trainDrawing(of: model, at: place, drawing: &generator, in: context)
    return try StableDiffusion.load(from: place, in: context)
  }

  private func trainAutoencoder(of model: DiffusionModel, at place: URL, in context: ExecutionContext) async throws {
    var weights = AutoencoderReconstruction.Weights()
    (weights.absolute, weights.squared, weights.edges) = (1, 1, 0.5)
    let data = DrawnPictures(batchSize: 4)
    weights.divergence = 1e-3 / Double(data.latents.count / data.batchSize)
    let trainer = try Trainer(
      AutoencoderReconstruction(of: model.pipeline.autoencoder, weights: weights), on: data, training: model.trainedParameters(of: "vae"),
      by: AdamW(betas: (0.9, 0.99), weightDecay: 0),
      schedule: LearningRateSchedule(.cosine, rate: 2e-3, warmupSteps: min(30, autoencoderSteps / 4), steps: autoencoderSteps),
      settings: settings(averaging: 0.99), seed: seed)
    let trained = try parts(of: await run(trainer, "autoencoder", in: context), alone: "vae")
    // The latents' own scale, for which the autoencoder must have its new values.
    try model.write(trained, to: place.appendingPathExtension("unscaled"), in: context)
    let unscaled = try StableDiffusion.load(from: place.appendingPathExtension("unscaled"), in: context)
    var generator = TorchGenerator(seed: seed &+ 1)
    let scenes = (0..<256).map { Scene(.seen, figures: 1 + $0 % 2, drawing: &generator) }
    let latents = try EncodedScenes.latents(of: scenes, by: unscaled.pipeline.autoencoder, in: context).flatMap(\.elements)
    let mean = latents.reduce(0.0) { $0 + Double($1) } / Double(latents.count)
    let variance = latents.reduce(0.0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / Double(latents.count)
    let configuration = try BlankModel.autoencoderConfiguration(latentScale: 1 / max(variance, 1e-12).squareRoot())
    try model.write(trained, configurations: ["vae": configuration], to: place, in: context)
  }

  /// Says how many pictures the checker still reads after encoding and decoding.
  private func reportRoundTrip(of model: DiffusionModel, in context: ExecutionContext) throws {
    var generator = TorchGenerator(seed: seed &+ 2)
    let scenes = (0..<64).map { Scene(.seen, figures: 1 + $0 % 2, drawing: &generator) }, autoencoder = model.pipeline.autoencoder
    let encoded = try autoencoder.checkedEncode(Scene.batch(scenes), in: context).mode
    let pictures = try autoencoder.checkedDecode(encoded, in: context).elements.map { min(max($0 / 2 + 0.5, 0), 1) }
    let size = pictures.count / scenes.count
    let right = scenes.indices.count { index in
      let picture = Tensor(Array(pictures[index * size..<(index + 1) * size]), shape: [1, Scene.height, Scene.width, 3])
      return (try? SceneReading(of: picture))?.shows(scenes[index], sizes: true) == true
    }
    tell("\(time): \(right) of \(scenes.count) pictures are read rightly after encoding and decoding.")
  }

  private func trainDrawing(
    of model: DiffusionModel, at place: URL, drawing generator: inout TorchGenerator, in context: ExecutionContext
  ) async throws {
    let objective = try model.noiseObjective()
    let data = try EncodedScenes(scenes: scenes, for: model, objective: objective, batchSize: 16, drawing: &generator, in: context)
    tell("\(time): \(scenes) scenes are encoded.")
    let (unet, text) = try (model.trainedParameters(of: "unet"), model.trainedParameters(of: "text_encoder"))
    let trainer = try Trainer(
      NoisePrediction(by: model.pipeline.predictor, objective: objective), on: data,
      training: TrainedComponents([("unet", unet), ("text_encoder", text)]), by: AdamW(betas: (0.9, 0.99)),
      schedule: LearningRateSchedule(.cosine, rate: 1.5e-3, warmupSteps: min(100, steps / 4), steps: steps),
      settings: settings(averaging: 0.995), seed: seed &+ 3)
    let trained = try await run(trainer, "U-Net and text encoder", in: context)
    try model.write(parts(of: trained), to: place, in: context)
  }

  private func settings<Objective>(averaging decay: Double, _: Objective.Type = Objective.self) -> Trainer<Objective>.Settings {
    var settings = Trainer<Objective>.Settings()
    settings.clipping = try? GradientClipping(norm: 1)
    var average = ExponentialMovingAverage.Decay()
    average.largest = decay
    settings.average = average
    return settings
  }

  /// Takes all steps, and says now and then how far it is.
  /// - Returns: the averages of what was trained.
  private func run<Objective>(_ trainer: Trainer<Objective>, _ name: String, in context: ExecutionContext) async throws -> any Trainable {
    let steps = trainer.steps(in: context), interval = max(1, trainer.plannedSteps / 20)
    var sum = 0.0
    for try await step in steps {
      sum += step.loss
      guard step.number.isMultiple(of: interval) else { continue }
      tell("\(time): \(name), step \(step.number) of \(step.count), loss \(String(format: "%.4f", sum / Double(interval)))")
      sum = 0
    }
    return steps.trainer.result
  }

  /// What was trained, by components, as models write it.
  private func parts(of trained: any Trainable, alone component: String = "") -> [(component: String, parameters: TrainedParameters)] {
    if let parameters = trained as? TrainedParameters { return [(component, parameters)] }
    return (trained as? TrainedComponents)?.parts.flatMap { parts(of: $0.trained, alone: $0.component) } ?? []
  }

  /// Since the beginning, as minutes and seconds.
  private var time: String {
    let seconds = Int((ContinuousClock.now - start) / .seconds(1))
    return String(format: "%2d:%02d", seconds / 60, seconds % 60)
  }
}
