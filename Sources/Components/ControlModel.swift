import Tensor

/// A network that steers a noise predictor by a picture: a ControlNet, a T2I-Adapter.
public protocol ControlModel: Sendable {
  /// What errors call it: "The ControlNet".
  var name: String { get }
  /// Channels of the pictures that it takes.
  var pictureChannels: Int { get }
  /// Whether it has a mode in which it sees the rows of prompts alone.
  var hasGuessMode: Bool { get }
  /// Whether it always sees the rows of prompts alone.
  var seesPromptsAlone: Bool { get }

  /// - Throws: `ComponentError` where it was made for another predictor.
  func check(_ predictor: any NoisePredictor) throws

  /// What follows from the pictures alone. It is computed once for all steps.
  ///
  /// - Parameter picture: `[N, H, W, pictureChannels]`, 0…1.
  /// - Returns: features of N rows each.
  /// - Throws: `CancellationError`; `ComponentError` where the sides do not fit.
  func features(of picture: Tensor, in context: ExecutionContext) throws -> [Tensor]

  /// What is added to the predictor's features in one pass.
  ///
  /// - Parameter cache: of what stays the same from pass to pass, of a type of its own; nil before the first.
  /// - Returns: residuals with as many rows as the conditioning. Those of skips are as many as `ControlPass.skips` says, and those of the middle belong to
  ///   whole passes alone.
  /// - Throws: `CancellationError`; `ComponentError` where shapes do not fit.
  func residuals(_ pass: ControlPass, cache: inout (any Sendable)?, in context: ExecutionContext) throws -> FeatureResiduals
}

extension ControlModel {
  public var hasGuessMode: Bool { false }
  public var seesPromptsAlone: Bool { false }
}

/// What a control is told in one pass.
public struct ControlPass: Sendable {
  /// `[N, h, w, C]`, as the predictor sees them.
  public var latents: Tensor
  /// On the training scale.
  public var timestep: Float
  /// k · N rows, of which row j · N + i belongs to latent i.
  public var conditioning: Conditioning
  /// What `ControlModel.features` made of the pictures, repeated to N rows.
  public var features: [Tensor]
  /// What the residuals are multiplied by.
  public var weight: Float
  /// Whether the control guesses what to draw without a prompt (`guess_mode`).
  public var isGuessing: Bool
  /// How many skips the predictor computes, from the first on, before it takes deep features of an earlier pass (step caching); nil: all, and the middle.
  /// What a control says of deeper features has no place to go then.
  public var skips: Int?

  /// The values of a pass.
  public init(
    latents: Tensor, timestep: Float, conditioning: Conditioning, features: [Tensor], weight: Float = 1, isGuessing: Bool = false,
    skips: Int? = nil
  ) {
    (self.latents, self.timestep, self.conditioning) = (latents, timestep, conditioning)
    (self.features, self.weight, self.isGuessing, self.skips) = (features, weight, isGuessing, skips)
  }
}

/// What controls add to the features of a U-Net, a row for each row of its conditioning.
public struct FeatureResiduals: Sendable {
  /// Added to what each layer of the way down leaves for the way up, the first convolution's first (`down_block_additional_residuals`).
  public var skips: [Tensor]
  /// Added to the result of the middle (`mid_block_additional_residual`).
  public var middle: Tensor?
  /// Added to the features of each level on the way down, then of the middle (`down_intrablock_additional_residuals`).
  public var levels: [Tensor]

  /// Without arguments: none.
  public init(skips: [Tensor] = [], middle: Tensor? = nil, levels: [Tensor] = []) {
    (self.skips, self.middle, self.levels) = (skips, middle, levels)
  }

  /// Each tensor changed.
  /// - Throws: what `change` throws.
  public func map(_ change: (Tensor) throws -> Tensor) rethrows -> FeatureResiduals {
    FeatureResiduals(skips: try skips.map(change), middle: try middle.map(change), levels: try levels.map(change))
  }

  /// The sum with another control's.
  /// - Throws: `ComponentError` where both have residuals of other shapes, and what the engine throws.
  public func adding(_ other: FeatureResiduals, in context: ExecutionContext) throws -> FeatureResiduals {
    func sum(_ a: [Tensor], _ b: [Tensor]) throws -> [Tensor] {
      guard !a.isEmpty, !b.isEmpty else { return a + b }
      guard a.map(\.shape) == b.map(\.shape) else {
        throw ComponentError.doesNotFit(component: "A control", reason: "it has residuals of other shapes than the control before it")
      }
      return try zip(a, b).map { try $0.adding($1, in: context) }
    }
    let middles = try sum([middle].compactMap(\.self), [other.middle].compactMap(\.self))
    return FeatureResiduals(skips: try sum(skips, other.skips), middle: middles.first, levels: try sum(levels, other.levels))
  }
}
