import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// The first half of a U-Net: from the time and the latents down to the middle. A ControlNet is a copy of it.
struct UNet2DWayDown: Sendable {
  let embedding: UNet2DEmbedding
  let convIn: Convolution2D
  /// What lets the frames of a clip see one another from the start (`transformer_in`); nil but in a network of clips.
  private let transformerIn: TransformerTemporalModel?
  var blocks: [DownBlock]
  var middle: MidBlock?

  init(_ configuration: UNet2DConfiguration, weights: WeightScope) throws {
    let levels = configuration.levels
    embedding = try UNet2DEmbedding(configuration, weights: weights)
    convIn = try Convolution2D(
      configuration.inChannels, levels[0].channels, kernel: configuration.inputKernel, padding: (configuration.inputKernel - 1) / 2,
      weights: weights["conv_in"])
    transformerIn = try configuration.clips.map {
      try TransformerTemporalModel(
        levels[0].channels, heads: $0.firstHeads, headChannels: $0.headChannels, groups: configuration.groups,
        weights: weights["transformer_in"])
    }
    blocks = try levels.indices.map { try DownBlock(index: $0, configuration: configuration, weights: weights["down_blocks"][$0]) }
    middle = try MidBlock(configuration: configuration, level: levels[levels.count - 1], weights: weights["mid_block"])
  }

  /// Latents as the first features.
  func entered(_ latents: Tensor, _ pass: UNetPass) throws -> Tensor {
    let x = try convIn(latents, in: pass.context)
    return try transformerIn?(x, frames: pass.frames, in: pass.windows, in: pass.context) ?? x
  }

  /// - Parameters:
  ///   - most: the number of skips at which it ends.
  ///   - residuals: what is added to the features of each level.
  func descend(_ x: Tensor, skips: inout [Tensor], upTo most: Int = .max, adding residuals: [Tensor] = [], _ pass: UNetPass) throws
    -> Tensor
  {
    var x = x
    for (index, block) in blocks.enumerated() where skips.count < most {
      x = try block(x, skips: &skips, upTo: most, adding: index < residuals.count ? residuals[index] : nil, pass)
    }
    return x
  }
}

extension UNet2DConfiguration {
  /// Channels of what the way down leaves for the way up, the first convolution's first.
  var skipChannels: [Int] {
    let own = levels.enumerated().flatMap { index, level in
      Array(repeating: level.channels, count: level.resnets + (index == levels.count - 1 ? 0 : 1))
    }
    return [levels[0].channels] + own
  }

  /// The widths that another network must have to fit this one, for errors.
  var widths: String { levels.map { "\($0.channels)" }.joined(separator: ", ") }
}

extension Tensor {
  /// The sum with what a control says, which must have the shape of these features for all rows.
  /// - Throws: `ComponentError.unexpectedShape`.
  func adding(control residual: Tensor, in context: ExecutionContext) throws -> Tensor {
    guard let rows = residual.shape.dimensions.first, rows > 0, rows.isMultiple(of: shape[0]),
      residual.shape == Shape([rows] + shape.dimensions.dropFirst())
    else {
      throw ComponentError.unexpectedShape(
        component: "The U-Net", argument: "residuals of a control", expected: shape.description, found: residual.shape)
    }
    return try repeated(rows / shape[0], in: context).adding(residual, in: context)
  }
}

extension NoisePredictor {
  /// The shape of this U-Net, for a network that is to steer its features.
  ///
  /// - Parameter name: of that network, for errors.
  /// - Throws: `ComponentError.doesNotFit` where this is no U-Net, or one that draws clips by layers of its own: nothing was made to steer such a one.
  func shape(steeredBy name: String) throws(ComponentError) -> UNet2DConfiguration {
    guard let unet = (self as? UNet2DConditionModel)?.configuration else {
      throw .doesNotFit(component: name, reason: "its noise predictor is no U-Net")
    }
    guard !unet.drawsClips else { throw .doesNotFit(component: name, reason: "this U-Net has layers for the frames of clips") }
    return unet
  }
}
