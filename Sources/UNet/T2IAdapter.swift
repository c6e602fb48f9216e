import Foundation
import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// The keys of a T2I-Adapter's `config.json`. Source: diffusers' `T2IAdapter`.
private struct T2IAdapterKeys: Decodable {
  var in_channels: Int?
  var channels: [Int]?
  var num_res_blocks: Int?
  var downscale_factor: Int?
  var adapter_type: String?
}

/// A small network that makes features of a picture, which are added to a U-Net's on its way down. They are the same in all steps.
///
/// Source: Mou et al. 2023 (arXiv:2302.08453), diffusers' `T2IAdapter`.
public struct T2IAdapter: ControlModel, ModelComponent {
  /// `adapter_type`.
  enum Kind: String, Sendable {
    case full = "full_adapter"
    case fullXL = "full_adapter_xl"
    case light = "light_adapter"
  }

  public let pictureChannels: Int
  /// Pixels a side that become channels first.
  private let factor: Int
  private let convIn: Convolution2D?
  private let blocks: [AdapterBlock]
  /// Of the features, the highest resolution first.
  private let channels: [Int]

  public static var classNames: [String] { ["T2IAdapter"] }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    let keys = try decodeConfiguration(T2IAdapterKeys.self, component: "T2IAdapter", from: json)
    let check = ConfigurationCheck("T2IAdapter")
    let type = keys.adapter_type ?? Kind.full.rawValue
    guard let kind = Kind(rawValue: type) else {
      throw ConfigurationError.unsupported(component: check.component, key: "adapter_type", value: type)
    }
    let widths = keys.channels ?? [320, 640, 1280, 1280], layers = keys.num_res_blocks ?? 2
    (pictureChannels, factor) = (keys.in_channels ?? 3, keys.downscale_factor ?? 8)
    try check.require((1...16).contains(widths.count), "channels", "\(widths.count) levels")
    for (value, key) in widths.map({ ($0, "channels") }) + [(pictureChannels, "in_channels"), (layers, "num_res_blocks")] {
      try check.extent(value, key)
    }
    try check.require((1...256).contains(factor), "downscale_factor", "\(factor) is not between 1 and 256")
    try check.require(kind != .light || widths.allSatisfy { $0 >= 4 }, "channels", "a quarter of them is nothing")
    let inputs = pictureChannels * factor * factor, scope = weights["adapter"]
    convIn = kind == .light ? nil : try Convolution2D(inputs, widths[0], kernel: 3, padding: 1, weights: scope["conv_in"])
    channels = kind == .light ? widths + [widths[widths.count - 1]] : widths
    let entering = [kind == .light ? inputs : widths[0]] + channels.dropLast()
    blocks = try channels.enumerated().map { index, own in
      try AdapterBlock(
        entering[index], own, layers: layers, isLight: kind == .light, halves: kind == .fullXL ? index == 2 : index > 0,
        weights: scope["body"][index])
    }
  }

  public var name: String { "The T2I-Adapter" }

  /// - Throws: `ComponentError` unless the predictor is a U-Net of the same widths.
  public func check(_ predictor: any NoisePredictor) throws {
    let unet = try predictor.shape(steeredBy: name)
    // A level more than the U-Net has is for its middle.
    let levels = unet.levels.map(\.channels), whole = levels + levels.suffix(1)
    guard channels.count <= whole.count, channels == Array(whole.prefix(channels.count)) else {
      throw ComponentError.doesNotFit(
        component: name,
        reason:
          "it has features of \(channels.map { "\($0)" }.joined(separator: ", ")) channels, and this U-Net has levels of \(unet.widths)")
    }
  }

  /// The picture's features for each level.
  /// - Throws: `CancellationError`; `ComponentError` where a picture has other channels, or sides that cannot be divided.
  public func features(of picture: Tensor, in context: ExecutionContext) throws -> [Tensor] {
    guard picture.shape.rank == 4, picture.shape[3] == pictureChannels, picture.count > 0 else {
      throw ComponentError.unexpectedShape(
        component: name, argument: "a picture", expected: "[N, H, W, \(pictureChannels)]", found: picture.shape)
    }
    for side in picture.shape.dimensions[1..<3] where !side.isMultiple(of: factor) {
      throw ComponentError.indivisibleSide(component: name, side: side, multiple: factor)
    }
    var x = picture.unshuffled(factor)
    if let convIn { x = try convIn(x, in: context) }
    return try blocks.map {
      x = try $0(x, in: context)
      return x
    }
  }

  public func residuals(_ pass: ControlPass, cache: inout (any Sendable)?, in context: ExecutionContext) throws -> FeatureResiduals {
    let rows = pass.conditioning.rows
    return FeatureResiduals(
      levels: try pass.features.map { features in
        guard let pictures = features.shape.dimensions.first, pictures > 0, rows.isMultiple(of: pictures) else {
          throw ComponentError.unexpectedRows(component: name, rows: rows, latents: pass.latents.shape.dimensions.first ?? 0)
        }
        let scaled = pass.weight == 1 ? features : try features.scaled(by: pass.weight, in: context)
        return try scaled.repeated(rows / pictures, in: context)
      })
  }
}

/// One resolution. Source: diffusers' `AdapterBlock` and `LightAdapterBlock`, whose layers are a quarter as wide.
private struct AdapterBlock: Sendable {
  private let pool: AveragePool2D?
  private let convIn: Convolution2D?
  private let layers: [(Convolution2D, Convolution2D)]
  private let convOut: Convolution2D?

  init(_ inChannels: Int, _ outChannels: Int, layers count: Int, isLight: Bool, halves: Bool, weights: WeightScope) throws {
    let inner = isLight ? outChannels / 4 : outChannels
    pool = halves ? AveragePool2D() : nil
    convIn = isLight || inChannels != inner ? try Convolution2D(inChannels, inner, kernel: 1, weights: weights["in_conv"]) : nil
    layers = try (0..<count).map {
      let layer = weights["resnets"][$0], kernel = isLight ? 3 : 1
      return (
        try Convolution2D(inner, inner, kernel: 3, padding: 1, weights: layer["block1"]),
        try Convolution2D(inner, inner, kernel: kernel, padding: kernel / 2, weights: layer["block2"])
      )
    }
    convOut = isLight ? try Convolution2D(inner, outChannels, kernel: 1, weights: weights["out_conv"]) : nil
  }

  func callAsFunction(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    var x = try pool?(x, in: context) ?? x
    if let convIn { x = try convIn(x, in: context) }
    for (first, second) in layers { x = try second(first(x, activation: .relu, in: context), adding: x, in: context) }
    return try convOut?(x, in: context) ?? x
  }
}

extension Tensor {
  /// `[N, H, W, C]` → `[N, H/factor, W/factor, C · factor²]`, with a pixel's place in its square the fastest channel. Source: PyTorch's `PixelUnshuffle`.
  fileprivate func unshuffled(_ factor: Int) -> Tensor {
    let (height, width) = (shape[1] / factor, shape[2] / factor)
    return reshaped([shape[0], height, factor, width, factor, shape[3]]).permuted([0, 1, 3, 5, 2, 4])
      .reshaped([shape[0], height, width, shape[3] * factor * factor])
  }
}
