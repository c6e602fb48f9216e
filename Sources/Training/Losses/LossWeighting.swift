import LatentDiffusionComponents
import Schedulers

/// How much the loss of a timestep counts. SNR = α²/σ² is how much signal is left there.
public enum LossWeighting: Sendable, Equatable {
  /// All timesteps alike.
  case uniform
  /// min(SNR, γ), in terms of x₀: for ε divided by SNR, for v by SNR + 1. So timesteps with little noise do not outweigh the others.
  /// Source: Hang and others, "Efficient diffusion training via min-SNR weighting strategy", arXiv 2303.09556; `snr_gamma` of diffusers'
  /// `train_text_to_image.py`, whose authors recommend 5.
  case minSNR(gamma: Double)
  /// 1/√SNR for ε, with SNR limited to 1000; 1/(SNR + 1) for v; √SNR for x₀, which is the weight of ε in its terms.
  /// Source: Yu and others, "Unmasking bias in diffusion model training", arXiv 2310.08442; `debiased_estimation_loss` of kohya's sd-scripts.
  case debiasedEstimation

  /// The largest SNR of the debiased estimation.
  private static let largestRatio = 1000.0

  /// - Throws: `TrainingError.unusableSetting`.
  func check(_ levels: [NoiseLevel], _ prediction: PredictionType) throws(TrainingError) {
    if case .minSNR(let gamma) = self { try TrainingError.check("gamma of min-SNR", gamma, "above 0, such as 5") { $0 > 0 } }
    if self == .debiasedEstimation, prediction == .epsilon, levels.contains(where: { $0.alpha == 0 }) {
      throw .unusableSetting(
        name: "the weighting", found: "the debiased estimation for a model that predicts noise where no signal is left",
        needed: "another, or the model one that predicts v")
    }
  }

  /// The weight of a timestep.
  func callAsFunction(_ level: NoiseLevel, _ prediction: PredictionType) -> Double {
    let ratio = Double(level.alpha) / Double(level.sigma), snr = ratio * ratio
    switch (self, prediction) {
    case (.uniform, _): return 1
    // γ/SNR is infinite where no signal is left. The smaller of it and 1 is what the quotient comes to there.
    case (.minSNR(let gamma), .epsilon): return min(1, gamma / snr)
    case (.minSNR(let gamma), .vPrediction): return min(snr, gamma) / (snr + 1)
    case (.minSNR(let gamma), .sample): return min(snr, gamma)
    case (.debiasedEstimation, .epsilon): return 1 / min(snr, Self.largestRatio).squareRoot()
    case (.debiasedEstimation, .vPrediction): return 1 / (min(snr, Self.largestRatio) + 1)
    case (.debiasedEstimation, .sample): return min(snr, Self.largestRatio).squareRoot()
    }
  }
}
