import Foundation
import Tensor

/// A part of a model that is made of its configuration and its weights: a U-Net, an autoencoder, a text encoder.
public protocol ModelComponent: Sendable {
  /// The classes of diffusers or transformers that it stands for.
  static var classNames: [String] { get }
  /// What 8 bits suit; nothing, without an implementation.
  static var quantization: QuantizationRule { get }

  /// - Parameters:
  ///   - configuration: the JSON of `config.json`.
  ///   - weights: its tensors, under the names of the newest diffusers and transformers.
  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  init(configuration: Data, weights: WeightScope) throws
}

extension ModelComponent {
  public static var quantization: QuantizationRule { .none }
}

/// Which tensors of a component are held in 8 bits where those are asked for; the others keep 16.
public struct QuantizationRule: Sendable {
  /// Beginnings of names, of the whole or after a dot, that keep 16 bits; nil: all do.
  private let fragile: [String]?

  /// No tensor.
  public static let none = QuantizationRule(fragile: nil)

  /// All matrices and kernels but those that are named: what the whole picture passes through at once, and tables that are no products.
  ///
  /// - Parameter fragile: beginnings of names, of the whole or after a dot, in diffusers and in other layouts.
  public static func matrices(except fragile: [String]) -> QuantizationRule { QuantizationRule(fragile: fragile) }

  private init(fragile: [String]?) { self.fragile = fragile }

  func quantizes(_ name: String) -> Bool {
    fragile.map { names in !names.contains { name.hasPrefix($0) || name.contains("." + $0) } } ?? false
  }
}

/// The classes that components can be made of, by their names in `model_index.json`. A value: a copy with another class changes nothing elsewhere.
public struct ComponentRegistry: Sendable {
  private var types: [String: any ModelComponent.Type] = [:]

  /// - Parameter types: of which a later one takes the place of an earlier one with the same class name.
  public init(_ types: [any ModelComponent.Type] = []) { for type in types { register(type) } }

  /// Adds a class, under all its names.
  public mutating func register(_ type: any ModelComponent.Type) { for name in type.classNames { types[name] = type } }

  /// The type of a class; nil for one that nobody registered.
  public subscript(className: String?) -> (any ModelComponent.Type)? { className.flatMap { types[$0] } }

  /// Whether a class is one of those without weights: schedulers, tokenizers, what prepares pictures.
  static func isWeightless(_ className: String?) -> Bool {
    let endings = ["Scheduler", "Tokenizer", "TokenizerFast", "Processor", "ProcessorFast", "FeatureExtractor"]
    return className.map { name in endings.contains { name.hasSuffix($0) } } ?? false
  }
}
