import Foundation

/// What a file says of its adapter beside the tensors: PEFT's `LoraConfig`, in the header as diffusers writes it (`lora_adapter_metadata`) or in
/// the `adapter_config.json` beside the file.
struct AdapterSettings: Sendable {
  private struct Value: Decodable {
    var number: Double?
    var isTrue: Bool?
    var text: String?
    var names: [String] = []
    var numbers: [String: Double] = [:]

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      isTrue = try? container.decode(Bool.self)
      number = try? container.decode(Double.self)
      text = try? container.decode(String.self)
      names = (try? container.decode([String].self)) ?? []
      numbers = (try? container.decode([String: Double].self)) ?? [:]
    }
  }

  private let values: [String: Value]
  /// By key, in the order of the file: the first pattern that matches a module counts.
  private let patterns: [String: [(pattern: ModulePattern, number: Double)]]

  init(of file: any TensorFile) throws(AdapterError) {
    let path = file.url.path(percentEncoded: false)
    let beside = file.url.deletingLastPathComponent().appending(path: "adapter_config.json")
    var json = file.metadata["lora_adapter_metadata"].map { Data($0.utf8) }
    if json == nil, file.url.deletingPathExtension().lastPathComponent == "adapter_model" { json = try? Data(contentsOf: beside) }
    guard let json else {
      (values, patterns) = ([:], [:])
      return
    }
    let order: [String: [String]]
    do {
      (values, order) = (try JSONDecoder().decode([String: Value].self, from: json), try Self.patternKeys(json))
    } catch {
      throw .malformedMetadata(path: path, reason: "is no JSON object, or one of its patterns is none")
    }
    var patterns: [String: [(ModulePattern, Double)]] = [:]
    for (key, names) in order {
      for name in names {
        guard let number = values[key]?.numbers[name] else { throw .malformedMetadata(path: path, reason: "has a \(key) without numbers") }
        do { patterns[key, default: []].append((try ModulePattern(name), number)) } catch {
          throw Self.unusable(name, of: key, error, path)
        }
      }
    }
    self.patterns = patterns
    for (key, value) in values where key.hasSuffix(Self.feedForwardKey) {
      guard let text = value.text else { continue }
      do { _ = try Regex(text) } catch { throw Self.unusable(text, of: key, error, path) }
    }
  }

  private static let feedForwardKey = "feedforward_modules"

  private static func unusable(_ pattern: String, of key: String, _ error: any Error, _ path: String) -> AdapterError {
    .malformedMetadata(path: path, reason: "has \(pattern) in its \(key), which is no regular expression that can be used (\(error))")
  }

  /// The patterns of alphas and ranks by key, in their order, which a decoder does not keep.
  private static func patternKeys(_ json: Data) throws(JSONScanner.Problem) -> [String: [String]] {
    var scanner = JSONScanner(Array(json)), keys: [String: [String]] = [:]
    try scanner.object { scanner, key throws(JSONScanner.Problem) in
      guard ["alpha_pattern", "rank_pattern"].contains(where: key.hasSuffix) else { return try scanner.skipValue() }
      guard try !scanner.skipsNull() else { return }
      try scanner.object { scanner, name throws(JSONScanner.Problem) in
        if keys[key]?.contains(name) != true { keys[key, default: []].append(name) }
        try scanner.skipValue()
      }
    }
    return keys
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

  /// Whether PEFT's (IA)³ factors of a module belong to its inputs: a list has ends of names, a text is an expression.
  func isFeedForward(component: String, module: String) -> Bool {
    guard let value = value(Self.feedForwardKey, component) else { return false }
    return Self.spellings(of: module, in: component).contains { module in
      if let text = value.text { return (try? Regex(text).wholeMatch(in: module)) != nil }
      return value.names.contains { module.hasSuffix($0) }
    }
  }

  private func value(_ key: String, _ component: String) -> Value? { values["\(component).\(key)"] ?? values[key] }

  private func number(_ key: String, _ pattern: String, _ component: String, _ module: String) -> Double? {
    let modules = Self.spellings(of: module, in: component)
    let special = (patterns["\(component).\(pattern)"] ?? patterns[pattern])?.first { modules.contains(where: $0.pattern.matches) }
    return special?.number ?? value(key, component)?.number
  }

  /// transformers 4 has a tower within the model.
  private static func spellings(of module: String, in component: String) -> [String] {
    component.hasPrefix("text_encoder") ? [module, "text_model." + module] : [module]
  }
}
