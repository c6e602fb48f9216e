import LatentDiffusionComponents
import Tensor

/// Teaches an autoencoder to give pictures back from their latents.
///
/// The loss is that of the pixels, plus weighted ones: of edges at several scales, and the distance of the latents' distribution from a standard normal one.
/// Source: Rombach et al. 2022 (arXiv:2112.10752), section 3.1, whose perceptual and adversarial losses need further networks; edges take their place.
public struct AutoencoderReconstruction: TrainingObjective {
  /// How much each loss counts.
  public struct Weights: Sendable, Equatable, Codable {
    /// Of |x − x̂|.
    public var absolute = 1.0
    /// Of (x − x̂)².
    public var squared = 0.0
    /// Of `MultiscaleGradientLoss`, four scales or as many as the pictures have.
    public var edges = 1.0
    /// Of the Kullback–Leibler divergence of each picture.
    public var divergence = 1e-6

    /// Absolute differences, edges, and a divergence of 1e-6 (the paper's).
    public init() {}
  }

  /// What a step learns from.
  public struct Batch: Sendable {
    /// `[N, H, W, 3]`, -1…1.
    public let images: Tensor
    /// The noise that the latents are sampled with, `[N, h, w, C]`.
    public let noise: Tensor

    /// - Parameters:
    ///   - images: `[N, H, W, 3]`, -1…1, with sides that are multiples of the autoencoder's scale.
    ///   - noise: that the latents are sampled with, `[N, h, w, C]`.
    public init(images: Tensor, noise: Tensor) { (self.images, self.noise) = (images, noise) }
  }

  private let autoencoder: any LatentAutoencoder
  private let weights: Weights

  /// - Parameters:
  ///   - autoencoder: what learns. Parts of it whose parameters are not trained stay as they are.
  ///   - weights: how much each loss counts.
  /// - Throws: `TrainingError.unusableSetting` for weights below 0, or none above.
  public init(of autoencoder: any LatentAutoencoder, weights: Weights = Weights()) throws(TrainingError) {
    let all = [
      "absolute differences": weights.absolute, "squared differences": weights.squared, "edges": weights.edges,
      "the divergence": weights.divergence,
    ]
    for (name, weight) in all.sorted(by: { $0.key < $1.key }) {
      try TrainingError.check("the weight of \(name)", weight, "0 or more") { $0 >= 0 }
    }
    guard weights.absolute + weights.squared + weights.edges > 0 else {
      throw .unusableSetting(name: "the sum of the weights of pixels and edges", found: "0", needed: "above 0")
    }
    (self.autoencoder, self.weights) = (autoencoder, weights)
  }

  public func answer(to batch: Batch, in recording: ExecutionContext) throws -> TrainingAnswer {
    var parts: [String: Double] = [:], gradients: [(result: Tensor, gradient: Tensor)] = []
    let latents: Tensor
    switch try autoencoder.encode(batch.images, in: recording) {
    case .latents(let encoded): latents = encoded
    case .distribution(let gaussian):
      latents = gaussian.sample(noise: batch.noise)
      recording.record(latents, from: [gaussian.mean, gaussian.logVariance]) { [noise = batch.noise] gradient in
        let own = try gaussian.gradient(ofSample: gradient, noise: noise, in: recording)
        return [own.mean, own.logVariance]
      }
      let divergence = try gaussian.divergence(in: recording), weight = Float(weights.divergence)
      parts["divergence"] = divergence.value
      gradients += [(gaussian.mean, weight * divergence.gradient.mean), (gaussian.logVariance, weight * divergence.gradient.logVariance)]
    }
    let decoded = try autoencoder.decode(latents, in: recording)
    let reconstruction = try reconstruction(of: batch.images, as: decoded, &parts, in: recording)
    gradients.append((decoded, reconstruction.gradient))
    return TrainingAnswer(
      loss: reconstruction.value + weights.divergence * (parts["divergence"] ?? 0), parts: parts, gradients: gradients)
  }

  private func reconstruction(
    of images: Tensor, as decoded: Tensor, _ parts: inout [String: Double], in context: ExecutionContext
  ) throws(TrainingError) -> Loss {
    var total = try Loss(0, gradient: Tensor(zerosLike: decoded))
    if weights.absolute > 0 {
      let loss = try ElementLoss.meanAbsolute(decoded, images, in: context)
      (total, parts["absolute"]) = (try total.adding(loss, weight: weights.absolute, in: context), loss.value)
    }
    if weights.squared > 0 {
      let loss = try ElementLoss.meanSquared(decoded, images, in: context)
      (total, parts["squared"]) = (try total.adding(loss, weight: weights.squared, in: context), loss.value)
    }
    if weights.edges > 0 {
      // As many scales as leave two pixels a side.
      let scales = max(1, min(4, Int.bitWidth - 1 - min(images.shape[1], images.shape[2]).leadingZeroBitCount))
      let loss = try MultiscaleGradientLoss(scales: scales)(decoded, images, in: context)
      (total, parts["edges"]) = (try total.adding(loss, weight: weights.edges, in: context), loss.value)
    }
    return total
  }
}
