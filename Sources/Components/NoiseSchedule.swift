import Tensor

/// The table of a scheduler: the timestep of each step, and how much signal and noise a sample has there. A value, to be made once.
public struct NoiseSchedule: Sendable {
  /// The timestep given to the predictor at each step; its count is the number of predictions.
  public let timesteps: [Float]
  /// The noise level at each step, then after the last: at least one more than `timesteps`.
  public let levels: [NoiseLevel]
  /// What standard normal noise is multiplied by to start the loop at step 0.
  public let initialNoiseScale: Float

  /// - Parameters:
  ///   - timesteps: as the predictor wants them, whole or not.
  ///   - levels: at each step, then after the last.
  ///   - initialNoiseScale: what standard normal noise is multiplied by to start the loop.
  /// - Precondition: there are more levels than timesteps.
  public init(timesteps: [Float], levels: [NoiseLevel], initialNoiseScale: Float = 1) {
    precondition(levels.count > timesteps.count, "\(timesteps.count) steps lead through more than \(levels.count) noise levels.")
    self.timesteps = timesteps
    self.levels = levels
    self.initialNoiseScale = initialNoiseScale
  }
}

/// How much signal and noise a sample has: x = α x₀ + σ ε.
public struct NoiseLevel: Sendable, Equatable {
  /// α: what the clean sample is multiplied by.
  public let alpha: Float
  /// σ: what standard normal noise is multiplied by.
  public let sigma: Float
  /// σ/α: the noise for each unit of signal.
  public let ratio: Float
  /// What a sample is divided by before the predictor sees it.
  public let inputDivisor: Float

  private init(alpha: Float, sigma: Float, ratio: Float, inputDivisor: Float) {
    (self.alpha, self.sigma, self.ratio, self.inputDivisor) = (alpha, sigma, ratio, inputDivisor)
  }

  /// - Parameters:
  ///   - alpha: α.
  ///   - sigma: σ.
  ///   - inputDivisor: what a sample is divided by before the predictor sees it.
  public init(alpha: Float, sigma: Float, inputDivisor: Float = 1) {
    self.init(alpha: alpha, sigma: sigma, ratio: sigma / alpha, inputDivisor: inputDivisor)
  }

  /// The level of Karras' form (arXiv 2206.00364): x = x₀ + σ ε, and the predictor sees x/√(σ² + 1), which has the variance of its training.
  public init(karras sigma: Float) {
    self.init(alpha: 1, sigma: sigma, ratio: sigma, inputDivisor: (sigma * sigma + 1).squareRoot())
  }

  /// The level with this σ/α and α² + σ² = 1.
  public init(ratio: Float) {
    let alpha = 1 / (ratio * ratio + 1).squareRoot()
    self.init(alpha: alpha, sigma: ratio * alpha, ratio: ratio, inputDivisor: 1)
  }

  /// The level with α = √ᾱ and σ = √(1 − ᾱ) (DDPM, arXiv 2006.11239).
  public init(alphaCumprod: Float) {
    let noise = 1 - alphaCumprod
    self.init(
      alpha: alphaCumprod.squareRoot(), sigma: noise.squareRoot(), ratio: (noise / alphaCumprod).squareRoot(), inputDivisor: 1)
  }
}

/// Numbers are encoded by their bits, as σ may be infinite, which JSON cannot write.
extension NoiseSchedule: Codable {
  private enum CodingKeys: CodingKey { case timesteps, levels, initialNoiseScale }

  /// - Throws: `DecodingError.dataCorrupted` where there are not more levels than timesteps.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    timesteps = try values.decode(Tensor.self, forKey: .timesteps).elements
    levels = try values.decode([NoiseLevel].self, forKey: .levels)
    initialNoiseScale = Float(bitPattern: try values.decode(UInt32.self, forKey: .initialNoiseScale))
    guard levels.count > timesteps.count else {
      throw DecodingError.dataCorruptedError(
        forKey: .levels, in: values, debugDescription: "\(timesteps.count) steps need more than \(levels.count) noise levels.")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var values = encoder.container(keyedBy: CodingKeys.self)
    try values.encode(Tensor(timesteps), forKey: .timesteps)
    try values.encode(levels, forKey: .levels)
    try values.encode(initialNoiseScale.bitPattern, forKey: .initialNoiseScale)
  }
}

extension NoiseLevel: Codable {
  /// - Throws: `DecodingError.dataCorrupted` where there are not four numbers.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.singleValueContainer()
    let numbers = try values.decode([UInt32].self).map { Float(bitPattern: $0) }
    guard numbers.count == 4 else {
      throw DecodingError.dataCorruptedError(in: values, debugDescription: "A noise level has 4 numbers, not \(numbers.count).")
    }
    self.init(alpha: numbers[0], sigma: numbers[1], ratio: numbers[2], inputDivisor: numbers[3])
  }

  public func encode(to encoder: any Encoder) throws {
    var values = encoder.singleValueContainer()
    try values.encode([alpha, sigma, ratio, inputDivisor].map(\.bitPattern))
  }
}
