import Foundation
import LatentDiffusionComponents
import LatentDiffusionLayers
import LatentDiffusionWeights
import Tensor

/// A small autoencoder that was distilled from a large one. Source: Ollin Boer Bohan's TAESD, diffusers' `AutoencoderTiny`.
public struct AutoencoderTiny: LatentAutoencoder, ModelComponent {
  /// The checked configuration.
  public let configuration: AutoencoderTinyConfiguration
  /// Nil where the files hold nothing of it, as those of a decoder alone do.
  private let encoder: TinyEncoder?
  private let decoder: TinyDecoder

  /// - Throws: `WeightErrors`, `CancellationError`.
  public init(_ configuration: AutoencoderTinyConfiguration, weights: WeightScope) throws {
    self.configuration = configuration
    encoder = weights["encoder"].isEmpty ? nil : try TinyEncoder(configuration, weights: weights.ofEncoder)
    decoder = try TinyDecoder(configuration, weights: weights["decoder"])
  }

  public static var classNames: [String] { ["AutoencoderTiny"] }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public init(configuration json: Data, weights: WeightScope) throws {
    try self.init(AutoencoderTinyConfiguration(json: json), weights: weights)
  }

  public var spatialScale: Int { configuration.spatialScale }
  public var latentChannels: Int { configuration.latentChannels }
  public var latentScale: Float { configuration.scalingFactor }
  public var latentShift: Float { configuration.shiftFactor }

  /// Plain latents.
  /// - Throws: also `ComponentError.missingPart` where the files hold a decoder alone.
  public func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture {
    try checkPicture(image)
    guard let encoder else { throw ComponentError.missingPart(component: "The tiny autoencoder", part: "encoder") }
    return .latents(try encoder(image, in: context))
  }

  public func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    try checkLatents(latents)
    return try decoder(latents, in: context)
  }
}

/// Three convolutions and a residual connection. Source: diffusers' `AutoencoderTinyBlock`.
private struct TinyBlock: Sendable {
  private let convolutions: [Convolution2D]
  private let activation: Activation
  private let path: String

  init(_ channels: Int, _ activation: Activation, weights: WeightScope) throws {
    convolutions = try [0, 2, 4].map { try Convolution2D(channels, channels, kernel: 3, padding: 1, weights: weights["conv"][$0]) }
    (self.activation, path) = (activation, weights.prefix)
  }

  /// `[N, H, W, C]` → the same shape, in the memory of the input if the caller passes the last reference.
  func callAsFunction(_ x: consuming Tensor, in context: ExecutionContext) throws -> Tensor {
    var hidden = try convolutions[0](copy x, activation: activation, in: context)
    hidden = try convolutions[1](consume hidden, activation: activation, in: context)
    // Whatever the activation, the sum ends in a ReLU.
    let result = try convolutions[2](consume hidden, adding: consume x, activation: .relu, in: context)
    context.observer?(path, result)
    return result
  }
}

/// Source: diffusers' `EncoderTiny`.
private struct TinyEncoder: Sendable {
  private let levels: [(entry: Convolution2D, blocks: [TinyBlock])]
  private let exit: Convolution2D

  init(_ configuration: AutoencoderTinyConfiguration, weights: WeightScope) throws {
    let channels = configuration.encoderChannels, layers = weights["layers"]
    var number = 0
    func next() -> WeightScope {
      defer { number += 1 }
      return layers[number]
    }
    levels = try configuration.encoderBlocks.enumerated().map { level, count in
      let entry =
        level == 0
        ? try Convolution2D(3, channels, kernel: 3, padding: 1, weights: next())
        : try Convolution2D(channels, channels, kernel: 3, stride: 2, padding: 1, bias: false, weights: next())
      return (entry, try (0..<count).map { _ in try TinyBlock(channels, configuration.activation, weights: next()) })
    }
    exit = try Convolution2D(channels, configuration.latentChannels, kernel: 3, padding: 1, weights: next())
  }

  /// `[N, H, W, 3]`, -1…1 → `[N, h, w, latentChannels]`.
  func callAsFunction(_ image: Tensor, in context: ExecutionContext) throws -> Tensor {
    // The network takes values of 0…1.
    var x = try image.scaled(by: 0.5, plus: 0.5, in: context)
    for level in levels {
      x = try level.entry(consume x, in: context)
      for block in level.blocks { x = try block(consume x, in: context) }
    }
    return try exit(consume x, in: context)
  }
}

/// Source: diffusers' `DecoderTiny`.
private struct TinyDecoder: Sendable {
  private let entry: Convolution2D
  private let levels: [(blocks: [TinyBlock], exit: Convolution2D)]
  private let activation: Activation
  private let scale: Int

  init(_ configuration: AutoencoderTinyConfiguration, weights: WeightScope) throws {
    let channels = configuration.decoderChannels, layers = weights["layers"]
    entry = try Convolution2D(configuration.latentChannels, channels, kernel: 3, padding: 1, weights: layers[0])
    // The activation has the number 1, and each upsampling one of its own.
    var number = 2
    func next() -> WeightScope {
      defer { number += 1 }
      return layers[number]
    }
    let last = configuration.decoderBlocks.count - 1
    levels = try configuration.decoderBlocks.enumerated().map { level, count in
      let blocks = try (0..<count).map { _ in try TinyBlock(channels, configuration.activation, weights: next()) }
      if level < last { number += 1 }
      let exit = try Convolution2D(
        channels, level < last ? channels : 3, kernel: 3, padding: 1, bias: level == last, weights: next())
      return (blocks, exit)
    }
    (activation, scale) = (configuration.activation, configuration.upsampling)
  }

  /// `[N, h, w, latentChannels]` → `[N, H, W, 3]`, about -1…1.
  func callAsFunction(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    // A soft clamp: 3 · tanh(z / 3).
    let bounded = try latents.scaled(by: 1 / 3, in: context).activated(.tanh, in: context).scaled(by: 3, in: context)
    var x = try entry(bounded, activation: activation, in: context)
    for (index, level) in levels.enumerated() {
      for block in level.blocks { x = try block(consume x, in: context) }
      let size = index < levels.count - 1 ? (height: scale * x.shape[1], width: scale * x.shape[2]) : nil
      x = try level.exit(consume x, resizedTo: size, in: context)
    }
    // The network gives values of 0…1.
    return try x.scaled(by: 2, plus: -1, in: context)
  }
}
