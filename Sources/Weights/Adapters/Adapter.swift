import Foundation
import Tensor

/// An adapter's file: changes to parameters of a model that is not in it. LoRA, LoCon, LoHa, LoKr, DoRA, (IA)³ and full differences, under the names of
/// kohya's scripts, LyCORIS, diffusers and PEFT.
///
/// Source: Hu et al. 2021 (LoRA), Hyeon-Woo et al. 2021 (LoHa), Yeh et al. 2023 (LyCORIS: LoCon, LoKr), Liu et al. 2024 (DoRA), Liu et al. 2022 ((IA)³).
public struct Adapter: Sendable {
  /// Where the file is.
  public let url: URL
  /// The changes, sorted by the names that the file has for modules.
  let modules: [AdapterModule]
  /// Tensors that are part of no change, sorted.
  let unknown: [String]
  let settings: AdapterSettings
  var path: String { url.path(percentEncoded: false) }

  /// Reads a file's names; its values are read when the adapter is applied.
  ///
  /// - Throws: `AdapterError`, and what opening the file throws: `SafetensorsError`.
  public init(contentsOf url: URL) throws {
    try self.init(try TensorFileFormat.open(url))
  }

  /// - Throws: `AdapterError`.
  init(_ file: any TensorFile) throws(AdapterError) {
    url = file.url
    let path = file.url.path(percentEncoded: false)
    var modules: [String: [AdapterRole: AdapterTensor]] = [:]
    var unknown: [String] = []
    for (name, stored) in file.tensors.sorted(by: { $0.key < $1.key }) {
      guard let key = AdapterKey(name), modules[key.module]?[key.role] == nil else {
        unknown.append(name)
        continue
      }
      modules[key.module, default: [:]][key.role] = AdapterTensor(path: path, key: name, stored: stored)
    }
    // A parameter of a model is called `weight` too. Only beside `on_input` is it a gain.
    for (name, tensors) in modules where tensors[.onInput] == nil {
      guard let gain = modules[name]?.removeValue(forKey: .gain) else { continue }
      unknown.append(gain.key)
      if modules[name]?.isEmpty ?? false { modules[name] = nil }
    }
    guard !modules.isEmpty else { throw .noAdapter(path: path, example: unknown.first) }
    self.modules = modules.map { AdapterModule(name: $0.key, path: path, tensors: $0.value) }.sorted { $0.name < $1.name }
    self.unknown = unknown.sorted()
    settings = try AdapterSettings(of: file)
  }
}

/// An adapter and how strongly it is applied.
public struct AdapterUse: Sendable {
  /// What is applied.
  public var adapter: Adapter
  /// A factor of the change, 1 for the whole of it. Less than 0 turns it round.
  public var weight: Double

  /// - Parameter weight: a factor of the change.
  public init(_ adapter: Adapter, weight: Double = 1) { (self.adapter, self.weight) = (adapter, weight) }
}

/// The tensors that change one module.
struct AdapterModule: Sendable {
  /// As the file writes it.
  let name: String
  let path: String
  let tensors: [AdapterRole: AdapterTensor]

  func optional(_ role: AdapterRole) -> AdapterTensor? { tensors[role] }

  func required(_ role: AdapterRole) throws(AdapterError) -> AdapterTensor {
    guard let tensor = tensors[role] else { throw .incomplete(path: path, module: name, missing: role.rawValue) }
    return tensor
  }
}

/// A tensor of an adapter's file, with its name for messages.
struct AdapterTensor: Sendable {
  let path: String
  let key: String
  let stored: StoredTensor
  var shape: Shape { stored.shape }

  /// - Throws: `AdapterError` if it holds no numbers, or values that are not finite.
  func values() throws(AdapterError) -> WeightTensor {
    guard let weights = stored.weights else { throw .unsupportedElementType(path: path, key: key, type: stored.elementType) }
    guard weights.isFinite else { throw .notFinite(path: path, key: key) }
    return weights
  }

  /// The only element.
  func number() throws(AdapterError) -> Float {
    guard shape.count == 1 else { throw wrongShape(for: "a number", []) }
    return try values().decoded().elements[0]
  }

  func wrongShape(for layer: String, _ expected: Shape) -> AdapterError {
    .wrongShape(path: path, key: key, found: shape, layer: layer, expected: expected)
  }
}
