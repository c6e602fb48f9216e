import Tensor

/// Pictures that say what to draw, beside a prompt or in its place.
public struct ImagePrompt: Sendable {
  /// `[1, H, W, 3]` each, 0…1, of any sizes.
  public var pictures: [Tensor]
  /// How much they count beside the text (`ip_adapter_scale`), for adapters; nil: 1. At 0 they count nothing.
  public var scale: Double?
  /// How much noise is put on what is known of the picture, for models that were trained with it (`noise_level`); nil: none.
  public var noiseLevel: Int?

  /// - Parameters:
  ///   - pictures: `[1, H, W, 3]` each, 0…1.
  ///   - scale: how much they count beside the text, for adapters.
  ///   - noiseLevel: how much noise is put on what is known of them, for models that were trained with it.
  public init(_ pictures: [Tensor], scale: Double? = nil, noiseLevel: Int? = nil) {
    (self.pictures, self.scale, self.noiseLevel) = (pictures, scale, noiseLevel)
  }
}

/// Turns pictures into conditioning, which is added to that of the prompts.
public protocol ImageConditioner: Sendable {
  /// Whether the model draws nothing without pictures.
  var isRequired: Bool { get }

  /// Says before anything is computed whether it can take these pictures. Their shapes are checked before.
  /// - Throws: `ComponentError`.
  func check(_ prompt: ImagePrompt) throws

  /// - Parameter noise: the generation's, before anything else is drawn from it.
  /// - Throws: `ComponentError`, `CancellationError`.
  func condition(_ prompt: ImagePrompt, drawing noise: inout any NoiseSource, in context: ExecutionContext) throws -> ImageConditioning
}

/// What pictures add to the conditioning of prompts.
public struct ImageConditioning: Sendable {
  /// One row, for the rows that see the prompt.
  public let prompt: Conditioning
  /// One row of the same inputs, for the rows that see the negative prompt.
  public let negative: Conditioning

  /// - Parameters:
  ///   - prompt: one row.
  ///   - negative: one row of the same inputs.
  public init(prompt: Conditioning, negative: Conditioning) { (self.prompt, self.negative) = (prompt, negative) }
}
