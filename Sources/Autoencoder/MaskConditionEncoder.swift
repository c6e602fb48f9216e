import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// Features of what is kept of a picture, at each resolution of a decoder, which takes them where nothing is new. Source: Zhu et al. 2023
/// (arXiv:2306.04632), diffusers' `MaskConditionEncoder`.
struct MaskConditionEncoder: Sendable {
  private let layers: [Convolution2D]

  /// - Parameter decoder: the shape of the decoder.
  init(_ decoder: AutoencoderShape, weights: WeightScope) throws {
    let most = decoder.channels[decoder.channels.count - 1]
    // Twice as many channels with each layer, until there are as many as at the decoder's lowest resolution.
    var widths = [min(decoder.channels[0], most)]
    while widths.count < Self.layerCount - 1 { widths.append(min(2 * widths[widths.count - 1], most)) }
    widths.append(most)
    layers = try widths.enumerated().map { index, width in
      let entering = index == 0 ? 3 : widths[index - 1], scope = weights["layers"][index]
      return index < Self.wholeLayers
        ? try Convolution2D(entering, width, kernel: 3, padding: 1, weights: scope)
        : try Convolution2D(entering, width, kernel: 4, stride: 2, padding: 1, weights: scope)
    }
  }

  private static let layerCount = 5
  /// Layers at the picture's own resolution.
  private static let wholeLayers = 2

  /// What the decoder takes where nothing is new.
  struct Features: Sendable {
    /// The highest resolution first, with what is new at each: `[N, h, w, C]` and `[N, h, w, 1]`.
    fileprivate let levels: [(features: Tensor, new: Tensor)]

    /// A decoder's features where something is new, and these elsewhere.
    /// - Throws: `ComponentError` where there are none of this shape; what the engine throws.
    func mixed(into x: Tensor, in context: ExecutionContext) throws -> Tensor {
      guard let (known, new) = levels.last(where: { $0.features.shape == x.shape }) else {
        throw ComponentError.doesNotFit(component: "The autoencoder's condition encoder", reason: "it has no features of shape \(x.shape)")
      }
      let kept = try known.scaledRows(by: new.scaled(by: -1, plus: 1, in: context), in: context)
      return try x.scaledRows(by: new, in: context).adding(kept, in: context)
    }
  }

  func callAsFunction(_ picture: KeptPicture, in context: ExecutionContext) throws -> Features {
    var x = try picture.image.scaledRows(by: picture.new.scaled(by: -1, plus: 1, in: context), in: context), new = picture.new
    var levels: [(features: Tensor, new: Tensor)] = []
    for (index, layer) in layers.enumerated() {
      x = try layer(index == 0 ? x : x.activated(.relu, in: context), in: context)
      if index >= Self.wholeLayers { new = try new.halvedNearest(in: context) }
      levels.append((x, new))
    }
    return Features(levels: levels)
  }
}

extension Tensor {
  /// Every other pixel of every other row: `[N, H, W, C]` → `[N, H/2, W/2, C]`.
  fileprivate func halvedNearest(in context: ExecutionContext) throws -> Tensor {
    let (pictures, height, width, channels) = (shape[0], shape[1], shape[2], shape[3])
    let columns = try reshaped([pictures * height, width / 2, 2 * channels]).channels(0..<channels, in: context)
    let line = width / 2 * channels
    return try columns.reshaped([pictures, height / 2, 2 * line]).channels(0..<line, in: context)
      .reshaped([pictures, height / 2, width / 2, channels])
  }
}
