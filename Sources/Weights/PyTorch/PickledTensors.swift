import Foundation

/// The tensors of a pickle by name, and what else it says in plain words.
///
/// Names of nested dictionaries are joined: `a.b`. The contents of `state_dict` stand for the file itself, as in diffusers'
/// `load_single_file_checkpoint`; what is beside it (steps, optimisers) keeps its own names. Numbers and texts in dictionaries become
/// metadata: `global_step`.
struct PickledTensors {
  private(set) var tensors: [String: PickledTensor] = [:]
  private(set) var metadata: [String: String] = [:]
  private let pickle: Pickle
  /// How many bytes all names may still have. A pickle says each name once, but its objects can refer to one another so often that no end is in sight.
  private var budget: Int

  private static let longestName = 4096
  private static let deepest = 64

  /// - Parameter bytes: the length of the pickle.
  init(_ pickle: Pickle, bytes: Int) throws(PickleProblem) {
    self.pickle = pickle
    budget = max(bytes, 1 << 12) * 16
    try visit(pickle.root, name: "", depth: 0, isNamed: true)
  }

  /// - Parameter isNamed: whether a dictionary names the value. Numbers in lists are no metadata.
  private mutating func visit(_ value: PickleValue, name: String, depth: Int, isNamed: Bool) throws(PickleProblem) {
    budget -= 1 + name.utf8.count
    guard budget >= 0, depth <= Self.deepest, name.utf8.count <= Self.longestName else {
      throw .unsupported("its dictionaries are nested too deeply or too often")
    }
    guard case .object(let place) = value else {
      if isNamed, !name.isEmpty, let text = value.plain { metadata[name] = text }
      return
    }
    switch pickle.objects[place] {
    case .tensor(let tensor):
      guard !name.isEmpty, name != "__metadata__" else { throw .unsupported("it holds a tensor without a name of its own") }
      guard tensors.updateValue(tensor, forKey: name) == nil else { throw .malformed("two of its tensors are called \(name)") }
    case .dictionary(let entries): try visit(entries, name: name, depth: depth)
    case .parameters(let inner): try visit(inner, name: name, depth: depth + 1, isNamed: true)
    case .tuple(let items), .list(let items):
      for (index, item) in items.enumerated() { try visit(item, name: joined(name, "\(index)"), depth: depth + 1, isNamed: false) }
    case .storage, .opaque: break
    }
  }

  private mutating func visit(
    _ entries: [(key: PickleValue, value: PickleValue)], name: String, depth: Int
  ) throws(PickleProblem) {
    // As in Python, the last value of a key counts.
    var last: [String: PickleValue] = [:]
    for (key, value) in entries {
      guard let word = key.plain else { throw .unsupported("a key of its dictionaries is no name") }
      last[word] = value
    }
    for (word, value) in last {
      let isWhole = name.isEmpty && word == "state_dict" && isDictionary(value)
      try visit(value, name: isWhole ? "" : joined(name, word), depth: depth + 1, isNamed: true)
    }
  }

  private func joined(_ name: String, _ word: String) -> String { name.isEmpty ? word : name + "." + word }

  private func isDictionary(_ value: PickleValue) -> Bool {
    guard case .object(let place) = value, case .dictionary = pickle.objects[place] else { return false }
    return true
  }
}

extension PickleValue {
  /// A plain value in words; nil for objects and bytes.
  fileprivate var plain: String? {
    switch self {
    case .none, .bytes, .object: nil
    case .truth(let value): value ? "true" : "false"
    case .number(let value): String(value)
    case .float(let value): String(value)
    case .text(let text), .global(let text): text
    }
  }
}
