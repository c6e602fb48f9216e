import Foundation
import LatentDiffusion
import LatentDiffusionComponents
import LatentDiffusionWeights
import Tensor

/// How much memory a training takes, known before it begins, and what is done so that it keeps within a limit.
///
/// The step is followed with networks that have no weights, by the code that will take it, as a `MemoryPlan` follows a generation.
///
/// ```swift
/// let plan = try TrainingPlan(for: url, .lowRank(rank: 16, .attention), size: PixelSize(width: 512, height: 512), limit: 3_000_000_000)
/// settings.recomputes = plan.recomputes
/// ```
public struct TrainingPlan: Sendable, CustomStringConvertible {
  /// What is trained.
  public enum Subject: Sendable {
    /// Low-rank changes of the U-Net, and of the text encoders where they learn, too.
    case lowRank(rank: Int, LowRankTargets, textEncoders: Bool = false)
    /// Whole components that predict noise or read prompts; those that the model lacks do not count.
    case parameters(of: [String])
    /// The vectors of a word.
    case word
  }

  /// Whether layers are computed again on the way back.
  public let recomputes: Bool
  /// Bytes that the process is expected to have resident at most.
  public let predictedPeakBytes: Int

  /// - Parameters:
  ///   - url: a model, as `DiffusionModel.load` takes it.
  ///   - parts: components from other files, as `DiffusionModel.load` takes them.
  ///   - subject: what is trained.
  ///   - size: of the pictures.
  ///   - batch: pictures that are looked at together.
  ///   - optimizer: whose memory counts.
  ///   - averages: whether an average of all steps is kept.
  ///   - accumulates: whether a step has several batches.
  ///   - recomputes: whether layers are computed again on the way back; nil: if a limit asks for it.
  ///   - limit: bytes that the process may have resident; nil: as many as it takes.
  ///   - weights: the form in which weights that are not trained are held.
  ///   - threads: of the context in which it will run.
  /// - Throws: `TrainingError.unusableSetting` where no plan keeps within the limit, with the least that would do; what reading the files throws.
  public init(
    for url: URL, replacing parts: [String: URL] = [:], _ subject: Subject, size: PixelSize, batch: Int = 1, optimizer: any Optimizer,
    averages: Bool = false, accumulates: Bool = false, recomputes: Bool? = nil, limit: Int? = nil, weights: WeightForm? = nil,
    threads: Int = ProcessInfo.processInfo.activeProcessorCount, registry: ModelRegistry = .standard
  ) throws {
    let model = try ModelExtents(ModelFiles.open(url, replacing: parts, registry: registry), weights: weights, registry: registry)
    let encoder = try model.encoderPeak(size, threads: threads)
    func peak(_ recomputes: Bool) throws -> Int {
      let step = try Step(model, subject, size: size, batch: batch, recomputes: recomputes, threads: threads)
      // The values, those that layers compute with, and what optimiser, average and accumulation keep of them.
      let copies = 2 + optimizer.rememberedCopies + (averages ? 1 : 0) + (accumulates ? 1 : 0)
      return model.peakBytes(buffers: step.peakBytes, trained: 4 * step.trainedCount * copies, encoder: encoder)
    }
    var choice = recomputes ?? false, bytes = try peak(choice)
    if let limit, bytes > limit, recomputes == nil { (choice, bytes) = (true, try peak(true)) }
    if let limit, bytes > limit {
      throw TrainingError.unusableSetting(
        name: "the limit on memory", found: "\(limit / 1_000_000) MB",
        needed: "\((bytes + 999_999) / 1_000_000) MB or more; smaller pictures, batches or ranks need less")
    }
    (self.recomputes, predictedPeakBytes) = (choice, bytes)
  }

  public var description: String {
    "About \((predictedPeakBytes + 500_000) / 1_000_000) MB of memory, "
      + (recomputes ? "with layers that are computed again on the way back" : "with all activations kept")
  }

  /// A step without values.
  private struct Step {
    /// Bytes of activations, gradients and temporary buffers at once.
    let peakBytes: Int
    /// Numbers that are trained.
    let trainedCount: Int

    init(_ model: ModelExtents, _ subject: Subject, size: PixelSize, batch: Int, recomputes: Bool, threads: Int) throws {
      let engine = CountingEngine(WorkCounter(), threads: threads), tape = GradientTape()
      let (trained, textsLearn) = try Self.trained(model, subject)
      let placed = try trained.placed(in: Adaptation.Model(), on: tape, in: ExecutionContext(threads: 1))
      var recording = engine.context.recording(on: tape, recomputing: recomputes)
      recording.adaptation = placed.adaptation
      let scale = model.assembly.autoencoder.spatialScale, predictor = model.assembly.predictor
      var conditioning = try model.conditioning(batch, size: size, in: textsLearn ? recording : engine.context)
      conditioning.inputs["timesteps"] = engine.input([batch])
      let latents = engine.input([batch, size.height / scale, size.width / scale, predictor.inputChannels])
      let answer = try predictor.predict(latents, timestep: 0, conditioning: conditioning, in: recording)
      _ = try tape.gradients(of: answer, times: engine.input(answer.shape), in: engine.context)
      (peakBytes, trainedCount) = (engine.counter.peakBytes, trained.count)
    }

    private static func trained(_ model: ModelExtents, _ subject: Subject) throws -> (trained: CountedParameters, textsLearn: Bool) {
      let encoders = ["text_encoder", "text_encoder_2"].filter { !model.parameters(of: $0).isEmpty }
      switch subject {
      case .lowRank(let rank, let targets, let textEncoders):
        let labels = (["unet"] + (textEncoders ? encoders : [])).flatMap { targets.labels(among: model.parameters(of: $0)) }
        return (CountedParameters(labels.map { ($0, nil) }, rank: rank), textEncoders)
      case .parameters(let names):
        let components = names.filter { !model.parameters(of: $0).isEmpty }
        let parameters = try components.flatMap { component in
          let source = try model.weights(of: component)
          return try model.parameters(of: component).map { ($0, try source.tensor($0.name, shape: $0.shape)) }
        }
        return (CountedParameters(parameters, rank: 0), components.contains { encoders.contains($0) })
      case .word:
        // The places of tokens are where vectors are, and about as many.
        let parameters = try encoders.flatMap { encoder in
          let source = try model.weights(of: encoder)
          return try model.parameters(of: encoder).filter { $0.name.hasSuffix("position_embedding.weight") }.map {
            ($0, try source.tensor($0.name, shape: $0.shape))
          }
        }
        return (CountedParameters(parameters, rank: 0), true)
      }
    }
  }
}

/// What is trained, without values.
private struct CountedParameters {
  private let parameters: [(label: ParameterLabel, weights: WeightTensor?)]
  private let rank: Int

  /// - Parameters:
  ///   - parameters: with the extents of those that are trained themselves; nil where they are changed by low rank.
  ///   - rank: of the changes.
  init(_ parameters: [(ParameterLabel, WeightTensor?)], rank: Int) { (self.parameters, self.rank) = (parameters, rank) }

  /// Numbers in all.
  var count: Int {
    parameters.reduce(0) { sum, parameter in
      let shape = parameter.label.shape
      return sum + (parameter.weights == nil ? rank * (shape[0] + shape.count / max(shape[0], 1)) : shape.count)
    }
  }

  func placed(in model: Adaptation.Model, on tape: GradientTape, in context: ExecutionContext) throws -> PlacedParameters {
    let source = CountingEngine(.init(), threads: 1)
    var adaptation = Adaptation(of: model), generator = TorchGenerator(seed: 0)
    for (label, weights) in parameters {
      guard let weights else { continue }
      if label.isMatrix {
        let matrix = try PackedMatrix(weights, isGated: label.isGated, in: context)
        tape.follow(matrix)
        adaptation.matrices[label.id] = matrix
      } else {
        let vector = source.input(label.shape)
        tape.follow(vector)
        adaptation.vectors[label.id] = vector
      }
    }
    let changed = parameters.filter { $0.weights == nil }.map(\.label)
    guard !changed.isEmpty else { return PlacedParameters(adaptation) { _ in [] } }
    return try TrainedLowRank(changed, rank: rank, with: &generator).placed(in: model, on: tape, in: context)
  }
}
