import Tensor

/// Leaves out captions now and then, so that a model also learns what pictures look like without one; guidance needs that.
///
/// Source: Ho and Salimans, "Classifier-free diffusion guidance", arXiv 2207.12598.
public struct CaptionDropout: Sendable, Equatable {
  /// How often a caption is left out, 0…1.
  public let probability: Double

  /// - Parameter probability: how often a caption is left out, 0…1; 0.1 is usual.
  /// - Throws: `TrainingError.unusableSetting`.
  public init(probability: Double) throws(TrainingError) {
    try TrainingError.check("the probability of leaving a caption out", probability, "from 0 to 1") { 0...1 ~= $0 }
    self.probability = probability
  }

  /// For each picture of a batch whether its caption is left out: `torch.rand(count) < probability`.
  /// - Parameter generator: draws one number for each picture, whatever the probability is.
  public func callAsFunction(_ count: Int, with generator: inout TorchGenerator) -> [Bool] {
    generator.uniform(count).map { Double($0) < probability }
  }
}
