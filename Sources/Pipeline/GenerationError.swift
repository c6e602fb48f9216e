import Tensor

/// Why a request cannot be carried out.
public enum GenerationError: Error, Sendable, Equatable, CustomStringConvertible {
  /// There is nothing to draw.
  case noPrompts
  /// A prompt that no text encoder can have a use for.
  case promptTooLong(bytes: Int)
  /// Neither none, nor one for all, nor one for each prompt.
  case negativePromptCount(prompts: Int, negativePrompts: Int)
  /// Not one for each adapter, or none for a model that draws nothing without.
  case imagePromptCount(found: Int, expected: Int)
  /// A number outside what it may be.
  case outOfRange(name: String, value: String, allowed: String)
  /// Neither the request nor the model says how large the pictures are to be.
  case noSize
  /// A side that the autoencoder or the noise predictor cannot divide.
  case indivisibleSize(width: Int, height: Int, multiple: Int)
  /// More pixels than a request may have, all pictures together.
  case tooLarge(width: Int, height: Int, images: Int)
  /// A picture that has not one multiple of what the model works in.
  case imageTooSmall(width: Int, height: Int, multiple: Int)
  /// A tensor of another shape than the request needs.
  case unexpectedShape(name: String, expected: String, found: Shape)
  /// A tensor with an infinite element, or one that is not a number.
  case notFinite(name: String)
  /// The strength leaves out every step.
  case noStepsLeft(steps: Int, strength: Double)
  /// The noise predictor has not the channels that the task needs.
  case modelDoesNotFit(task: String, inputChannels: Int, expected: String)
  /// The noise predictor draws pictures, and the task makes clips.
  case drawsPictures(task: String)
  /// The noise predictor draws clips, and the task makes pictures.
  case drawsClips(task: String)
  /// A checkpoint does not belong to this request on this model.
  case checkpointDoesNotFit(reason: String)
  /// The request's adaptation was made for another model.
  case foreignAdaptation
  /// The latents became infinite or not numbers, so that the picture would be black.
  case diverged(step: Int)

  public var description: String {
    switch self {
    case .noPrompts:
      "The request has no prompt; give at least one (it may be empty)."
    case .promptTooLong(let bytes):
      "A prompt has \(bytes) bytes; give at most \(GenerationRequest.maximumPromptBytes)."
    case .negativePromptCount(let prompts, let negativePrompts):
      "\(negativePrompts) negative prompts do not fit \(prompts) prompts; give none, one for all, or one for each."
    case .imagePromptCount(let found, let expected):
      expected == 0
        ? "This model takes no pictures beside prompts; add an adapter to it, or leave them out."
        : "The request has \(found) image prompts, and the model takes \(expected): one for each of its adapters, or what it draws variations or clips of."
    case .outOfRange(let name, let value, let allowed):
      "\(name) is \(value); it must be \(allowed)."
    case .noSize:
      "The model does not say what size it was made for; give a width and a height."
    case .indivisibleSize(let width, let height, let multiple):
      "\(width)×\(height) does not fit this model; both sides must be multiples of \(multiple)."
    case .tooLarge(let width, let height, let images):
      "\(images) of \(width)×\(height) are too many pixels; ask for at most \(GenerationRequest.maximumPixels) in all."
    case .imageTooSmall(let width, let height, let multiple):
      "A picture of \(width)×\(height) is too small for this model; both sides must be at least \(multiple)."
    case .unexpectedShape(let name, let expected, let found):
      "\(name) must have the shape \(expected), not \(found)."
    case .notFinite(let name):
      "\(name) must hold finite numbers only."
    case .noStepsLeft(let steps, let strength):
      "A strength of \(strength) leaves none of the \(steps) steps; raise the strength or the number of steps."
    case .modelDoesNotFit(let task, let inputChannels, let expected):
      "This model takes \(inputChannels) channels and is not made for \(task), which needs \(expected)."
    case .drawsPictures(let task):
      "This model draws pictures, and \(task) needs one that draws clips; take such a model, or add a motion module to this one."
    case .drawsClips(let task):
      "This model draws clips and is not made for \(task); take a task for video, or a model without motion modules."
    case .checkpointDoesNotFit(let reason):
      "The checkpoint does not belong to this request on this model: \(reason)."
    case .foreignAdaptation:
      "The request's adaptation belongs to another model; make it with this one."
    case .diverged(let step):
      "The latents are no longer numbers after step \(step + 1); the weights may be damaged, or the guidance far too high."
    }
  }
}

/// - Throws: `GenerationError.outOfRange`, also for what is not a number.
func checkNumber<Number: Comparable>(_ name: String, _ value: Number, in range: ClosedRange<Number>) throws(GenerationError) {
  guard range.contains(value) else {
    throw .outOfRange(name: name, value: "\(value)", allowed: "from \(range.lowerBound) to \(range.upperBound)")
  }
}
