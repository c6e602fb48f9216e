import LatentDiffusionComponents
import Tensor

/// The text towers of SDXL: their states before the last layer side by side, the projected end of the last tower's text, and the numbers that
/// the model is told of sizes. Source: `encode_prompt` and `_get_add_time_ids` of diffusers' `StableDiffusionXLPipeline` and
/// `StableDiffusionXLImg2ImgPipeline`.
public struct XLTextConditioner: TextConditioner {
  /// A tower with its tokenizer.
  public struct Tower: Sendable {
    /// Nil: every text has all tokens that the tower has places for, whatever the prompts, as a plan counts.
    public let tokenizer: CLIPTokenizer?
    /// Turns tokens into states.
    public let model: CLIPTextModel

    /// - Throws: `CLIPTextError` if the two do not belong together.
    public init(tokenizer: CLIPTokenizer?, model: CLIPTextModel) throws {
      if let tokenizer { _ = try CLIPTextConditioner(tokenizer: tokenizer, model: model) }
      (self.tokenizer, self.model) = (tokenizer, model)
    }

    fileprivate var length: Int { tokenizer?.maximumLength ?? model.configuration.positions }

    fileprivate func ids(_ text: String) -> [Int] { tokenizer?.encodePadded(text) ?? Array(repeating: 0, count: length) }
  }

  /// One, or two. The last one has a projection.
  public let towers: [Tower]
  /// Whether a negative prompt that nobody gave is zeros instead of an empty text (`force_zeros_for_empty_prompt`).
  public let zerosForAbsent: Bool
  /// Whether the model is told an aesthetic score instead of the size that the original became (`requires_aesthetics_score`).
  public let toldAestheticScore: Bool
  private let pooledLength: Int

  /// - Throws: `CLIPTextError.wrongLength` if towers take texts of different lengths; `ComponentError` if there is none, or the last one has no projection.
  public init(_ towers: [Tower], zerosForAbsent: Bool, toldAestheticScore: Bool) throws {
    guard let last = towers.last, let length = last.model.configuration.projectedFeatures else {
      throw ComponentError.missingInput(component: "The text conditioner of SDXL", argument: "a text encoder with a projection")
    }
    if let other = towers.first(where: { $0.length != last.length }) {
      throw CLIPTextError.wrongLength(found: other.length, maximum: last.length)
    }
    (self.towers, self.zerosForAbsent, self.toldAestheticScore, pooledLength) = (towers, zerosForAbsent, toldAestheticScore, length)
  }

  public var readsSecondTexts: Bool { towers.count > 1 }

  public func truncation(of prompt: Prompt) -> PromptTruncation? {
    for (tower, text) in zip(towers, texts(prompt)) {
      if let cut = tower.tokenizer?.truncation(of: prompt, text) { return cut }
    }
    // The pooled state of compel's prompts is that of the text with its marks.
    guard prompt.profile == .compel, let text = texts(prompt).prefix(towers.count).last else { return nil }
    return towers.last?.tokenizer?.plainTruncation(of: prompt, text)
  }

  public var readsMarks: Bool { true }

  public func length(of prompt: Prompt) -> Int? { towers.last.map { chunks(prompt) * $0.length } }

  /// As many as the text has that has most.
  private func chunks(_ prompt: Prompt) -> Int {
    zip(towers, texts(prompt)).map { (try? $0.tokenizer?.tokens(of: $1, profile: prompt.profile))?.places.count ?? 1 }.max() ?? 1
  }

  /// A text for each tower.
  private func texts(_ prompt: Prompt) -> [String] {
    let second = prompt.second ?? ""
    return [prompt.text, second.isEmpty ? prompt.text : second]
  }

  /// - Throws: `CLIPTextError`, `CancellationError`; `ComponentError.unsupported` for a score that the model is not told, and for a target size that it is not.
  public func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    let sizeInputs = try sizeInputs(request), least = request.places(of: towers.last?.length ?? 1, by: self)
    var result =
      zerosForAbsent && isAbsent(request)
      ? zeros(request.prompts.count)
      : try .byDepth(request.prompts, in: context) { prompts, skippedLayers in
        if let profile = prompts.first?.profile, profile != .diffusers {
          return try weighted(prompts, profile, skippedLayers, atLeast: least, in: context)
        }
        let outputs = try towers.enumerated().map { index, tower in
          // Layers are counted from the one before the last.
          try tower.model(prompts.map { tower.ids(texts($0)[index]) }, skippedLayers: skippedLayers + 1, in: context)
        }
        let states = try Tensor.concatenated(outputs.map(\.unnormalized), axis: -1, in: context)
        return Conditioning(hiddenStates: states, pooled: outputs.last?.textEmbeds)
      }
    result.inputs = sizeInputs
    return result
  }

  /// The webui takes any empty negative prompt for none; ComfyUI reads it.
  private func isAbsent(_ request: ConditioningRequest) -> Bool {
    switch request.prompts.first?.profile ?? .diffusers {
    case .diffusers, .compel: request.isAbsent
    case .webui: request.isNegative && request.prompts.allSatisfy { $0.text.isEmpty && ($0.second ?? "").isEmpty }
    case .comfy: false
    }
  }

  /// Prompts in chunks, of which both texts have as many.
  private func weighted(
    _ prompts: [Prompt], _ profile: PromptProfile, _ skippedLayers: Int, atLeast least: Int, in context: ExecutionContext
  ) throws -> Conditioning {
    let parts = try towers.enumerated().map { index, tower in
      guard let tokenizer = tower.tokenizer else {
        throw ComponentError.missingInput(component: "The text conditioner", argument: "a tokenizer")
      }
      return try tower.model.weighted(
        prompts.map { try tokenizer.tokens(of: texts($0)[index], profile: profile) },
        chunks: prompts.map { max(profile == .compel ? least : 1, chunks($0)) },
        profile: profile, by: tokenizer, skippedLayers: skippedLayers + 1, states: \.unnormalized, in: context)
    }
    let states = try Tensor.concatenated(parts.flatMap(\.contexts), axis: -1, in: context)
    return Conditioning(hiddenStates: states, pooled: parts.last?.pooled)
  }

  /// `time_ids`, `[rows, 6]` or `[rows, 5]`.
  /// - Throws: `ComponentError.unsupported` for a score that the model is not told, and for a target size that it is not.
  public func sizeInputs(_ request: ConditioningRequest) throws -> [String: Tensor] {
    for sizes in [request.sizes, request.negativeSizes].compactMap(\.self) {
      if toldAestheticScore ? sizes.target != nil : sizes.aestheticScore != nil {
        throw ComponentError.unsupported(
          component: "This model", option: "input for " + (toldAestheticScore ? "a target size" : "an aesthetic score"))
      }
    }
    let numbers = numbers(request), rows = request.prompts.count
    return ["time_ids": Tensor(Array(repeating: numbers, count: rows).flatMap(\.self), shape: [rows, numbers.count])]
  }

  private func zeros(_ rows: Int) -> Conditioning {
    let features = towers.reduce(0) { $0 + $1.model.configuration.features }
    return Conditioning(
      hiddenStates: Tensor(shape: [rows, towers.last?.length ?? 0, features]), pooled: Tensor(shape: [rows, pooledLength]))
  }

  /// Without sizes of their own, negative prompts are told those of the prompts; models that are told a score get the usual score and no crop. Sizes without a
  /// crop take the prompts' crop in SDXL's pipelines that start from a picture, and none in the others.
  private func sizesToAvoid(_ request: ConditioningRequest) -> SizeConditioning {
    var result = request.negativeSizes ?? request.sizes
    result.original = result.original ?? request.sizes.original
    result.target = result.target ?? request.sizes.target
    if request.negativeSizes == nil {
      result.aestheticScore = nil
      if toldAestheticScore { result.crop = nil }
    } else if request.startsFromPicture, !toldAestheticScore {
      result.crop = result.crop ?? request.sizes.crop
    }
    return result
  }

  /// Heights before widths.
  private func numbers(_ request: ConditioningRequest) -> [Float] {
    let sizes = request.isNegative ? sizesToAvoid(request) : request.sizes
    let original = sizes.original ?? request.size
    let target = sizes.target ?? request.size
    let before = [original.height, original.width, sizes.crop?.top ?? 0, sizes.crop?.left ?? 0].map(Float.init)
    return before
      + (toldAestheticScore
        ? [Float(sizes.aestheticScore ?? (request.isNegative ? 2.5 : 6))] : [Float(target.height), Float(target.width)])
  }
}
