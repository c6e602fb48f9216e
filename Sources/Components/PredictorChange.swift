/// What a request changes about the layers of a predictor, for its own passes. A predictor says by an error what it cannot change.
public enum PredictorChange: Sendable, Hashable {
  /// The frames of a clip see one another in windows alone. Clips then may have any number of frames from that of a window on.
  case windows(FrameWindows)
  /// In these layers each token sees itself alone (`pag_applied_layers`): regular expressions that are looked for in the layers' names, such as `mid` or
  /// `up_blocks.0.attentions.0`.
  case perturbedAttention([String])
  /// Each pass leaves in its memory how much attention the pixels get in the middle (`PassMemory.attention`).
  case toldAttention
  /// What the way up takes from below is amplified, and what it takes from the way down is attenuated.
  case freeU(FreeU)

  /// Its name in errors.
  public var option: String {
    switch self {
    case .windows: "windows of FreeNoise"
    case .perturbedAttention: "perturbed attention"
    case .toldAttention: "self-attention guidance"
    case .freeU: "FreeU"
    }
  }
}

/// Factors for the two lowest resolutions on the way up of a U-Net. Source: Si et al. 2023, "FreeU" (arXiv:2309.11497), diffusers' `enable_freeu`.
public struct FreeU: Sendable, Hashable {
  /// For half of the channels that come from below, at the lowest resolution.
  public var b1: Float
  /// The same at the next one.
  public var b2: Float
  /// For the lowest frequencies of what comes from the way down, at the lowest resolution.
  public var s1: Float
  /// The same at the next one.
  public var s2: Float

  /// What the paper's authors recommend for Stable Diffusion 1.5 is 1.5, 1.6, 0.9 and 0.2.
  ///
  /// - Parameters:
  ///   - b1: for half of the channels that come from below, at the lowest resolution.
  ///   - b2: the same at the next one.
  ///   - s1: for the lowest frequencies of what comes from the way down, at the lowest resolution.
  ///   - s2: the same at the next one.
  public init(b1: Float, b2: Float, s1: Float, s2: Float) { (self.b1, self.b2, self.s1, self.s2) = (b1, b2, s1, s2) }
}
