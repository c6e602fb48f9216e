/// What a generation gives up of its accuracy for speed. Without any, a predictor computes everything.
public struct Shortcuts: Sendable, Hashable {
  /// Passes that reuse what an earlier one computed.
  public var stepCaching: StepCaching?
  /// The part of the tokens, 0…0.75, that self-attention at the highest resolution does without, because they are like others.
  /// Source: Bolya and Hoffman 2023, "Token Merging for Fast Stable Diffusion" (arXiv:2303.17604).
  public var tokenMerging: Double?

  /// Without arguments: none.
  public init(stepCaching: StepCaching? = nil, tokenMerging: Double? = nil) {
    self.stepCaching = stepCaching
    self.tokenMerging = tokenMerging
  }

  /// The tokens that can be merged: all but one in each square of four, which the others are merged into.
  public static let tokenMergingRange = 0...0.75
}

/// The deep features of a U-Net change little between neighbouring steps: most passes take them from an earlier one, and compute only what lies
/// around them. Source: Ma, Fang and Wang 2024, "DeepCache" (arXiv:2312.00858), with its uniform intervals.
public struct StepCaching: Sendable, Hashable {
  /// Every so many passes one is whole, the first of a generation among them; 1: all are. What counts are passes of the predictor: a
  /// scheduler may take more than one a step (Heun).
  public var interval: Int
  /// Layers of the way down that every pass computes; as many and one more, of the way up, take what they give. At 0 these are the
  /// first convolution and the last layer: the cheapest. Source: DeepCache's branch.
  public var branch: Int
  /// 0: passes between take the features as the last whole one left them, as DeepCache does. 1: they take them as they would be if they went on changing with
  /// the timestep as between the last two whole passes (the idea of Liu et al. 2025, "TaylorSeer", arXiv:2503.06923): nearer, and twice the memory.
  public var order: Int

  /// - Parameters:
  ///   - interval: every so many passes one is whole.
  ///   - branch: layers of the way down that every pass computes.
  ///   - order: 0 or 1.
  public init(interval: Int, branch: Int = 0, order: Int = 0) {
    self.interval = interval
    self.branch = branch
    self.order = order
  }
}
