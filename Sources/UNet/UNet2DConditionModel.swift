import LatentDiffusionComponents
import Foundation
import LatentDiffusionLayers
import Tensor
import LatentDiffusionWeights

/// The U-Net of Stable Diffusion. It predicts the noise in latents, guided by text. Source: Rombach et al. 2022, diffusers' `UNet2DConditionModel`.
///
/// With motion modules (`UNetMotionModel`), or with layers for frames in its blocks (`UNet3DConditionModel`), it draws clips.
public struct UNet2DConditionModel: NoisePredictor, ModelComponent {
  /// The checked configuration.
  public let configuration: UNet2DConfiguration
  private var wayDown: UNet2DWayDown
  private var upBlocks: [UpBlock]
  private let convNormOut: GroupNorm
  private let convOut: Convolution2D
  private var adapters: [[PictureAttention]] = []
  /// Motion modules that were added; nil: none.
  public private(set) var motion: MotionConfiguration?
  /// In which the frames of a clip see one another; nil: all see all.
  private var windows: FrameWindows?
  /// Whether passes leave in their memory what attention the pixels of the middle get.
  private var tellsAttention = false

  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ configuration: UNet2DConfiguration, weights: WeightScope) throws {
    self.configuration = configuration
    let levels = configuration.levels
    wayDown = try UNet2DWayDown(configuration, weights: weights)
    upBlocks = try levels.indices.map {
      try UpBlock(index: $0, configuration: configuration, weights: weights["up_blocks"][$0])
    }
    convNormOut = try GroupNorm(
      groups: configuration.groups, channels: levels[0].channels, epsilon: configuration.epsilon, weights: weights["conv_norm_out"])
    convOut = try Convolution2D(
      levels[0].channels, configuration.outChannels, kernel: configuration.outputKernel, padding: (configuration.outputKernel - 1) / 2,
      weights: weights["conv_out"])
  }

  private var embedding: UNet2DEmbedding { wayDown.embedding }
  private var midBlock: MidBlock? { wayDown.middle }

  /// Those for pictures; `UNetMotionModel` is such a network with motion modules among its weights.
  public static let pictureClassNames = ["UNet2DConditionModel", "UNetMotionModel"]
  /// Those for clips.
  public static let clipClassNames = [UNet2DConfiguration.clipClassName]
  public static var classNames: [String] { pictureClassNames + clipClassNames }

  public static var quantization: QuantizationRule {
    // diffusers' names, then the original code's.
    .matrices(except: [
      "conv_in.", "conv_out.", "time_embedding.", "class_embedding.", "add_embedding.", "input_blocks.0.0.", "diffusion_model.out.",
      "time_embed.",
      "label_emb.", "pos_embed.",
    ])
  }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `ComponentError`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    let configuration = try UNet2DConfiguration(json: json)
    let plain = try UNet2DConditionModel(configuration, weights: weights)
    guard let motion = try MotionConfiguration(of: configuration, json: json) else {
      self = plain
      return
    }
    self = try plain.adding(MotionAdapter(motion, weights: weights))
  }

  public var inputChannels: Int { configuration.inChannels }
  public var outputChannels: Int { configuration.outChannels }
  public var sampleSize: Int? { configuration.sampleSize }
  public var sampleSides: (height: Int, width: Int)? { configuration.sampleSides }
  public var embedsGuidance: Bool { configuration.conditionChannels != nil }
  public var clip: ClipLength? {
    configuration.clips.map { ClipLength(usual: $0.usualFrames, most: .max, stepsByFrame: true) }
      ?? motion.map { ClipLength(usual: min(16, $0.frames), most: $0.frames) }
      ?? configuration.frames.map { ClipLength(usual: $0, most: MotionConfiguration.mostFrames) }
  }

  /// `timestep_cond`, which replaces the embedding of the guidance; `class_labels` and `time_ids`, where the configuration asks for them.
  public var declaredInputs: [PredictorInput] { embedding.declaredInputs }

  /// - Throws: `ComponentError` if shapes do not fit, `CancellationError`.
  public func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    var memory = PassMemory()
    return try predict(latents, timestep: timestep, conditioning: conditioning, memory: &memory, in: context)
  }

  /// The same prediction, with the short cuts that the memory holds.
  ///
  /// A layer of the way down has the number of the skip that it leaves, and a layer of the way up that of the skip that it takes. Deep features are the input
  /// of the layer that takes the branch's skip.
  /// - Throws: `ComponentError` if shapes do not fit, `CancellationError`.
  public func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> Tensor {
    let deepFeatures = memory.reusesFeatures ? DeepFeatures.at(timestep, in: memory) : nil
    let frames = clip != nil && latents.shape.rank == 5 ? latents.shape[1] : 1
    let told = try checked(conditioning, latents, frames: frames)
    try check(conditioning.residuals, rows: conditioning.rows * frames, skips: deepFeatures.flatMap { _ in memory.computedSkips })
    let text = try read(told, frames: conditioning.changesByFrame ? 1 : frames, memory: &memory, in: context)
    let whole = Inputs(
      latents: latents, timestep: timestep, conditioning: told, text: text, frames: frames, deepFeatures: deepFeatures,
      merging: memory.shortcuts.tokenMerging.map { TokenMerging(ratio: $0, seed: memory.passSeed) },
      branch: memory.shortcuts.stepCaching?.branch)
    let outputs =
      if isParted(whole, in: context) {
        try context.apart(context.threads) { try pass(whole.part($0, of: context.threads, in: $1), in: $1) }
      } else if goesInTurns(whole, in: context) {
        try (0..<whole.rows).map { try pass(whole.part($0, of: whole.rows, in: context), in: context) }
      } else {
        [try pass(whole, in: context)]
      }
    let features = outputs.compactMap(\.deepFeatures)
    let attention = outputs.compactMap(\.attention)
    memory.attention = attention.isEmpty ? nil : try joined(attention, in: context)
    if deepFeatures == nil { DeepFeatures.keep(features.isEmpty ? nil : try joined(features, in: context), at: timestep, in: &memory) }
    memory.endPass()
    return try joined(outputs.map(\.prediction), in: context)
  }

  private func joined(_ tensors: [Tensor], in context: ExecutionContext) throws -> Tensor {
    tensors.count == 1 ? tensors[0] : try Tensor.concatenated(tensors, axis: 0, in: context)
  }

  /// Whether each thread computes a whole pass of its own part of the rows. In a small net, threads that share every layer wait for one another and for data
  /// in each other's caches. That takes longer than reading all weights in each thread, because the weights come from the caches, too. An observer sees all
  /// rows of a pass.
  private func isParted(_ inputs: Inputs, in context: ExecutionContext) -> Bool {
    let rows = inputs.rows, features = inputs.latents.count / inputs.latents.shape[0] / inputChannels * configuration.levels[0].channels
    return context.threads > 1 && rows.isMultiple(of: context.threads) && context.mayRearrange && inputs.deepFeatures == nil
      && features <= 1 << 16 && configuration.levels.allSatisfy { $0.channels <= 256 }
  }

  /// Whether clips are computed one after the other: half the memory with guidance. Their frames keep the products busy, so that only the weights are read
  /// once for each clip. In clips whose features are few, those are what takes long.
  private func goesInTurns(_ inputs: Inputs, in context: ExecutionContext) -> Bool {
    let pixels = inputs.pictures.shape[1] * inputs.pictures.shape[2]
    let features = inputs.featureRows * pixels * configuration.levels[0].channels
    // Deep features of another shape are an error of the whole pass.
    guard inputs.deepFeatures.map({ $0.shape.dimensions.first == inputs.featureRows }) ?? true else { return false }
    return inputs.frames > 1 && context.mayRearrange && features > 1 << 24
  }

  /// The inputs of a pass.
  private struct Inputs: Sendable {
    /// `[N, h, w, C]`, or `[N, F, h, w, C]` of clips.
    var latents: Tensor
    let timestep: Float
    var conditioning: Conditioning
    /// One for each clip, or one for each frame.
    var text: TextStates
    /// Of each clip; 1 for pictures.
    let frames: Int
    var deepFeatures: Tensor?
    let merging: TokenMerging?
    let branch: Int?

    /// The rows of the prediction.
    var rows: Int { text.rows / frames }
    /// The rows of features: of each frame.
    var featureRows: Int { text.rows }
    /// Frames as pictures, `[N · F, h, w, C]`: the same bytes.
    var pictures: Tensor { latents.reshaped(Shape([latents.shape[0] * frames] + latents.shape.dimensions.suffix(3))) }

    /// The same inputs for a part of the rows. Each row has its own latents.
    func part(_ index: Int, of count: Int, in context: ExecutionContext) throws -> Inputs {
      let rows = rows / count * index..<rows / count * (index + 1)
      var part = self
      part.latents = try latents.repeated(self.rows / latents.shape[0], in: context).rows(rows, in: context)
      func each(_ count: Int) -> Range<Int> { rows.lowerBound * count..<rows.upperBound * count }
      let told = each(frames / text.frames)
      part.conditioning.inputs = try conditioning.inputs.mapValues { try $0.rows(told, in: context) }
      part.conditioning.pooled = try conditioning.pooled.map { try $0.rows(told, in: context) }
      part.conditioning.residuals = try conditioning.residuals?.map { try $0.rows(each(frames), in: context) }
      part.deepFeatures = try deepFeatures.map { try $0.rows(each(frames), in: context) }
      part.text = try text.rows(told, in: context)
      return part
    }
  }

  /// The results of a pass.
  private struct Outputs: Sendable {
    let prediction: Tensor
    /// Nil unless the next pass may reuse them.
    let deepFeatures: Tensor?
    /// Of the middle; nil where nobody asks.
    let attention: Tensor?
  }

  private func pass(_ inputs: Inputs, in context: ExecutionContext) throws -> Outputs {
    let (latents, branch, rows) = (inputs.pictures, inputs.branch, inputs.featureRows)
    let time = try embedding(inputs.timestep, conditioning: inputs.conditioning, rows: rows / inputs.text.frames, in: context)
    let pass = try UNetPass(
      time: time, text: inputs.text, merging: inputs.merging, frames: inputs.frames,
      windows: windows?.windows(of: inputs.frames, pass: 0) ?? [], context: context)
    let distinct = try sharesRows(inputs, in: context) ? latents : latents.repeated(rows / latents.shape[0], in: context)
    var x = try wayDown.entered(configuration.centersInput ? distinct.scaled(by: 2, plus: -1, in: context) : distinct, pass)
    var skips = [x]
    let residuals = inputs.conditioning.residuals ?? FeatureResiduals()
    var attention: Tensor?
    x = try wayDown.descend(
      x, skips: &skips, upTo: inputs.deepFeatures == nil ? .max : (branch ?? 0) + 1, adding: residuals.levels, pass)
    for (index, residual) in residuals.skips.enumerated() {
      skips[index] = try skips[index].adding(control: residual, in: context)
    }
    if let deepFeatures = inputs.deepFeatures {
      try check(deepFeatures, meeting: x, batch: rows, branch: branch ?? 0)
      x = deepFeatures
    } else {
      if let midBlock { x = try midBlock(x, pass, telling: tellsAttention ? { attention = $0 } : nil) }
      for residual in residuals.levels.dropFirst(configuration.levels.count) + [residuals.middle].compactMap(\.self) {
        x = try x.adding(control: residual, in: context)
      }
      if let branch { x = try ascend(x, skips: &skips, leaving: branch + 1, pass) }
    }
    // If no layer has attended to the text yet, the rows are still shared.
    x = try x.repeated(rows / x.shape[0], in: context)
    let kept = branch == nil ? nil : x
    x = try ascend(x, skips: &skips, leaving: 0, pass)
    let prediction = try convOut(convNormOut(x, activation: .silu, in: context), in: context)
    let shape = Shape([inputs.rows] + inputs.latents.shape.dimensions.dropFirst().dropLast() + [outputChannels])
    return Outputs(
      prediction: prediction.reshaped(shape), deepFeatures: kept,
      attention: try attention.map { try $0.repeated(rows / $0.shape[0], in: context) })
  }

  /// - Throws: `ComponentError` if there is no such branch.
  public func check(_ shortcuts: Shortcuts) throws {
    // The deepest layers on the way up take their own skips. Only the middle lies below them and can be left out.
    let branches = 0..<configuration.levels.reduce(0) { $0 + $1.resnets + 1 }
    if let caching = shortcuts.stepCaching, !branches.contains(caching.branch) {
      throw ComponentError.outOfRange(
        component: "The U-Net", option: "a branch for step caching", value: "\(caching.branch)", allowed: "from 0 to \(branches.count - 1)")
    }
  }

  private var transformers: (down: [Transformer2DModel], middle: [Transformer2DModel], up: [Transformer2DModel]) {
    (wayDown.blocks.flatMap(\.attentions), midBlock?.attentions ?? [], upBlocks.flatMap(\.attentions))
  }

  /// What an IP-Adapter adds to each layer that attends to the text. Files number those 1, 3, 5, … on the way down, on the way up, then in the middle, as
  /// diffusers' `attn_processors` lists them.
  /// - Throws: `WeightErrors`, `CancellationError`.
  public func pictureAttentions(weights: WeightScope) throws -> [PictureAttention] {
    let (down, middle, up) = transformers
    return try (down + up + middle).flatMap(\.textAttentions).enumerated().map { index, attention in
      try attention.pictureAttention(configuration.contextChannels, weights: weights[2 * index + 1])
    }
  }

  /// The same network with an IP-Adapter. It attends to one more context of a conditioning that has pictures.
  public func adding(_ adapter: [PictureAttention]) -> UNet2DConditionModel {
    var result = self
    result.adapters.append(adapter)
    return result
  }

  /// The same network with motion modules, whether it had some or not. It draws clips, of latents `[N, F, h, w, C]`.
  /// - Throws: `ComponentError.doesNotFit` where they were made for another network.
  public func adding(_ adapter: MotionAdapter) throws(ComponentError) -> UNet2DConditionModel {
    try adapter.configuration.check(configuration)
    var result = self
    result.motion = adapter.configuration
    for (index, modules) in adapter.down.enumerated() { result.wayDown.blocks[index].stack.frameAttentions = modules }
    for (index, modules) in adapter.up.enumerated() { result.upBlocks[index].stack.frameAttentions = modules }
    result.wayDown.middle?.frameAttentions = [adapter.middle].compactMap(\.self)
    return result
  }

  /// - Throws: `ComponentError` for windows of a network without motion modules or of more frames than those have positions for, for perturbed attention and
  ///   maps of attention of clips, and for layers that are not there.
  public func changed(by change: PredictorChange) throws -> any NoisePredictor {
    var result = self
    switch change {
    case .windows(let windows):
      guard let motion else { throw ComponentError.unsupported(component: "A U-Net for pictures", option: "windows of frames") }
      try motion.check(frames: windows.length)
      result.windows = windows
    case .perturbedAttention(let layers):
      guard clip == nil else { throw ComponentError.unsupported(component: "A U-Net for clips", option: change.option) }
      try layers.forEach { try result.perturb($0) }
    case .toldAttention:
      guard clip == nil else { throw ComponentError.unsupported(component: "A U-Net for clips", option: change.option) }
      guard midBlock?.attentions.first?.hasSelfAttention ?? false else {
        throw ComponentError.unsupported(component: "A U-Net without self-attention in its middle", option: change.option)
      }
      result.tellsAttention = true
    case .freeU(let factors):
      for (index, factors) in [(factors.b1, factors.s1), (factors.b2, factors.s2)].enumerated() where index < upBlocks.count {
        result.upBlocks[index].entering = SkipScaling(backbone: factors.0, skip: factors.1)
      }
    }
    return result
  }

  /// Lets the tokens of some layers see themselves alone. Source: `_set_pag_attn_processor` of diffusers' `PAGMixin`.
  /// - Parameter expression: looked for in the names of layers, `mid_block.attentions.0.transformer_blocks.0.attn1`.
  private mutating func perturb(_ expression: String) throws {
    // What can branch may take for ever.
    let known =
      expression.utf8.count <= 200 && expression.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "_.\\^$[]-".contains($0)) }
    guard known, let pattern = try? Regex(expression) else {
      throw ComponentError.outOfRange(
        component: "Perturbed attention", option: "as a layer,", value: String(expression.prefix(200)),
        allowed: "a regular expression of letters, digits and _ . \\ ^ $ [ ] -, such as mid or up_blocks.0")
    }
    var found = 0
    func isMeant(_ name: String) -> Bool {
      guard name.contains(pattern) else { return false }
      found += 1
      return true
    }
    for index in wayDown.blocks.indices { wayDown.blocks[index].stack.perturb(where: isMeant) }
    wayDown.middle?.perturb(where: isMeant)
    for index in upBlocks.indices { upBlocks[index].stack.perturb(where: isMeant) }
    guard found > 0 else {
      throw ComponentError.outOfRange(
        component: "Perturbed attention", option: "as a layer,", value: expression,
        allowed: "what is found in the name of a layer with self-attention, such as mid or up_blocks.1.attentions.0")
    }
  }

  /// A text with the projections that depend on it and on pictures alone. The first pass of a generation keeps them for the others.
  private func read(
    _ conditioning: Conditioning, frames: Int, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> TextStates {
    let scales = conditioning.imageScales + Array(repeating: 1, count: max(0, adapters.count - conditioning.imageScales.count))
    let pictures = zip(conditioning.contexts.dropFirst(configuration.attendsToText ? 1 : 0), scales).map { (tokens: $0, scale: $1) }
    // Where nothing attends to a text, there still are its rows.
    let states = configuration.attendsToText ? conditioning.contexts[0] : Tensor(shape: [conditioning.rows, 1, 1])
    var text = TextStates(states, frames: frames, beside: pictures)
    if let known = memory.cache as? TextStates, known.isOfTheSame(as: text) { return known }
    let (down, middle, up) = transformers
    for attention in down + middle + up { try attention.read(&text, in: context) }
    // What does not count is left out, so that the result is that of the text alone.
    for index in pictures.indices where pictures[index].scale != 0 {
      for layer in adapters[index] { try layer.read(index, of: &text, in: context) }
    }
    memory.cache = text
    return text
  }

  private func ascend(_ x: Tensor, skips: inout [Tensor], leaving rest: Int, _ pass: UNetPass) throws -> Tensor {
    var x = x
    for block in upBlocks where skips.count > max(rest, block.skipsLeft) { x = try block(x, skips: &skips, leaving: rest, pass) }
    return x
  }

  /// The conditioning with a row for each text. The first context is the text; one for each adapter follows, or none.
  private func checked(_ conditioning: Conditioning, _ latents: Tensor, frames: Int) throws -> Conditioning {
    let clip = clip, wanted = "[N, \(clip == nil ? "" : "F, ")h, w, \(inputChannels)]"
    guard latents.shape.rank == (clip == nil ? 4 : 5), latents.shape.columns == inputChannels, latents.count > 0 else {
      throw ComponentError.unexpectedShape(component: "The U-Net", argument: "latents", expected: wanted, found: latents.shape)
    }
    if let clip, frames > clip.most, windows == nil {
      throw ComponentError.outOfRange(
        component: motion == nil ? "The U-Net" : "The motion module", option: "a number of frames", value: "\(frames)",
        allowed: "from 1 to \(clip.most)")
    }
    try check(conditioning, latents: latents.shape[0])
    var conditioning = conditioning
    if conditioning.changesByFrame {
      // A network that itself sees frames attends to the clip's text between them.
      guard clip != nil, configuration.frames == nil, conditioning.hasFrames(frames) else {
        throw ComponentError.unexpectedShape(
          component: "The U-Net", argument: "hidden states",
          expected: "[\(conditioning.rows), \(clip == nil ? "" : "\(frames), ")L, \(configuration.contextChannels)]",
          found: conditioning.contexts[0].shape)
      }
      conditioning = conditioning.eachFrame(frames)
    }
    try embedding.check(conditioning)
    let found = conditioning.contexts.count, channels = configuration.contextChannels
    let own = configuration.attendsToText ? 1 : 0
    guard [own, own + adapters.count].contains(found) else {
      throw ComponentError.unexpectedContexts(component: "The U-Net", expected: own + adapters.count, found: found)
    }
    for context in conditioning.contexts.map(\.shape) {
      guard context.rank == 3, context[0] == conditioning.rows, context[2] == channels, context[1] > 0 else {
        throw ComponentError.unexpectedShape(
          component: "The U-Net", argument: "hidden states", expected: "[\(conditioning.rows), L, \(channels)]", found: context)
      }
    }
    return conditioning
  }

  /// Each residual is for all rows, and there is one for each skip that the pass computes, or none.
  /// - Parameter computed: the number of these skips where the pass ends its way down at deep features; nil: all.
  private func check(_ residuals: FeatureResiduals?, rows: Int, skips computed: Int?) throws {
    guard let residuals else { return }
    let skips = computed ?? configuration.skipChannels.count, levels = configuration.levels.count
    guard [0, skips].contains(residuals.skips.count), computed == nil || residuals.middle == nil, residuals.levels.count <= levels + 1
    else {
      throw ComponentError.doesNotFit(
        component: "A control",
        reason: "it has \(residuals.skips.count) residuals for \(skips) skips and \(residuals.levels.count) for \(levels) levels")
    }
    for tensor in residuals.skips + [residuals.middle].compactMap(\.self) + residuals.levels where tensor.shape.dimensions.first != rows {
      throw ComponentError.unexpectedShape(
        component: "The U-Net", argument: "residuals of a control", expected: "[\(rows), h, w, C]", found: tensor.shape)
    }
  }

  /// Deep features must come from a pass of the same shape.
  private func check(_ deepFeatures: Tensor, meeting skip: Tensor, batch: Int, branch: Int) throws {
    let block = upBlocks.first { $0.skipsLeft <= branch }
    let expected = Shape([batch] + skip.shape.dimensions[1..<3] + [block?.enteringChannels(skips: branch + 1) ?? 0])
    guard deepFeatures.shape == expected else {
      throw ComponentError.unexpectedShape(
        component: "The U-Net", argument: "deep features", expected: expected.description, found: deepFeatures.shape)
    }
  }

  /// Whether the layers before the first that attends to the text are computed once for all rows of the same latents. An observer sees all rows, and
  /// additional inputs differ from row to row.
  private func sharesRows(_ inputs: Inputs, in context: ExecutionContext) -> Bool {
    context.mayRearrange && inputs.conditioning.inputs.isEmpty && inputs.conditioning.residuals?.levels.isEmpty ?? true
  }
}

extension TextStates {
  /// Whether text and pictures are the same tensors as another's.
  func isOfTheSame(as other: TextStates) -> Bool {
    states.isIdentical(to: other.states) && frames == other.frames
      && pictures.elementsEqual(other.pictures) { $0.tokens.isIdentical(to: $1.tokens) && $0.scale == $1.scale }
  }
}
