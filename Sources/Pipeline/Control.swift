import LatentDiffusionComponents
import Tensor

/// A network that steers a generation by a picture, and how much: a ControlNet, a T2I-Adapter.
public struct Control: Sendable {
  /// What looks at the picture.
  public var model: any ControlModel
  /// `[N, H, W, C]`, 0…1: one for all, one for each prompt, or one for each picture of the request; for clips one for all or one for each frame, or one for
  /// each frame of each clip. One of another size is resampled.
  public var picture: Tensor
  /// What the network says is multiplied by this (`controlnet_conditioning_scale`).
  public var weight: Double
  /// The part of the steps, 0…1, from which it steers: step i of n where i/n is not below (`control_guidance_start`).
  public var start: Double
  /// The part of the steps, 0…1, up to which it steers: step i of n where (i + 1)/n is not above (`control_guidance_end`).
  public var end: Double
  /// Whether a ControlNet looks at the rows of prompts alone, and guesses from the picture what the prompt does not say (`guess_mode`).
  public var isGuessing: Bool

  /// - Parameters:
  ///   - model: what looks at the picture.
  ///   - picture: `[N, H, W, C]`, 0…1.
  ///   - weight: what the network says is multiplied by this.
  ///   - start: the part of the steps from which it steers.
  ///   - end: the part of the steps up to which it steers.
  ///   - isGuessing: whether it looks at the rows of prompts alone.
  public init(
    _ model: any ControlModel, picture: Tensor, weight: Double = 1, start: Double = 0, end: Double = 1, isGuessing: Bool = false
  ) {
    (self.model, self.picture, self.weight) = (model, picture, weight)
    (self.start, self.end, self.isGuessing) = (start, end, isGuessing)
  }

  /// - Parameters:
  ///   - prompts: of the request.
  ///   - count: of its pictures or clips.
  ///   - frames: of each clip; nil for pictures.
  /// - Throws: `GenerationError`; `ComponentError` where the network fits no such predictor.
  func check(_ predictor: any NoisePredictor, prompts: Int, count: Int, frames: Int?) throws {
    try model.check(predictor)
    let name = "The picture of a control"
    try picture.checkPicture(name, channels: model.pictureChannels)
    let allowed = frames.map { [1, $0, count * $0] } ?? [1, prompts, count]
    guard allowed.contains(picture.shape[0]) else {
      let counts = Set(allowed).sorted().map { "\($0)" }.joined(separator: " or ")
      throw GenerationError.unexpectedShape(
        name: name, expected: "[\(counts), height, width, \(model.pictureChannels)]", found: picture.shape)
    }
    try checkNumber("The weight of a control", weight, in: -1000...1000)
    try checkNumber("The start of a control", start, in: 0...1)
    try checkNumber("The end of a control", end, in: start...1)
    guard !isGuessing || model.hasGuessMode else { throw ComponentError.unsupported(component: model.name, option: "guess mode") }
  }

  /// Whether it steers a step.
  func isOn(_ step: Int, of steps: Int) -> Bool {
    Double(step) / Double(steps) >= start && Double(step + 1) / Double(steps) <= end
  }
}

/// A predictor with its controls, for one generation. It asks them before each pass and hands what they say to the predictor.
///
/// The memory of a pass says which step it is. With step caching, deep features stay as the last whole pass was
/// steered, and the layers above them are steered in each pass.
package struct ControlledPredictor: NoisePredictor {
  private(set) var base: any NoisePredictor
  /// Each with the features of its picture, repeated for the pictures of the request.
  let controls: [(control: Control, features: [Tensor])]
  /// Of a pass, one for each k.
  private(set) var rows: [GuidanceRow]
  /// That are run.
  let steps: Int

  package var inputChannels: Int { base.inputChannels }
  package var outputChannels: Int { base.outputChannels }
  package var sideMultiple: Int { base.sideMultiple }
  package var sampleSize: Int? { base.sampleSize }
  package var sampleSides: (height: Int, width: Int)? { base.sampleSides }
  package var clip: ClipLength? { base.clip }
  package var embedsGuidance: Bool { base.embedsGuidance }
  package var declaredInputs: [PredictorInput] { base.declaredInputs }
  package func check(_ shortcuts: Shortcuts) throws { try base.check(shortcuts) }

  package func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    var memory = PassMemory()
    return try predict(latents, timestep: timestep, conditioning: conditioning, memory: &memory, in: context)
  }

  package func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> Tensor {
    var caches = memory.cache as? Caches ?? Caches(controls: Array(repeating: nil, count: controls.count))
    var conditioning = conditioning
    // Controls see the frames of clips as so many pictures, each with the clip's text.
    let frames = latents.shape.rank == 5 ? latents.shape[1] : 1, pictures = latents.framesAsPictures
    let seen = caches.seen(conditioning, frames: frames)
    for (index, (control, features)) in controls.enumerated() where control.isOn(memory.step, of: steps) {
      var pass = ControlPass(
        latents: pictures, timestep: timestep, conditioning: seen, features: features, weight: Float(control.weight),
        isGuessing: control.isGuessing || control.model.seesPromptsAlone, skips: memory.computedSkips)
      // A pass may have no row of a prompt, where texts have different lengths.
      if pass.isGuessing, !rows.contains(where: { $0.text == .prompt }) { continue }
      let isPart = pass.isGuessing && rows.contains { $0.text != .prompt }
      if isPart { pass = try prompted(pass, &caches, in: context) }
      var said = try control.model.residuals(pass, cache: &caches.controls[index], in: context)
      if isPart { said = try said.map { try spread($0, in: context) } }
      conditioning.residuals = try conditioning.residuals?.adding(said, in: context) ?? said
    }
    memory.cache = caches.base
    let prediction = try base.predict(latents, timestep: timestep, conditioning: conditioning, memory: &memory, in: context)
    caches.base = memory.cache
    memory.cache = caches
    return prediction
  }

  /// What the predictor and the controls keep, each of its own type.
  private struct Caches: Sendable {
    var base: (any Sendable)?
    var controls: [(any Sendable)?]
    /// The rows of prompts, and the context that they were taken from.
    var prompted: (of: Tensor, conditioning: Conditioning)?
    /// A row for each frame, and the context that they were taken from.
    private var repeated: (of: Tensor, conditioning: Conditioning)?

    init(controls: [(any Sendable)?]) { self.controls = controls }

    /// A conditioning with a row for each frame.
    mutating func seen(_ conditioning: Conditioning, frames: Int) -> Conditioning {
      guard frames > 1 || conditioning.changesByFrame else { return conditioning }
      if let repeated, let states = conditioning.contexts.first, repeated.of.isIdentical(to: states) { return repeated.conditioning }
      let result = conditioning.eachFrame(frames)
      repeated = conditioning.contexts.first.map { ($0, result) }
      return result
    }
  }

  /// The pass without the rows that see no prompt.
  private func prompted(_ pass: ControlPass, _ caches: inout Caches, in context: ExecutionContext) throws -> ControlPass {
    let count = pass.conditioning.rows / rows.count
    func kept(_ tensor: Tensor) throws -> Tensor {
      let parts = try rows.indices.filter { rows[$0].text == .prompt }.map { try tensor.rows($0 * count..<($0 + 1) * count, in: context) }
      return parts.isEmpty
        ? Tensor(shape: Shape([0] + tensor.shape.dimensions.dropFirst())) : try .concatenated(parts, axis: 0, in: context)
    }
    var pass = pass
    // Rows may see latents of their own.
    if pass.latents.shape[0] == pass.conditioning.rows { pass.latents = try kept(pass.latents) }
    if let known = caches.prompted, let states = pass.conditioning.contexts.first, known.of.isIdentical(to: states) {
      pass.conditioning = known.conditioning
      return pass
    }
    let (whole, inputs) = (pass.conditioning, try pass.conditioning.inputs.mapValues(kept))
    pass.conditioning = Conditioning(
      rows: count * rows.count { $0.text == .prompt }, contexts: try whole.contexts.map(kept), pooled: try whole.pooled.map(kept),
      inputs: inputs, guidance: whole.guidance)
    caches.prompted = whole.contexts.first.map { ($0, pass.conditioning) }
    return pass
  }

  /// Residuals for the rows of prompts as residuals for all rows: the others get zeros.
  private func spread(_ said: Tensor, in context: ExecutionContext) throws -> Tensor {
    let count = said.shape[0] / max(1, rows.count { $0.text == .prompt })
    let zeros = Tensor(shape: Shape([count] + said.shape.dimensions.dropFirst()))
    var next = 0
    let parts = try rows.map { row -> Tensor in
      guard row.text == .prompt else { return zeros }
      defer { next += 1 }
      return try said.rows(next * count..<(next + 1) * count, in: context)
    }
    return try .concatenated(parts, axis: 0, in: context)
  }
}

extension ControlledPredictor {
  /// The same around another predictor.
  func over(_ base: any NoisePredictor) -> ControlledPredictor {
    var result = self
    result.base = base
    return result
  }

  /// The same for passes of other rows.
  func asked(_ rows: [GuidanceRow]) -> ControlledPredictor {
    var result = self
    result.rows = rows
    return result
  }

  /// A predictor with controls, whose features are made here; without any, the predictor itself.
  ///
  /// - Parameters:
  ///   - rows: of the guidance.
  ///   - steps: that are run.
  ///   - count: pictures or clips of the request. Those of the first prompt come first.
  ///   - frames: of each clip; nil for pictures.
  ///   - fitted: a control's picture in the size of the model's input.
  package static func steering(
    _ predictor: any NoisePredictor, _ controls: [Control], rows: [GuidanceRow], steps: Int, count: Int, frames: Int? = nil,
    in context: ExecutionContext, fitted: (Tensor) -> Tensor = { $0 }
  ) throws -> any NoisePredictor {
    guard !controls.isEmpty else { return predictor }
    let seen = try controls.map { control in
      (
        control,
        try control.model.features(of: fitted(control.picture), in: context).map {
          // What is there for each frame is the same for all clips.
          $0.shape[0] == frames ? try $0.repeated(count, in: context) : try repeated($0, for: count * (frames ?? 1), in: context)
        }
      )
    }
    return ControlledPredictor(base: predictor, controls: seen, rows: rows, steps: steps)
  }

  /// Features of one picture, or of one for each prompt, for all pictures of the request.
  private static func repeated(_ features: Tensor, for count: Int, in context: ExecutionContext) throws -> Tensor {
    let given = features.shape[0], times = given > 0 ? count / given : 1
    guard times > 1 else { return features }
    return try .concatenated(
      (0..<given).flatMap { Array(repeating: try features.rows($0..<$0 + 1, in: context), count: times) }, axis: 0, in: context)
  }
}

extension Plan {
  /// The predictor with the controls of the request.
  func steered(_ predictor: any NoisePredictor, _ preparation: Preparation, in context: ExecutionContext) throws -> any NoisePredictor {
    try ControlledPredictor.steering(
      predictor, request.controls, rows: guidance.rows, steps: schedule.endStep - schedule.firstStep, count: count, frames: frames,
      in: context, fitted: preparation.fitted)
  }
}
