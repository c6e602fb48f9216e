import LatentDiffusionComponents
import Foundation
import LatentDiffusionLayers
import Tensor
import LatentDiffusionWeights

/// The U-Net of Stable Diffusion: guesses the noise in latents, guided by text. Source: Rombach et al. 2022, diffusers'
/// `UNet2DConditionModel`.
public struct UNet2DConditionModel: NoisePredictor {
  /// What the configuration says.
  public let shape: UNet2DShape
  private let sinusoids: Timesteps
  private let timeEmbedding: TimestepEmbedding
  private let convIn: Convolution2D
  private let downBlocks: [DownBlock]
  private let midBlock: MidBlock?
  private let upBlocks: [UpBlock]
  private let convNormOut: GroupNorm
  private let convOut: Convolution2D

  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ shape: UNet2DShape, weights: WeightScope) throws {
    self.shape = shape
    let levels = shape.levels
    let timeChannels = 4 * levels[0].channels
    sinusoids = Timesteps(levels[0].channels, flipSinToCos: shape.flipSinToCos, frequencyShift: shape.frequencyShift)
    timeEmbedding = try TimestepEmbedding(
      levels[0].channels, embedding: timeChannels, conditionChannels: shape.conditionChannels, weights: weights["time_embedding"])
    convIn = try Convolution2D(
      shape.inChannels, levels[0].channels, kernel: shape.inputKernel, padding: (shape.inputKernel - 1) / 2, weights: weights["conv_in"])
    downBlocks = try levels.indices.map {
      try DownBlock(index: $0, shape: shape, timeChannels: timeChannels, weights: weights["down_blocks"][$0])
    }
    midBlock =
      shape.hasMiddle
      ? try MidBlock(shape: shape, level: levels[levels.count - 1], timeChannels: timeChannels, weights: weights["mid_block"]) : nil
    upBlocks = try levels.indices.map {
      try UpBlock(index: $0, shape: shape, timeChannels: timeChannels, weights: weights["up_blocks"][$0])
    }
    convNormOut = try GroupNorm(
      groups: shape.groups, channels: levels[0].channels, epsilon: shape.epsilon, weights: weights["conv_norm_out"])
    convOut = try Convolution2D(
      levels[0].channels, shape.outChannels, kernel: shape.outputKernel, padding: (shape.outputKernel - 1) / 2,
      weights: weights["conv_out"])
  }

  public var inputChannels: Int { shape.inChannels }
  public var outputChannels: Int { shape.outChannels }
  public var sampleSize: Int? { shape.sampleSize }
  public var sampleSides: (height: Int, width: Int)? { shape.sampleSides }
  public var embedsGuidance: Bool { shape.conditionChannels != nil }

  /// Takes `timestep_cond` `[N, time_cond_proj_dim]` from the conditioning's additional inputs in place of the guidance's embedding.
  /// - Throws: `ComponentError` where shapes do not fit, `CancellationError`.
  public func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    var memory = PassMemory()
    return try predict(latents, timestep: timestep, conditioning: conditioning, memory: &memory, in: context)
  }

  /// The same, by the short cuts that the memory names.
  ///
  /// The layers of the way down are numbered by the skips that they leave, and those of the way up by the skips that they take. Deep
  /// features are what enters the layer that takes the branch's skip.
  /// - Throws: `ComponentError` where shapes do not fit, `CancellationError`.
  public func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> Tensor {
    try check(latents, conditioning)
    let text = try read(conditioning.hiddenStates, memory: &memory, in: context)
    let whole = Inputs(
      latents: latents, timestep: timestep, conditioning: conditioning, text: text, deepFeatures: memory.deepFeatures,
      merging: memory.shortcuts.tokenMerging.map { TokenMerging(ratio: $0, seed: memory.passSeed) },
      branch: memory.shortcuts.stepCaching?.branch)
    guard isParted(whole, in: context) else {
      let output = try pass(whole, in: context)
      memory.endPass(keeping: output.deepFeatures)
      return output.prediction
    }
    let outputs = try context.apart(context.threads) { try pass(whole.part($0, of: context.threads, in: $1), in: $1) }
    let features = outputs.compactMap(\.deepFeatures)
    memory.endPass(keeping: features.isEmpty ? nil : try Tensor.concatenated(features, axis: 0, in: context))
    return try Tensor.concatenated(outputs.map(\.prediction), axis: 0, in: context)
  }

  /// Whether each thread makes a pass of its own of its part of the rows. In a small net threads that share every layer wait for one another,
  /// and for what is in each other's caches, longer than it takes each to read all weights: those come from the caches too. Who observes a pass
  /// sees all its rows.
  private func isParted(_ inputs: Inputs, in context: ExecutionContext) -> Bool {
    let rows = inputs.latents.shape[0], features = inputs.latents.count / rows / inputChannels * shape.levels[0].channels
    return context.threads > 1 && rows.isMultiple(of: context.threads) && context.mayRearrange && inputs.canBeCut
      && features <= 1 << 16 && shape.levels.allSatisfy { $0.channels <= 256 }
  }

  /// What a pass begins with.
  private struct Inputs: Sendable {
    var latents: Tensor
    let timestep: Float
    var conditioning: Conditioning
    var text: TextStates
    let deepFeatures: Tensor?
    let merging: TokenMerging?
    let branch: Int?

    /// Whether they can be cut by rows: what is wrong with an input of other rows, or with deep features, a whole pass says.
    var canBeCut: Bool {
      deepFeatures == nil && conditioning.additional.values.allSatisfy { $0.shape.dimensions.first == latents.shape[0] }
    }

    /// The same for a part of the rows.
    func part(_ index: Int, of count: Int, in context: ExecutionContext) throws -> Inputs {
      let rows = latents.shape[0] / count * index..<latents.shape[0] / count * (index + 1)
      var part = self
      part.latents = try latents.rows(rows, in: context)
      part.conditioning.additional = try conditioning.additional.mapValues { try $0.rows(rows, in: context) }
      part.text = try text.rows(rows, in: context)
      return part
    }
  }

  /// What a pass ends with.
  private struct Outputs: Sendable {
    let prediction: Tensor
    /// Where the next pass may want them.
    let deepFeatures: Tensor?
  }

  private func pass(_ inputs: Inputs, in context: ExecutionContext) throws -> Outputs {
    let (latents, branch) = (inputs.latents, inputs.branch)
    let time = try embed(inputs.timestep, conditioning: inputs.conditioning, batch: latents.shape[0], in: context)
    let pass = UNetPass(time: time, text: inputs.text, merging: inputs.merging, context: context)
    let distinct = try latents.rows(0..<distinctRows(latents, time: time, in: context), in: context)
    var x = try convIn(shape.centersInput ? distinct.scaled(by: 2, plus: -1, in: context) : distinct, in: context)
    var skips = [x]
    x = try descend(x, skips: &skips, upTo: inputs.deepFeatures == nil ? .max : (branch ?? 0) + 1, pass)
    if let deepFeatures = inputs.deepFeatures {
      try check(deepFeatures, meeting: x, batch: latents.shape[0])
      x = deepFeatures
    } else {
      if let midBlock { x = try midBlock(x, pass) }
      if let branch { x = try ascend(x, skips: &skips, leaving: branch + 1, pass) }
    }
    // Without any attention to the text the rows have not parted yet.
    x = try x.repeated(latents.shape[0] / x.shape[0], in: context)
    let kept = branch == nil ? nil : x
    x = try ascend(x, skips: &skips, leaving: 0, pass)
    let prediction = try convOut(convNormOut(x, activation: .silu, in: context), in: context)
    return Outputs(prediction: prediction, deepFeatures: kept)
  }

  /// - Throws: `ComponentError` where there is no such branch.
  public func check(_ shortcuts: Shortcuts) throws {
    // The deepest layers on the way up take a skip of their own, and have nothing below that could be left out but the middle.
    let branches = 0..<shape.levels.reduce(0) { $0 + $1.resnets + 1 }
    if let caching = shortcuts.stepCaching, !branches.contains(caching.branch) {
      throw ComponentError.outOfRange(
        component: "The U-Net", option: "a branch for step caching", value: "\(caching.branch)", allowed: "from 0 to \(branches.count - 1)")
    }
  }

  /// A text with what all layers make of it alone, which the first of a generation's passes leaves for the others.
  private func read(_ states: Tensor, memory: inout PassMemory, in context: ExecutionContext) throws -> TextStates {
    if let projected = memory.projections(of: states) { return TextStates(states, projected: projected) }
    var text = TextStates(states)
    let attentions = downBlocks.flatMap(\.attentions) + (midBlock.map { [$0.attention] } ?? []) + upBlocks.flatMap(\.attentions)
    for attention in attentions { try attention.read(&text, in: context) }
    memory.keep(text.projected, projectedFrom: states)
    return text
  }

  private func descend(_ x: Tensor, skips: inout [Tensor], upTo most: Int, _ pass: UNetPass) throws -> Tensor {
    var x = x
    for block in downBlocks where skips.count < most { x = try block(x, skips: &skips, upTo: most, pass) }
    return x
  }

  private func ascend(_ x: Tensor, skips: inout [Tensor], leaving rest: Int, _ pass: UNetPass) throws -> Tensor {
    var x = x
    for block in upBlocks where skips.count > max(rest, block.skipsLeft) { x = try block(x, skips: &skips, leaving: rest, pass) }
    return x
  }

  /// `[N, 4C]`: the embedding of the time, activated as every block wants it.
  private func embed(_ timestep: Float, conditioning: Conditioning, batch: Int, in context: ExecutionContext) throws -> Tensor {
    let time = sinusoids([timestep])
    if let observer = context.observer { observer("time_proj", try time.repeated(batch, in: context)) }
    guard let channels = shape.conditionChannels else {
      // The same for all rows; who observes a pass sees all of them.
      let distinct = context.mayRearrange ? time : try time.repeated(batch, in: context)
      return try timeEmbedding(distinct, in: context).activated(.silu, in: context).repeated(batch / distinct.shape[0], in: context)
    }
    // Source: Meng et al. 2023, with the scale of diffusers' `get_guidance_scale_embedding`.
    let guidance = Timesteps(channels, flipSinToCos: false, frequencyShift: 1)([1000 * (conditioning.guidance ?? 0)])
    let condition = try conditioning.additional["timestep_cond"] ?? guidance.repeated(batch, in: context)
    guard condition.shape == [batch, channels] else {
      throw ComponentError.unexpectedShape(
        component: "The U-Net", argument: "timestep_cond", expected: "[\(batch), \(channels)]", found: condition.shape)
    }
    return try timeEmbedding(time.repeated(batch, in: context), condition: condition, in: context).activated(.silu, in: context)
  }

  private func check(_ latents: Tensor, _ conditioning: Conditioning) throws {
    let wanted = "[N, h, w, \(inputChannels)]"
    guard latents.shape.rank == 4, latents.shape[3] == inputChannels, latents.count > 0 else {
      throw ComponentError.unexpectedShape(component: "The U-Net", argument: "latents", expected: wanted, found: latents.shape)
    }
    let text = conditioning.hiddenStates.shape
    let channels = shape.levels[0].contextChannels
    guard text.rank == 3, text[0] == latents.shape[0], text[2] == channels, text[1] > 0 else {
      throw ComponentError.unexpectedShape(
        component: "The U-Net", argument: "hidden states", expected: "[\(latents.shape[0]), L, \(channels)]", found: text)
    }
  }

  /// A memory belongs to passes of one shape.
  private func check(_ deepFeatures: Tensor, meeting skip: Tensor, batch: Int) throws {
    let expected = [batch] + skip.shape.dimensions[1..<3]
    guard deepFeatures.shape.dimensions.dropLast() == expected[...] else {
      throw ComponentError.unexpectedShape(
        component: "The U-Net", argument: "deep features", expected: "[\(expected.map(String.init).joined(separator: ", ")), C]",
        found: deepFeatures.shape)
    }
  }

  /// How many rows the latents have that differ: guidance asks about the same ones with several texts, and before a layer looks at the text
  /// the answers are the same. Who observes a pass sees all its rows.
  private func distinctRows(_ latents: Tensor, time: Tensor, in context: ExecutionContext) -> Int {
    let rows = latents.shape[0]
    guard context.mayRearrange else { return rows }
    return (1...rows).first { latents.repeats(every: $0) && time.repeats(every: $0) } ?? rows
  }
}
