import LatentDiffusionComponents

/// How much a generation has to do at once: what its memory follows from.
public struct GenerationExtent: Sendable, Equatable {
  /// Of the pictures in the model.
  public var size: PixelSize
  /// Pictures of the request, all in the same passes.
  public var images: Int
  /// Rows of a pass for each picture: 2 with guidance, 1 without, 3 for edits, and one more for each further part of a prompt.
  public var rowsPerImage: Int
  /// Rows of other passes for each picture, of which keys, values and deep features stay in memory meanwhile: those with perturbed attention, of
  /// degraded latents, with texts of other lengths, or of other steps.
  public var restingRows = 0
  /// Texts for each picture, beside one of each row, that wait for their steps, since a prompt changes from step to step.
  public var waitingTexts = 0
  /// Deep features that passes keep; nil: none.
  public var stepCaching: StepCaching?
  /// Whether all rows of a picture see the same latents, so that what comes before the text is computed once; not for edits.
  public var sharesLatents: Bool
  /// Whether a picture is encoded first.
  public var encodesPicture: Bool
  /// Frames of each clip; nil for pictures.
  public var frames: Int?
  /// In which clips are drawn; nil: in one pass, in which every frame sees all.
  public var frameWindows: FrameWindows?
  /// Of those, the frames that are decoded together where they see one another; nil: all.
  public var framesDecodedTogether: Int?
  /// Tokens of the longest text; nil: as many as the text encoder reads at once.
  public var contextLength: Int?
  /// The names of the networks that steer the generation (`ControlModel.name`).
  public var controls: [String] = []

  /// - Parameters:
  ///   - size: of the pictures in the model.
  ///   - images: in the same passes.
  ///   - rowsPerImage: 2 with guidance, 1 without.
  ///   - sharesLatents: whether all rows of a picture see the same latents.
  ///   - encodesPicture: whether the generation starts from a picture.
  public init(size: PixelSize, images: Int = 1, rowsPerImage: Int = 2, sharesLatents: Bool = true, encodesPicture: Bool = false) {
    (self.size, self.images, self.rowsPerImage) = (size, images, rowsPerImage)
    (self.sharesLatents, self.encodesPicture) = (sharesLatents, encodesPicture)
  }
}

extension Plan {
  /// A part of a text: its tokens, where they are not as many for all, and what it says.
  private struct Part {
    let length: Int?
    let texts: [Timeline<Prompt>]
  }

  private func parts(of text: GuidanceRow.Text) throws -> [Part] {
    guard let scripts = scripts[text] else {
      return [Part(length: (text == .prompt ? request.conditioning : request.negativeConditioning)?.length, texts: [])]
    }
    return try (0..<(scripts.map(\.parts.count).max() ?? 1)).map { number in
      let texts = scripts.map { $0.part(number).texts }
      let own = texts.compactMap { $0.values.compactMap { pipeline.conditioner.length(of: $0) }.max() }
      guard !own.isEmpty else { return Part(length: nil, texts: texts) }
      let length = try max(compelLength ?? 0, Conditioning.commonLength(own, profile: texts[0].values[0].profile))
      return Part(length: length, texts: texts)
    }
  }

  /// How much it has to do at once.
  func extent() throws -> GenerationExtent {
    var parts: [GuidanceRow.Text: [Part]] = [:]
    for row in guidance.rows where parts[row.text] == nil { parts[row.text] = try self.parts(of: row.text) }
    // As `GuidedPasses` puts rows together: each stage has its own passes, which all remember something.
    let steps = schedule.endStep - schedule.firstStep
    var passes: [[Part]] = []
    for rows in Set((0..<steps).map { guidance.rows(at: $0, of: steps) }) {
      let own = rows.flatMap { row in
        (parts[row.text] ?? []).map { (kind: GuidedPasses.Kind(row, length: $0.length), part: $0) }
      }
      passes += Dictionary(grouping: own, by: \.kind).values.map { $0.map(\.part) }
    }
    let most = passes.map(\.count).max() ?? 1
    var extent = GenerationExtent(
      size: size, images: count, rowsPerImage: most, sharesLatents: guidance.rows.allSatisfy(\.seesPicture),
      encodesPicture: request.task.source(scale: pipeline.autoencoder.spatialScale).isPixels)
    extent.restingRows = max(0, passes.reduce(0) { $0 + $1.count } - most)
    extent.waitingTexts = passes.reduce(0) { sum, rows in
      let said = rows.flatMap(\.texts)
      return sum + (said.isEmpty ? 0 : (Timeline.joined(said) { $0 }.values.count - 1) * rows.count)
    }
    extent.stepCaching = request.stepCaching
    extent.controls = request.controls.map(\.model.name)
    let lengths = parts.values.flatMap { $0.map(\.length) } + request.laterPrompts.map { pipeline.conditioner.length(of: $0.prompt) }
    extent.contextLength = lengths.compactMap(\.self).max()
    (extent.frames, extent.frameWindows) = (frames, request.frameWindows)
    extent.framesDecodedTogether = request.task.framesDecodedTogether
    return extent
  }
}
