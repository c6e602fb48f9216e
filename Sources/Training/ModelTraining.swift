import Foundation
import LatentDiffusion
import LatentDiffusionTrainingData
import LatentDiffusionWeights
import Tensor

/// Which matrices and kernels get low-rank changes.
public enum LowRankTargets: String, Sendable, CaseIterable {
  /// Those of attention: `to_q`, `to_k`, `to_v` and `to_out.0` of U-Nets, `q_proj`, `k_proj`, `v_proj` and `out_proj` of text encoders.
  /// Source: diffusers' `train_text_to_image_lora.py` and `train_dreambooth_lora.py`.
  case attention
  /// Those and all other layers within the blocks, convolutions too. Source: the modules that kohya's LoCon and LyCORIS change.
  case convolutions

  private static let attentionLayers = ["to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj"]
  private static let otherLayers = [
    "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv",
    "upsamplers.0.conv", "fc1", "fc2",
  ]

  /// The matrices and kernels among a component's parameters that these are.
  public func labels(among labels: [ParameterLabel]) -> [ParameterLabel] {
    let layers = Self.attentionLayers + (self == .convolutions ? Self.otherLayers : [])
    return labels.filter { label in label.isMatrix && layers.contains { label.name.hasSuffix(".\($0).weight") } }
  }
}

extension DiffusionModel {
  /// The parameters of a component.
  ///
  /// - Parameter component: by the name of its folder, such as `unet`.
  /// - Throws: `TrainingError.noComponent`.
  public func parameters(of component: String) throws(TrainingError) -> [ParameterLabel] {
    guard let report = reports[component] else { throw .noComponent(component, known: reports.keys.sorted()) }
    return report.parameters
  }

  /// What puts values that are trained into this model, for `GenerationRequest.adaptation`: for pictures while the training goes on.
  /// - Throws: `CancellationError`.
  public func adaptation(placing trained: any Trainable, in context: ExecutionContext = ExecutionContext()) throws -> Adaptation {
    try trained.placed(in: pipeline.model ?? Adaptation.Model(), on: nil, in: context).adaptation
  }

  /// What the model's noise predictor learns: what its scheduler's configuration says.
  ///
  /// - Throws: `SchedulerError`; `TrainingError` for a predictor that needs more than noise, a text and sizes: pictures, a class, a level of noise.
  public func noiseObjective(settings: NoiseObjective.Settings = .init()) throws -> NoiseObjective {
    let known: Set = ["timesteps", "time_ids"]
    let others = pipeline.predictor.declaredInputs.filter { $0.isRequired && !known.contains($0.name) }.map(\.name)
    guard others.isEmpty, pipeline.predictor.inputChannels == pipeline.autoencoder.latentChannels, pipeline.imageConditioners.isEmpty else {
      throw TrainingError.unusableSetting(
        name: "the model", found: others.isEmpty ? "one that also sees a picture" : "one that also needs \(others.joined(separator: ", "))",
        needed: "one that predicts noise from latents and a text")
    }
    return try NoiseObjective(schedulerConfiguration, settings: settings)
  }

  /// A component's parameters as its files have them, in float32, to be trained as a whole.
  ///
  /// - Parameter component: by the name of its folder, such as `unet`.
  /// - Throws: `TrainingError` where there is no such component, or its files hold values in blocks of a few bits, which cannot take small steps; and what
  ///   reading throws.
  public func trainedParameters(of component: String) throws -> TrainedParameters {
    try checkIsTrainable(component)
    return try TrainedParameters(parameters(of: component), from: source.files.weights(of: component))
  }

  /// Says before the work begins whether a component can be trained as a whole.
  ///
  /// - Parameter component: by the name of its folder, such as `unet`.
  /// - Throws: `TrainingError` where there is no such component, or its files hold values in blocks of a few bits; and what reading throws.
  public func checkIsTrainable(_ component: String) throws {
    _ = try parameters(of: component)
    guard let blocks = try source.files.extents(of: component, as: nil).first(where: { $0.storedType.blockValues > 1 }) else { return }
    throw TrainingError.unusableSetting(
      name: "the \(component)", found: "stored as \(blocks.storedType.name)",
      needed: "of floating-point numbers to be trained as a whole; take the model that it was made of, or train low-rank changes")
  }

  /// Writes the model with what was trained in the place of its own parameters, as `ModelFiles.write` does.
  ///
  /// - Parameters:
  ///   - trained: whole components, each with its name.
  ///   - url: where the folder goes; nothing may exist there yet.
  ///   - configurations: what components' `config.json` say from now on.
  /// - Throws: what `ModelFiles.write` throws.
  public func write(
    _ trained: [(component: String, parameters: TrainedParameters)], configurations: [String: Data] = [:], to url: URL,
    in context: ExecutionContext = ExecutionContext()
  ) throws {
    let values = Dictionary(trained.map { ($0.component, $0.parameters.tensors) }) { first, _ in first }
    try source.files.write(replacing: values, configurations: configurations, to: url, in: context)
  }
}

extension DiffusionModel {
  /// What latents are to be multiplied by so that their standard deviation is 1 (`scaling_factor`): for an autoencoder that was trained from nothing.
  /// Source: Rombach et al. 2022, section G.
  ///
  /// - Parameters:
  ///   - order: of pictures, of which at most 256 are encoded.
  ///   - trained: has the autoencoder's parameters.
  /// - Throws: what reading and encoding throws.
  public func latentScale(of order: BatchOrder, placing trained: any Trainable, in context: ExecutionContext) throws -> Float {
    var own = context, batches = try order.batches()
    own.adaptation = try adaptation(placing: trained, in: context)
    var (sum, squares, count) = (0.0, 0.0, 0), seen = 0
    while seen < min(256, order.pictures.count), let batch = batches.next() {
      let encoded = try pipeline.autoencoder.encode(batch.images(in: context), in: own)
      for value in encoded.mode.elements {
        (sum, squares, count) = (sum + Double(value), squares + Double(value) * Double(value), count + 1)
      }
      // Predictors learn from samples, which spread around their means.
      for logarithm in encoded.gaussian?.logVariance.clamped(to: -30...20).elements ?? [] { squares += exp(Double(logarithm)) }
      seen += batch.pictures.count
    }
    let mean = sum / Double(max(count, 1)), variance = squares / Double(max(count, 1)) - mean * mean
    guard variance > 0, variance.isFinite else { throw TrainingError.lossNotFinite }
    return Float(1 / variance.squareRoot())
  }

  /// A component's `config.json` with another value for a key.
  ///
  /// - Throws: `ConfigurationError` where there is none, and what reading throws.
  public func configuration(of component: String, setting key: String, to value: Double) throws -> Data {
    let json = try source.files.requiredConfiguration(of: component)
    guard var object = try JSONSerialization.jsonObject(with: json) as? [String: Any] else {
      throw ConfigurationError.malformed(component: component, reason: "it is no JSON object")
    }
    object[key] = value
    return try JSONSerialization.data(withJSONObject: object, options: [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes])
  }
}
