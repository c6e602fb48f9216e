import Foundation

/// What a file says of its adapter beside the tensors: PEFT's `LoraConfig`, in the header as diffusers writes it (`lora_adapter_metadata`) or in
/// the `adapter_config.json` beside the file.
struct AdapterSettings: Sendable {
  private struct Value: Decodable {
    var number: Double?
    var isTrue: Bool?
    var names: [String] = []
    var numbers: [String: Double] = [:]

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      isTrue = try? container.decode(Bool.self)
      number = try? container.decode(Double.self)
      names = (try? container.decode([String].self)) ?? []
      numbers = (try? container.decode([String: Double].self)) ?? [:]
    }
  }

  private let values: [String: Value]

  init(of file: any TensorFile) throws(AdapterError) {
    let path = file.url.path(percentEncoded: false)
    let beside = file.url.deletingLastPathComponent().appending(path: "adapter_config.json")
    var json = file.metadata["lora_adapter_metadata"].map { Data($0.utf8) }
    if json == nil, file.url.deletingPathExtension().lastPathComponent == "adapter_model" { json = try? Data(contentsOf: beside) }
    guard let json else {
      values = [:]
      return
    }
    do { values = try JSONDecoder().decode([String: Value].self, from: json) } catch {
      throw .malformedMetadata(path: path, reason: "is no JSON object")
    }
    for (key, value) in values where key.hasSuffix("_pattern") {
      guard value.numbers.keys.allSatisfy({ Self.isPlain(Self.stem($0)) }) else {
        throw .malformedMetadata(path: path, reason: "has a \(key) with regular expressions, which are not supported")
      }
    }
  }

  /// The alpha of a module and the scale that follows from it; nil if nothing is said.
  ///
  /// - Parameters:
  ///   - component: `unet`, `text_encoder`, …; diffusers writes it before each key.
  ///   - module: in PEFT's names.
  ///   - rank: of the module's factors.
  func scale(component: String, module: String, rank: Int?) -> Float? {
    guard let alpha = number("lora_alpha", "alpha_pattern", component, module) ?? number("alpha", "alpha_pattern", component, module),
      let rank = number("r", "rank_pattern", component, module) ?? rank.map(Double.init), rank > 0
    else { return nil }
    let usesRoot = value("use_rslora", component)?.isTrue ?? false
    return Float(alpha / (usesRoot ? rank.squareRoot() : rank))
  }

  /// Whether PEFT's (IA)³ factors of a module belong to its inputs.
  func isFeedForward(component: String, module: String) -> Bool {
    value("feedforward_modules", component)?.names.contains { Self.matches($0, module) } ?? false
  }

  private func value(_ key: String, _ component: String) -> Value? { values["\(component).\(key)"] ?? values[key] }

  private func number(_ key: String, _ pattern: String, _ component: String, _ module: String) -> Double? {
    let special = value(pattern, component)?.numbers.filter { Self.matches(Self.stem($0.key), module) }.max { $0.key.count < $1.key.count }
    return special?.value ?? value(key, component)?.number
  }

  private static func matches(_ name: String, _ module: String) -> Bool { module == name || module.hasSuffix("." + name) }

  /// The name that a pattern matches at a module's end, if it is a plain one.
  private static func stem(_ pattern: String) -> String {
    var name = pattern.replacing("\\.", with: ".")
    if name.hasPrefix("^") { name.removeFirst() }
    if name.hasSuffix("$") { name.removeLast() }
    return name
  }

  private static func isPlain(_ name: String) -> Bool { name.allSatisfy { $0.isLetter || $0.isNumber || ["_", ".", "-"].contains($0) } }
}
