import Foundation

/// The keys of a derived configuration of which tensors' shapes say nothing. The configuration of a component of the same class knows better.
public struct ConfigurationGuesses: Sendable {
  /// Keys whose values hold for any component of the class that plays with the same others, such as `scaling_factor`.
  public var keys: Set<String>
  /// Keys whose values hold where the component has the same widths, such as the number of heads.
  public var keysOfWidth: Set<String>
  /// The key with the widths.
  public var width: String
  /// Keys that the tensors tell to be absent where they are.
  public var absent: Set<String>

  /// - Parameters:
  ///   - keys: whose values hold for any component of the class that plays with the same others.
  ///   - keysOfWidth: whose values hold where the component has the same widths.
  ///   - width: the key with the widths.
  ///   - absent: keys that the tensors tell to be absent where they are.
  public init(_ keys: Set<String> = [], ofWidth keysOfWidth: Set<String> = [], width: String = "", absent: Set<String> = []) {
    (self.keys, self.keysOfWidth, self.width, self.absent) = (keys, keysOfWidth, width, absent)
  }

  /// A derived configuration, with the values of another one for what is guessed and for what it does not have.
  ///
  /// - Throws: `ConfigurationError.malformed` where the other is no JSON object.
  func completed(_ derived: Data, by other: Data, component: String) throws -> Data {
    let (own, known) = (try Self.object(derived, component), try Self.object(other, component))
    func text(_ value: Any?) -> String { value.map { "\($0)" } ?? "" }
    let guessed = text(own[width]) == text(known[width]) ? keys.union(keysOfWidth) : keys
    var result = known.filter { !absent.contains($0.key) }
    for (key, value) in own where !guessed.contains(key) || known[key] == nil { result[key] = value }
    guard JSONSerialization.isValidJSONObject(result) else {
      throw ConfigurationError.malformed(component: component, reason: "a number in it is out of range")
    }
    return try JSONSerialization.data(withJSONObject: result, options: [.sortedKeys])
  }

  private static func object(_ json: Data, _ component: String) throws -> [String: Any] {
    guard let object = try? JSONSerialization.jsonObject(with: json) as? [String: Any] else {
      throw ConfigurationError.malformed(component: component, reason: "it is no JSON object")
    }
    return object
  }
}
