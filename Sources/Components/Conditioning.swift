import Tensor

/// What a prediction is guided by: encoded texts, and what else the predictor declares.
///
/// A predictor takes N latents with k · N rows of conditioning. Row j · N + i belongs to latent i.
///
/// A predictor of clips takes texts that change from frame to frame, too: contexts `[rows, F, L, D]` and pooled states `[rows, F, P]`.
public struct Conditioning: Sendable {
  /// Text contexts, `[rows, L, D]` each: a state for each token. Most predictors attend to one, unconditional ones to none.
  public var contexts: [Tensor]
  /// `[rows, P]`: a state for the whole text, where the encoder gives one.
  public var pooled: Tensor?
  /// Further inputs by their names in diffusers (`time_ids`), each with as many rows. A predictor declares those that it takes.
  public var inputs: [String: Tensor]
  /// The guidance scale that the caller asked for, for predictors that take it as an input.
  public var guidance: Double?
  /// What controls say of the features of this pass.
  public var residuals: FeatureResiduals?
  /// How much each context after the first counts beside the text: those are pictures, for predictors with adapters.
  public var imageScales: [Float] = []
  /// How many predictions this conditions.
  public private(set) var rows: Int

  /// A conditioning of these tensors; `check` says whether every one has this many rows.
  public init(
    rows: Int, contexts: [Tensor] = [], pooled: Tensor? = nil, inputs: [String: Tensor] = [:], guidance: Double? = nil
  ) {
    (self.rows, self.contexts, self.pooled, self.inputs, self.guidance) = (rows, contexts, pooled, inputs, guidance)
  }

  /// One text context.
  /// - Parameter hiddenStates: `[rows, L, D]`.
  public init(hiddenStates: Tensor, pooled: Tensor? = nil, inputs: [String: Tensor] = [:], guidance: Double? = nil) {
    self.init(rows: hiddenStates.shape.dimensions.first ?? 0, contexts: [hiddenStates], pooled: pooled, inputs: inputs, guidance: guidance)
  }

  /// - Throws: `ComponentError` where there are no rows, or a tensor has not as many.
  public func check() throws(ComponentError) {
    for tensor in contexts + [pooled].compactMap(\.self) + inputs.values where rows < 1 || tensor.shape.dimensions.first != rows {
      throw .unexpectedShape(component: "Conditioning", argument: "tensors", expected: "[\(max(rows, 1)), …]", found: tensor.shape)
    }
  }

  /// The same with every tensor changed, to as many rows as are named.
  private func mapped(rows: Int, _ change: (Tensor) -> Tensor) -> Conditioning {
    var result = self
    (result.contexts, result.pooled, result.inputs) = (contexts.map(change), pooled.map(change), inputs.mapValues(change))
    result.rows = rows
    return result
  }

  /// The same rows with further contexts and inputs of one row, for each of them.
  ///
  /// - Throws: `ComponentError.differentConditionings` where both have an input.
  public func adding(_ other: Conditioning) throws(ComponentError) -> Conditioning {
    if let name = other.inputs.keys.sorted().first(where: { inputs[$0] != nil }) { throw .differentConditionings("both have \(name)") }
    let other = other.repeated(rows)
    var result = self
    result.contexts += other.contexts
    result.inputs.merge(other.inputs) { first, _ in first }
    result.imageScales += other.imageScales
    return result
  }

  /// The rows of several conditionings, one after the other.
  ///
  /// - Throws: what `check` throws, and `ComponentError.differentConditionings` if one has an input that another lacks, or one of another shape. Nothing is
  ///   dropped.
  public static func concatenated(_ parts: [Conditioning]) throws(ComponentError) -> Conditioning {
    try check(parts)
    return joined(parts) { Tensor.concatenated($0, axis: 0) }
  }

  /// The same through the context's engine, so that a tape follows it.
  ///
  /// - Throws: what the other one throws, and what the engine throws.
  public static func concatenated(_ parts: [Conditioning], in context: ExecutionContext) throws -> Conditioning {
    try check(parts)
    return try joined(parts) { try Tensor.concatenated($0, axis: 0, in: context) }
  }

  private static func check(_ parts: [Conditioning]) throws(ComponentError) {
    for part in parts {
      try part.check()
      if let difference = parts[0].difference(from: part) { throw .differentConditionings(difference) }
    }
  }

  private static func joined(_ parts: [Conditioning], by join: ([Tensor]) throws -> Tensor) rethrows -> Conditioning {
    guard let first = parts.first else { return Conditioning(rows: 0) }
    func joined(_ tensor: (Conditioning) -> Tensor?) throws -> Tensor? {
      let tensors = parts.compactMap(tensor)
      return try tensors.isEmpty ? nil : join(tensors)
    }
    var result = first
    result.rows = parts.reduce(0) { $0 + $1.rows }
    result.contexts = try first.contexts.indices.compactMap { index in try joined { $0.contexts[index] } }
    result.pooled = try joined(\.pooled)
    result.inputs = try first.inputs.keys.reduce(into: [:]) { all, name in all[name] = try joined { $0.inputs[name] } }
    return result
  }

  /// Why the rows of two conditionings cannot meet; nil where they can.
  private func difference(from other: Conditioning) -> String? {
    func row(_ tensor: Tensor?) -> String { tensor.map { Shape(Array($0.shape.dimensions.dropFirst())).description } ?? "nothing" }
    var pairs = [("the pooled states", row(pooled), row(other.pooled))]
    pairs += (0..<max(contexts.count, other.contexts.count)).map { index in
      ("text context \(index)", row(contexts.dropFirst(index).first), row(other.contexts.dropFirst(index).first))
    }
    pairs += Set(inputs.keys).union(other.inputs.keys).sorted().map { ($0, row(inputs[$0]), row(other.inputs[$0])) }
    pairs.append(("the scales of pictures", "\(imageScales)", "\(other.imageScales)"))
    return pairs.first { $1 != $2 }.map { "\($0) of one is \($1), of another \($2)" }
  }

  /// Some of the rows.
  /// - Precondition: there are such rows.
  public func rows(_ range: Range<Int>) -> Conditioning { mapped(rows: range.count) { $0.rows(range) } }

  /// What lies between two conditionings of as many rows, on a straight line: this one at 0 and the other one at 1, each exactly.
  ///
  /// - Throws: what `check` throws, and `ComponentError.differentConditionings` if one has an input that the other lacks, or one of another shape.
  public func interpolated(to other: Conditioning, at position: Double) throws(ComponentError) -> Conditioning {
    try Self.check([self, other])
    guard rows == other.rows else { throw .differentConditionings("one has \(rows) rows, the other \(other.rows)") }
    func between(_ first: Tensor, _ second: Tensor) -> Tensor { Float(1 - position) * first + Float(position) * second }
    var result = self
    result.contexts = zip(contexts, other.contexts).map(between)
    result.pooled = zip([pooled].compactMap(\.self), [other.pooled].compactMap(\.self)).map(between).first
    result.inputs = inputs.reduce(into: [:]) { all, input in all[input.key] = other.inputs[input.key].map { between(input.value, $0) } }
    return result
  }

  /// Whether its text changes from frame to frame.
  public var changesByFrame: Bool { contexts.first?.shape.rank == 4 }

  /// Whether what changes from frame to frame has so many.
  public func hasFrames(_ frames: Int) -> Bool {
    contexts.allSatisfy { $0.shape.rank != 4 || $0.shape[1] == frames }
      && pooled.map { $0.shape.rank != 3 || $0.shape[1] == frames } ?? true
  }

  /// The text of a clip whose frames have these texts. Other inputs of the clip are those of the first frame.
  ///
  /// - Parameter frames: of one row each, at least one.
  /// - Throws: what `concatenated` throws.
  public static func ofFrames(_ frames: [Conditioning]) throws(ComponentError) -> Conditioning {
    let all = try concatenated(frames)
    func clip(_ tensor: Tensor) -> Tensor { tensor.reshaped(Shape([1, frames.count] + tensor.shape.dimensions.dropFirst())) }
    var result = all.rows(0..<1)
    (result.contexts, result.pooled) = (all.contexts.map(clip), all.pooled.map(clip))
    return result
  }

  /// The same text for each of F frames, in the shape of a text that changes from frame to frame.
  public func saidOfEachFrame(_ frames: Int) -> Conditioning {
    func clips(_ tensor: Tensor) -> Tensor { tensor.eachRow(frames).reshaped(Shape([rows, frames] + tensor.shape.dimensions.dropFirst())) }
    var result = self
    (result.contexts, result.pooled) = (contexts.map(clips), pooled.map(clips))
    return result
  }

  /// A row for each of F frames instead of one for each clip.
  /// - Precondition: texts that change from frame to frame have as many frames.
  public func eachFrame(_ frames: Int) -> Conditioning {
    guard changesByFrame else { return repeated(frames) }
    func flat(_ tensor: Tensor) -> Tensor { tensor.reshaped(Shape([rows * frames] + tensor.shape.dimensions.dropFirst(2))) }
    var result = mapped(rows: rows * frames) { $0 }
    result.contexts = contexts.map { $0.shape.rank == 4 ? flat($0) : $0.eachRow(frames) }
    result.pooled = pooled.map { $0.shape.rank == 3 ? flat($0) : $0.eachRow(frames) }
    result.inputs = inputs.mapValues { $0.eachRow(frames) }
    return result
  }

  /// What belongs to the frames of a window.
  /// - Throws: what the engine throws.
  public func frames(_ window: FrameWindow, in context: ExecutionContext) throws -> Conditioning {
    var result = self
    result.contexts = try contexts.map { $0.shape.rank == 4 ? try $0.frames(window, in: context) : $0 }
    result.pooled = try pooled.map { $0.shape.rank == 3 ? try $0.frames(window, in: context) : $0 }
    return result
  }

  /// Each row `times` times, one after the other, for several pictures of a prompt. Nothing is checked here.
  public func repeated(_ times: Int) -> Conditioning {
    guard times != 1 else { return self }
    return mapped(rows: rows * times) { $0.eachRow(times) }
  }
}

extension Tensor {
  /// Each row of the outermost axis `times` times, one after the other.
  fileprivate func eachRow(_ times: Int) -> Tensor { rows(at: (0..<shape[0] * times).map { $0 / times }) }
}

extension Conditioning {
  /// The conditioning of prompts by a body that takes only prompts of one profile, of which the same number of layers is skipped.
  ///
  /// - Throws: what the body and the context's engine throw, and `ComponentError` where the body's results differ in more than the length of the text.
  public static func byDepth(
    _ prompts: [Prompt], in context: ExecutionContext, _ body: (_ prompts: [Prompt], _ skippedLayers: Int) throws -> Conditioning
  ) throws -> Conditioning {
    guard let first = prompts.first else { return try body([], 0) }
    if prompts.allSatisfy({ ($0.skippedLayers, $0.profile) == (first.skippedLayers, first.profile) }) {
      return try body(prompts, first.skippedLayers)
    }
    let parts = try prompts.map { try body([$0], $0.skippedLayers) }
    return try .concatenated(Conditioning.ofOneLength(parts, profile: first.profile), in: context)
  }
}

/// Turns prompts into what guides the prediction.
public protocol TextConditioner: Sendable {
  /// - Returns: a row for each prompt.
  /// - Throws: `CancellationError`, and what the conditioner documents.
  func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning

  /// Those of `condition`'s inputs that follow from the sizes of the request alone, whatever its texts; there are none without an implementation.
  func sizeInputs(_ request: ConditioningRequest) throws -> [String: Tensor]

  /// Whether it reads the second text of a prompt; it does not without an implementation.
  var readsSecondTexts: Bool { get }

  /// What `condition` leaves out of a prompt; nil where it reads all, and without an implementation.
  func truncation(of prompt: Prompt) -> PromptTruncation?

  /// Whether it reads the marks in prompts as their profiles say. Without an implementation it knows plain texts alone.
  var readsMarks: Bool { get }

  /// Tokens of the text context that a prompt gets; nil where it is the same for all, as without an implementation.
  func length(of prompt: Prompt) -> Int?
}

extension TextConditioner {
  public func sizeInputs(_ request: ConditioningRequest) -> [String: Tensor] { [:] }
  public var readsSecondTexts: Bool { false }
  public func truncation(of prompt: Prompt) -> PromptTruncation? { nil }
  public var readsMarks: Bool { false }
  public func length(of prompt: Prompt) -> Int? { nil }
}

/// What a conditioner is told of the pictures to be made.
public struct ConditioningRequest: Sendable {
  /// A row of conditioning is made of each.
  public var prompts: [Prompt]
  /// Of the pictures, for models that were trained with it as an input.
  public var size: PixelSize
  /// Whether these are prompts to stay away from.
  public var isNegative: Bool
  /// Whether nobody gave these prompts. They are empty then, which is not the same to all models.
  public var isAbsent: Bool
  /// What a model of the kind of SDXL is told of sizes.
  public var sizes: SizeConditioning
  /// The same for negative prompts; nil: what the model's pipeline in diffusers makes of `sizes`.
  public var negativeSizes: SizeConditioning?
  /// Whether the generation starts from a picture. diffusers' pipelines for that have other defaults for negative prompts.
  public var startsFromPicture: Bool
  /// How closely to follow the prompts, where a request says it.
  public var guidance: Double?
  /// Tokens of the longest text in the generation. compel puts empty texts behind shorter ones, up to it; nil and in other profiles: each has its own.
  public var length: Int?

  /// - Parameters:
  ///   - prompts: a row of conditioning is made of each.
  ///   - size: of the pictures.
  ///   - isNegative: whether these are prompts to stay away from.
  ///   - isAbsent: whether nobody gave these prompts.
  ///   - sizes: what a model of the kind of SDXL is told.
  ///   - negativeSizes: the same for negative prompts.
  ///   - startsFromPicture: whether the generation starts from a picture.
  public init(
    _ prompts: [Prompt], size: PixelSize, isNegative: Bool = false, isAbsent: Bool = false, sizes: SizeConditioning = SizeConditioning(),
    negativeSizes: SizeConditioning? = nil, startsFromPicture: Bool = false
  ) {
    (self.prompts, self.size, self.isNegative, self.isAbsent) = (prompts, size, isNegative, isAbsent)
    (self.sizes, self.negativeSizes, self.startsFromPicture) = (sizes, negativeSizes, startsFromPicture)
  }
}
