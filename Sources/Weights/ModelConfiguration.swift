import Foundation

/// Problems of a component's `config.json`.
public enum ConfigurationError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The file is not a JSON object, or a key has a value of the wrong type.
  case malformed(component: String, reason: String)
  /// A value with which no model is possible.
  case invalid(component: String, key: String, reason: String)
  /// A value that diffusers supports and this library does not support yet.
  case unsupported(component: String, key: String, value: String)

  public var description: String {
    switch self {
    case .malformed(let component, let reason): "The configuration of \(component) cannot be read: \(reason)."
    case .invalid(let component, let key, let reason): "The configuration of \(component) has a bad \(key): \(reason)."
    case .unsupported(let component, let key, let value):
      "The configuration of \(component) asks for \(key) = \(value), which is not supported."
    }
  }
}

/// A value for all levels of a network, or one for each: `8` or `[5, 10, 20, 20]`.
public struct PerLevel<Value: Decodable & Sendable>: Decodable, Sendable {
  private let values: [Value]
  /// Whether it is a list, one for each level.
  public let isList: Bool

  /// The same value for all levels.
  public init(_ value: Value) { (values, isList) = ([value], false) }
  /// A value for each level.
  public init(levels values: [Value]) { (self.values, isList) = (values, true) }

  /// - Throws: `DecodingError` if it is neither a value nor a list of values.
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let one = try? container.decode(Value.self) {
      (values, isList) = ([one], false)
    } else {
      (values, isList) = (try container.decode([Value].self), true)
    }
  }

  /// A value for each of `levels`; nil where the list has another length.
  public func expanded(to levels: Int) -> [Value]? {
    if !isList { return values.first.map { Array(repeating: $0, count: levels) } }
    return values.count == levels ? values : nil
  }
}

/// Reads a component's `config.json`.
///
/// - Throws: `ConfigurationError.malformed`, which names the key.
public func decodeConfiguration<Configuration: Decodable>(
  _ type: Configuration.Type, component: String, from json: Data
) throws -> Configuration {
  do {
    return try JSONDecoder().decode(type, from: json)
  } catch let DecodingError.typeMismatch(_, context), let DecodingError.valueNotFound(_, context) {
    throw ConfigurationError.malformed(component: component, reason: "\(key(context)) has a value of the wrong type")
  } catch let DecodingError.keyNotFound(key, _) {
    throw ConfigurationError.malformed(component: component, reason: "\(key.stringValue) is missing")
  } catch let DecodingError.dataCorrupted(context) where !context.codingPath.isEmpty {
    throw ConfigurationError.malformed(component: component, reason: "\(key(context)) has a value out of range")
  } catch {
    throw ConfigurationError.malformed(component: component, reason: "it is no JSON object, or a number in it is out of range")
  }

  func key(_ context: DecodingError.Context) -> String { context.codingPath.map(\.stringValue).joined(separator: ".") }
}

/// Checks of configuration values. Each throws a `ConfigurationError`.
public struct ConfigurationCheck: Sendable {
  /// The component's name in errors.
  public let component: String
  /// - Parameter component: its name in errors.
  public init(_ component: String) { self.component = component }

  /// No known model has larger extents, and the product of two such extents fits in an `Int`.
  public static let largestExtent = 1 << 20

  /// A number of channels, layers, heads, … must be from 1 to `largestExtent`.
  /// - Throws: `ConfigurationError.invalid`.
  public func extent(_ value: Int, _ key: String) throws {
    guard (1...Self.largestExtent).contains(value) else {
      throw ConfigurationError.invalid(component: component, key: key, reason: "\(value) is not between 1 and \(Self.largestExtent)")
    }
  }

  /// Checks a condition that must hold in any model.
  ///
  /// - Parameters:
  ///   - condition: what must be true.
  ///   - key: the configuration's key.
  ///   - reason: why the value makes no model, as the end of a sentence.
  /// - Throws: `ConfigurationError.invalid`.
  public func require(_ condition: Bool, _ key: String, _ reason: @autoclosure () -> String) throws {
    guard condition else { throw ConfigurationError.invalid(component: component, key: key, reason: reason()) }
  }

  /// Checks that this library supports a value that diffusers supports.
  /// - Throws: `ConfigurationError.unsupported`.
  public func supported(_ condition: Bool, _ key: String, _ value: @autoclosure () -> String) throws {
    guard condition else { throw ConfigurationError.unsupported(component: component, key: key, value: value()) }
  }
}
