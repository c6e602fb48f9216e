import LatentDiffusionComponents
import Tensor

/// How the predictions of a step become one. A value, kept from step to step: what a kind of guidance remembers is part of it.
///
/// Another kind is a type of its own, given in `GenerationRequest.guidanceMethod`.
public protocol Guidance: Sendable, Codable {
  /// What the predictor is asked for each picture in any of the steps: one row of a pass each.
  var rows: [GuidanceRow] { get }
  /// What it is asked in one step: some of `rows`. Without an implementation, all of them.
  ///
  /// - Parameters:
  ///   - step: from 0, of the steps that are run.
  ///   - count: how many are run.
  func rows(at step: Int, of count: Int) -> [GuidanceRow]
  /// The prediction that the scheduler is given.
  ///
  /// - Parameters:
  ///   - predictions: `[N, h, w, C]` for each row of the step, in their order.
  ///   - step: where the generation is.
  /// - Returns: `[N, h, w, C]`.
  mutating func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor
  /// The row whose prediction says which noise is put back after the step, while the combined one says what the picture is. It takes a scheduler of whose
  /// step both are parts (`Scheduler.putsNoiseBack`). Nil, without an implementation: the combined prediction says both.
  ///
  /// - Parameters:
  ///   - step: from 0, of the steps that are run.
  ///   - count: how many are run.
  func renoisingRow(at step: Int, of count: Int) -> Int?
}

extension Guidance {
  public func rows(at step: Int, of count: Int) -> [GuidanceRow] { rows }
  public func renoisingRow(at step: Int, of count: Int) -> Int? { nil }
}

/// What one row of a pass sees.
public struct GuidanceRow: Sendable, Hashable, Codable {
  /// The texts of a request.
  public enum Text: String, Sendable, Codable {
    /// The prompt.
    case prompt
    /// The negative prompt, or an empty text.
    case negativePrompt
  }
  /// The text that it sees.
  public let text: Text
  /// Whether it sees what a task puts beside the latents; zeros otherwise.
  public let seesPicture: Bool
  /// Whether it goes through a predictor of which some layers of attention are perturbed.
  public let isPerturbed: Bool
  /// Whether it sees latents that are degraded where the network's middle looks most: those of the row that is like it otherwise, which must be asked for, too.
  public let isDegraded: Bool

  /// - Parameters:
  ///   - text: that it sees.
  ///   - seesPicture: whether it sees what a task puts beside the latents.
  ///   - isPerturbed: whether it goes through a predictor of which some layers of attention are perturbed (`GenerationRequest.perturbedAttention`).
  ///   - isDegraded: whether it sees latents that are degraded where the network's middle looks most.
  public init(_ text: Text, seesPicture: Bool = true, isPerturbed: Bool = false, isDegraded: Bool = false) {
    (self.text, self.seesPicture, self.isPerturbed, self.isDegraded) = (text, seesPicture, isPerturbed, isDegraded)
  }
}

/// Where a generation is when predictions are combined.
public struct GuidanceStep: Sendable {
  /// From 0, of the steps that are run.
  public let index: Int
  /// How many are run.
  public let count: Int
  /// What the predictor was told, on the scale of its training.
  public let timestep: Float
  /// The noise for each unit of signal, where the scheduler knows it.
  public let sigma: Float?
  /// `[N, h, w, C]`: the latents that the predictor saw, before the scheduler scaled them.
  public let latents: Tensor
}

/// The prediction of the prompt alone: one row.
public struct Unguided: Guidance {
  /// Nothing to choose.
  public init() {}

  public var rows: [GuidanceRow] { [GuidanceRow(.prompt)] }
  public func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor { predictions[0] }
}
