import Foundation
import Tensor

/// A part of a model that is built from a configuration and weights: a U-Net, an autoencoder, a text encoder.
public protocol ModelComponent: Sendable {
  /// The classes of diffusers or transformers that it implements.
  static var classNames: [String] { get }
  /// Which tensors can have 8 bits. The default is none.
  static var quantization: QuantizationRule { get }
  /// Whether it is made of such a configuration, where several types implement a class. True without an implementation.
  ///
  /// - Parameter configuration: the JSON of `config.json`.
  static func takes(_ configuration: Data) -> Bool

  /// - Parameters:
  ///   - configuration: the JSON of `config.json`.
  ///   - weights: its tensors, under the names of the newest diffusers and transformers.
  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  init(configuration: Data, weights: WeightScope) throws
}

extension ModelComponent {
  public static var quantization: QuantizationRule { .none }
  public static func takes(_ configuration: Data) -> Bool { true }
}

/// Which tensors of a component have 8 bits if the caller asks for 8 bits. The others keep 16.
public struct QuantizationRule: Sendable {
  /// A tensor keeps 16 bits if its name, or a part of it after a dot, begins with one of these; nil: all tensors do.
  private let fragile: [String]?

  /// No tensor has 8 bits.
  public static let none = QuantizationRule(fragile: nil)

  /// All matrices and kernels except the listed ones: layers that the whole picture passes through at once, and lookup tables.
  ///
  /// - Parameter fragile: how the names of the exceptions begin, at the start or after a dot, in diffusers' and in other layouts.
  public static func matrices(except fragile: [String]) -> QuantizationRule { QuantizationRule(fragile: fragile) }

  private init(fragile: [String]?) { self.fragile = fragile }

  func quantizes(_ name: String) -> Bool {
    fragile.map { names in !names.contains { name.hasPrefix($0) || name.contains("." + $0) } } ?? false
  }
}

/// The component types by their class names in `model_index.json`. It is a value: registering a class in a copy changes nothing elsewhere.
public struct ComponentRegistry: Sendable {
  private var types: [String: [any ModelComponent.Type]] = [:]

  /// - Parameter types: a later type goes before an earlier one with the same class name.
  public init(_ types: [any ModelComponent.Type] = []) { for type in types { register(type) } }

  /// Adds a class, under all its names.
  public mutating func register(_ type: any ModelComponent.Type) { for name in type.classNames { types[name, default: []].append(type) } }

  /// The type for a class name, whatever the configuration; nil if none is registered.
  public subscript(className: String?) -> (any ModelComponent.Type)? { className.flatMap { types[$0]?.last } }

  /// The type for a class name that takes a configuration; nil if none does.
  public subscript(className: String?, configuration: Data) -> (any ModelComponent.Type)? {
    className.flatMap { types[$0]?.last { $0.takes(configuration) } }
  }

  /// Whether a class has no weights: schedulers, tokenizers, image processors.
  package static func isWeightless(_ className: String?) -> Bool {
    let endings = ["Scheduler", "Tokenizer", "TokenizerFast", "Processor", "ProcessorFast", "FeatureExtractor"]
    return className.map { name in endings.contains { name.hasSuffix($0) } } ?? false
  }
}
