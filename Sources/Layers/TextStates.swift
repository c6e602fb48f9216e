import Tensor

/// A text as layers attend to it, and pictures beside it.
public struct TextStates: Sendable {
  /// `[N, L, D]`.
  public let states: Tensor
  /// How many feature maps in a row attend to each text: those of the frames of a clip.
  public let frames: Int
  /// `[N, L, D]` each: tokens of pictures, and how much each picture counts beside the text.
  public let pictures: [(tokens: Tensor, scale: Float)]
  /// Projections that depend on the text alone, by name (`….attn2.to_k`). They are the same in every pass of a generation.
  public internal(set) var projected: [String: Tensor]
  /// Keys and values of pictures, by the name of the layer that attends to them. Values have the pictures' scale.
  public internal(set) var projectedPictures: [String: [(keys: Tensor, values: Tensor)]] = [:]

  /// - Parameters:
  ///   - frames: how many feature maps in a row attend to each text.
  ///   - pictures: that are attended to beside the text.
  ///   - projected: the projections that are known already.
  public init(
    _ states: Tensor, frames: Int = 1, beside pictures: [(tokens: Tensor, scale: Float)] = [], projected: [String: Tensor] = [:]
  ) {
    (self.states, self.frames) = (states, frames)
    self.pictures = pictures
    self.projected = projected
  }

  /// The feature maps that attend to all texts.
  public var rows: Int { states.shape[0] * frames }

  /// The states of some of the texts.
  /// - Throws: what the engine throws.
  public func rows(_ range: Range<Int>, in context: ExecutionContext) throws -> TextStates {
    var part = TextStates(
      try states.rows(range, in: context), frames: frames, beside: try pictures.map { (try $0.tokens.rows(range, in: context), $0.scale) },
      projected: try projected.mapValues { try $0.rows(range, in: context) })
    part.projectedPictures = try projectedPictures.mapValues { all in
      try all.map { (try $0.keys.rows(range, in: context), try $0.values.rows(range, in: context)) }
    }
    return part
  }
}
