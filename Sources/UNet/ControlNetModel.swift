import Foundation
import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// A copy of a U-Net's way down that also sees a picture, and says what to add to the U-Net's features.
///
/// Source: Zhang, Rao and Agrawala 2023 (arXiv:2302.05543), diffusers' `ControlNetModel`.
public struct ControlNetModel: ControlModel, ModelComponent {
  /// The checked configuration.
  public let configuration: ControlNetConfiguration
  private let wayDown: UNet2DWayDown
  private let hint: ControlNetHint
  /// The convolutions that were zeros before training, one for each skip, and for the middle.
  private let skipConvolutions: [Convolution2D]
  private let middleConvolution: Convolution2D

  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ configuration: ControlNetConfiguration, weights: WeightScope) throws {
    self.configuration = configuration
    let unet = configuration.unet
    wayDown = try UNet2DWayDown(unet, weights: weights)
    hint = try ControlNetHint(configuration, weights: weights["controlnet_cond_embedding"])
    skipConvolutions = try unet.skipChannels.enumerated().map {
      try Convolution2D($1, $1, kernel: 1, weights: weights["controlnet_down_blocks"][$0])
    }
    let deepest = unet.levels[unet.levels.count - 1].channels
    middleConvolution = try Convolution2D(deepest, deepest, kernel: 1, weights: weights["controlnet_mid_block"])
  }

  public static var classNames: [String] { ["ControlNetModel"] }

  public static var quantization: QuantizationRule {
    .matrices(except: ["conv_in.", "time_embedding.", "class_embedding.", "add_embedding.", "controlnet_cond_embedding."])
  }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    try self.init(ControlNetConfiguration(json: json), weights: weights)
  }

  public var name: String { "The ControlNet" }
  public var pictureChannels: Int { configuration.conditioningChannels }
  public var hasGuessMode: Bool { true }
  public var seesPromptsAlone: Bool { configuration.poolsGlobally }

  /// - Throws: `ComponentError` unless the predictor is a U-Net of the same widths.
  public func check(_ predictor: any NoisePredictor) throws {
    let unet = try predictor.shape(steeredBy: name)
    let own = configuration.unet
    guard own.skipChannels == unet.skipChannels, own.contextChannels == unet.contextChannels else {
      throw ComponentError.doesNotFit(
        component: name,
        reason: "it was made for a U-Net of \(own.widths) channels that attends to \(own.contextChannels), "
          + "and this one has \(unet.widths) and attends to \(unet.contextChannels)")
    }
    guard own.inChannels <= unet.inChannels, own.addition == nil || own.addition?.inputs == unet.addition?.inputs else {
      throw ComponentError.doesNotFit(component: name, reason: "it takes more than this U-Net is told")
    }
  }

  /// The picture at the size of latents, with the channels of the first features.
  /// - Throws: `CancellationError`; `ComponentError` where a picture has other channels.
  public func features(of picture: Tensor, in context: ExecutionContext) throws -> [Tensor] {
    guard picture.shape.rank == 4, picture.shape[3] == pictureChannels, picture.count > 0 else {
      throw ComponentError.unexpectedShape(
        component: name, argument: "a picture", expected: "[N, H, W, \(pictureChannels)]", found: picture.shape)
    }
    let flipped =
      configuration.takesBlueFirst
      ? try Tensor.concatenated(
        (0..<pictureChannels).reversed().map { try picture.channels($0..<$0 + 1, in: context) }, axis: -1, in: context)
      : picture
    return [try hint(flipped, in: context)]
  }

  public func residuals(_ pass: ControlPass, cache: inout (any Sendable)?, in context: ExecutionContext) throws -> FeatureResiduals {
    let conditioning = try check(pass), rows = conditioning.rows
    let text = try read(conditioning.contexts[0], cache: &cache, in: context)
    let time = try wayDown.embedding(pass.timestep, conditioning: conditioning, rows: rows, in: context)
    let inner = try UNetPass(time: time, text: text, merging: nil, context: context)
    var latents = try pass.latents.channels(0..<configuration.unet.inChannels, in: context)
    // Until a layer attends to the text, all rows of a latent are the same, unless something else tells them apart.
    if !(context.mayRearrange && conditioning.inputs.isEmpty) { latents = try latents.repeated(rows / latents.shape[0], in: context) }
    var x = try wayDown.convIn(latents, in: context)
    x = try x.adding(control: pass.features[0].repeated(x.shape[0] / pass.features[0].shape[0], in: context), in: context)
    var skips = [x]
    x = try wayDown.descend(x, skips: &skips, upTo: pass.skips ?? .max, inner)
    let isWhole = pass.skips == nil
    if isWhole, let middle = wayDown.middle { x = try middle(x, inner) }
    let scales = self.scales(pass)
    func said(_ features: Tensor, by convolution: Convolution2D, scale: Float) throws -> Tensor {
      let said = try convolution(features, in: context)
      let scaled = scale == 1 ? said : try said.scaled(by: scale, in: context)
      let pooled = configuration.poolsGlobally ? try scaled.everywhereItsMean(in: context) : scaled
      return try pooled.repeated(rows / pooled.shape[0], in: context)
    }
    return FeatureResiduals(
      skips: try skips.indices.map { try said(skips[$0], by: skipConvolutions[$0], scale: scales[$0]) },
      middle: isWhole ? try said(x, by: middleConvolution, scale: scales[skips.count]) : nil)
  }

  /// What each residual is multiplied by. In guess mode it grows from a tenth to the whole.
  private func scales(_ pass: ControlPass) -> [Float] {
    let count = skipConvolutions.count
    guard pass.isGuessing, !configuration.poolsGlobally else { return Array(repeating: pass.weight, count: count + 1) }
    return (0...count).map { pass.weight * pow(10, Float($0) / Float(count) - 1) }
  }

  /// - Returns: the text and what the embedding takes, which is a part of what the U-Net is told.
  private func check(_ pass: ControlPass) throws -> Conditioning {
    let (latents, own) = (pass.latents.shape, configuration.unet)
    guard latents.rank == 4, latents[3] >= own.inChannels, pass.latents.count > 0 else {
      throw ComponentError.unexpectedShape(
        component: name, argument: "latents", expected: "[N, h, w, \(own.inChannels) or more]", found: latents)
    }
    let rows = pass.conditioning.rows
    guard rows > 0, rows.isMultiple(of: latents[0]), let hint = pass.features.first?.shape, let pictures = hint.dimensions.first,
      pictures > 0, latents[0].isMultiple(of: pictures)
    else {
      throw ComponentError.unexpectedRows(component: name, rows: rows, latents: latents[0])
    }
    let size = Shape(latents.dimensions[0..<3] + [own.levels[0].channels])
    guard hint == Shape([pictures] + size.dimensions.dropFirst()) else {
      throw ComponentError.unexpectedShape(component: name, argument: "a picture's features", expected: size.description, found: hint)
    }
    let expected = "[\(rows), L, \(own.contextChannels)]"
    guard let text = pass.conditioning.contexts.first, text.shape.rank == 3, text.shape[0] == rows, text.shape[1] > 0,
      text.shape[2] == own.contextChannels
    else {
      throw ComponentError.unexpectedShape(
        component: name, argument: "hidden states", expected: expected, found: pass.conditioning.contexts.first?.shape ?? [])
    }
    let taken = Set(wayDown.embedding.declaredInputs.map(\.name))
    let conditioning = Conditioning(
      rows: rows, contexts: [text], pooled: pass.conditioning.pooled, inputs: pass.conditioning.inputs.filter { taken.contains($0.key) })
    try wayDown.embedding.check(conditioning)
    for input in wayDown.embedding.declaredInputs where input.isRequired && conditioning.inputs[input.name] == nil {
      throw ComponentError.missingInput(component: name, argument: input.name)
    }
    return conditioning
  }

  private func read(_ states: Tensor, cache: inout (any Sendable)?, in context: ExecutionContext) throws -> TextStates {
    if let text = cache as? TextStates, text.states.isIdentical(to: states) { return text }
    var text = TextStates(states)
    for attention in wayDown.blocks.flatMap(\.attentions) + (wayDown.middle?.attentions ?? []) { try attention.read(&text, in: context) }
    cache = text
    return text
  }
}

/// Makes a picture as small as latents, by convolutions of which every second halves the sides. Source: diffusers' `ControlNetConditioningEmbedding`.
private struct ControlNetHint: Sendable {
  private let convolutions: [Convolution2D]
  private let convOut: Convolution2D

  init(_ configuration: ControlNetConfiguration, weights: WeightScope) throws {
    let channels = configuration.embeddingChannels
    var all = [try Convolution2D(configuration.conditioningChannels, channels[0], kernel: 3, padding: 1, weights: weights["conv_in"])]
    for (index, (from, to)) in zip(channels, channels.dropFirst()).enumerated() {
      let blocks = weights["blocks"]
      all.append(try Convolution2D(from, from, kernel: 3, padding: 1, weights: blocks[2 * index]))
      all.append(try Convolution2D(from, to, kernel: 3, stride: 2, padding: 1, weights: blocks[2 * index + 1]))
    }
    convolutions = all
    convOut = try Convolution2D(
      channels[channels.count - 1], configuration.unet.levels[0].channels, kernel: 3, padding: 1, weights: weights["conv_out"])
  }

  func callAsFunction(_ picture: Tensor, in context: ExecutionContext) throws -> Tensor {
    let x = try convolutions.reduce(picture) { try $1($0, activation: .silu, in: context) }
    return try convOut(x, in: context)
  }
}

extension Tensor {
  /// The mean over all places of `[N, H, W, C]`, at every place.
  fileprivate func everywhereItsMean(in context: ExecutionContext) throws -> Tensor {
    let (rows, channels, places) = (shape[0], shape[3], shape[1] * shape[2])
    // The sum of two halves, again and again; what is left of an odd number is added at the end.
    var (sum, count) = (reshaped([rows, places * channels]), places)
    var rest: Tensor?
    while count > 1 {
      let half = count / 2 * channels
      if count % 2 == 1 {
        let last = try sum.channels(2 * half..<count * channels, in: context)
        rest = try rest.map { try $0.adding(last, in: context) } ?? last
      }
      sum = try sum.channels(0..<half, in: context).adding(sum.channels(half..<2 * half, in: context), in: context)
      count /= 2
    }
    if let rest { sum = try sum.adding(rest, in: context) }
    let mean = try sum.scaled(by: 1 / Float(places), in: context)
    return try Tensor.concatenated(Array(repeating: mean, count: places), axis: 1, in: context).reshaped(shape)
  }
}
