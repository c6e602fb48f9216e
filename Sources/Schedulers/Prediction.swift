import LatentDiffusionComponents
import Tensor

/// What the noise predictor predicts (`prediction_type`).
public enum PredictionType: String, CaseIterable, Sendable, Codable {
  /// The noise ε.
  case epsilon
  /// The clean sample x₀.
  case sample
  /// The velocity v = α ε − σ x₀ (Salimans and Ho, arXiv 2202.00512).
  case vPrediction = "v_prediction"

  /// The kind of a name in a configuration. Early ones have another for `sample`.
  public init?(named name: String) { self.init(rawValue: name == "original_sample" ? Self.sample.rawValue : name) }

  /// What a scheduler's configuration says (`prediction_type`); ε where it says nothing.
  /// - Throws: `SchedulerError`.
  public init(_ configuration: SchedulerConfiguration) throws(SchedulerError) {
    if let kind = configuration.predictionType.flatMap(Self.init(named:)) {
      self = kind
      return
    }
    self = try configuration.choice(.predictionType, configuration.predictionType, default: .epsilon)
  }

  /// x₀ where x = α x₀ + σ ε.
  func original(_ sample: Tensor, _ prediction: Tensor, alpha: Float, sigma: Float) -> Tensor {
    switch self {
    case .epsilon: (sample - sigma * prediction) / alpha
    case .sample: prediction
    case .vPrediction: alpha * sample - sigma * prediction
    }
  }

  /// ε where x = α x₀ + σ ε.
  func noise(_ sample: Tensor, _ prediction: Tensor, alpha: Float, sigma: Float) -> Tensor {
    switch self {
    case .epsilon: prediction
    case .sample: (sample - alpha * prediction) / sigma
    case .vPrediction: alpha * prediction + sigma * sample
    }
  }

  /// ε at a noise level. Where x₀ was thresholded, ε follows from it.
  func noise(_ sample: Tensor, _ prediction: Tensor, clipped original: Tensor?, at level: NoiseLevel) -> Tensor {
    guard let original else { return noise(sample, prediction, alpha: level.alpha, sigma: level.sigma) }
    return (sample - level.alpha * original) / level.sigma
  }

  /// What a perfect predictor says of x = α x₀ + σ ε.
  package func target(_ original: Tensor, noise: Tensor, alpha: Float, sigma: Float) -> Tensor {
    switch self {
    case .epsilon: noise
    case .sample: original
    case .vPrediction: alpha * noise - sigma * original
    }
  }

  /// x₀ where x = x₀ + σ ε.
  func original(_ sample: Tensor, _ prediction: Tensor, sigma: Float) -> Tensor {
    switch self {
    case .epsilon: sample - sigma * prediction
    case .sample: prediction
    case .vPrediction: prediction * (-sigma / (sigma * sigma + 1).squareRoot()) + sample / (sigma * sigma + 1)
    }
  }
}

/// What is done to the predicted clean sample before it is used.
struct Clipping: Sendable, Equatable, Encodable {
  static let none = Clipping(limit: nil, ratio: nil)

  /// The magnitude at which values are cut. Nil does nothing.
  private let limit: Float?
  /// Nil cuts at `limit` itself (`clip_sample`). Otherwise this quantile of the sample's magnitudes, from 1 to `limit`, is where values are cut, and
  /// the result is scaled to ±1 (`thresholding`; Saharia et al., "Photorealistic text-to-image diffusion models", arXiv 2205.11487, section 2.3).
  private let ratio: Float?

  private static let limits = 1e-6...1e6
  private static let ratios = 0.0...1

  private init(limit: Float?, ratio: Float?) { (self.limit, self.ratio) = (limit, ratio) }

  /// - Parameter clips: the scheduler's default of `clip_sample`; nil where it has no such key.
  /// - Parameter thresholds: whether it has `thresholding`.
  init(_ configuration: SchedulerConfiguration, clips: Bool?, thresholds: Bool = true) throws(SchedulerError) {
    if thresholds, configuration.thresholding ?? false {
      ratio = try configuration.number(
        .dynamicThresholdingRatio, configuration.dynamicThresholdingRatio, default: 0.995, in: Self.ratios)
      limit = try configuration.number(.sampleMaxValue, configuration.sampleMaxValue, default: 1, in: Self.limits)
    } else if let clips, configuration.clipSample ?? clips {
      ratio = nil
      limit = try configuration.number(.clipSampleRange, configuration.clipSampleRange, default: 1, in: Self.limits)
    } else {
      self = .none
    }
  }

  func callAsFunction(_ sample: Tensor) -> Tensor {
    guard let limit else { return sample }
    guard let ratio else { return sample.clamped(to: -limit...limit) }
    let rows = (0..<sample.shape[0]).map { row in
      let one = sample.rows(row..<row + 1)
      let limit = min(max(Self.quantile(ratio, of: one.elements.map(abs)), 1), limit)
      return one.clamped(to: -limit...limit) / limit
    }
    return Tensor.concatenated(rows, axis: 0)
  }

  /// torch.quantile: linear between the two nearest, in float32.
  private static func quantile(_ ratio: Float, of values: [Float]) -> Float {
    // The quantile of values that are not all numbers may not be a number either. Values are cut at 1 then.
    guard !values.contains(where: \.isNaN), let last = values.indices.last else { return 1 }
    let sorted = values.sorted()
    let rank = ratio * Float(last)
    let (below, above) = (sorted[min(Int(rank), last)], sorted[min(Int(rank.rounded(.up)), last)])
    let weight = rank - rank.rounded(.down)
    let quantile = weight < 0.5 ? below + weight * (above - below) : above - (above - below) * (1 - weight)
    return quantile.isNaN ? 1 : quantile
  }
}

extension Clipping: Decodable {
  /// - Throws: `DecodingError.dataCorrupted` where a number is outside of what a configuration may say.
  init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    limit = try values.decodeIfPresent(Float.self, forKey: .limit)
    ratio = try values.decodeIfPresent(Float.self, forKey: .ratio)
    // The range is wider than a configuration's, whose ends are rounded to single precision.
    guard limit.map({ 1e-7...1e7 ~= $0 }) ?? true, ratio.map({ 0...1 ~= $0 }) ?? true else {
      throw DecodingError.dataCorruptedError(forKey: .limit, in: values, debugDescription: "Samples cannot be cut like this.")
    }
  }
}

extension Scheduler {
  /// Throws where the scheduler does not have the step, or where the prediction or a remembered tensor does not have the sample's shape.
  func check(_ step: Int, _ sample: Tensor, _ prediction: Tensor, _ remembered: [Tensor] = []) throws(SchedulerError) {
    guard timesteps.indices.contains(step) else { throw .stepOutOfRange(step, count: timesteps.count) }
    guard sample.shape == prediction.shape else { throw .shapeMismatch(sample: sample.shape, prediction: prediction.shape) }
    if let other = remembered.first(where: { $0.shape != sample.shape }) {
      throw .historyMismatch(sample: sample.shape, remembered: other.shape)
    }
  }
}

extension NoiseSource {
  /// Noise for a sample, drawn in the order in which PyTorch would fill it: latents `[N, h, w, C]` in the order `[N, C, h, w]`, those of clips,
  /// `[N, F, h, w, C]`, in the order `[N, C, F, h, w]`.
  mutating func normal(like sample: Tensor) -> Tensor {
    [4, 5].contains(sample.shape.rank) ? normal(channelsLast: sample.shape) : Tensor(normal(sample.count), shape: sample.shape)
  }
}
