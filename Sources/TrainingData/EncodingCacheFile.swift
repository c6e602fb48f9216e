import Foundation
import LatentDiffusionComponents
import LatentDiffusionFiles
import LatentDiffusionWeights
import Tensor

/// The entries of an `EncodingCache`: tensors named `KIND.KEY.PART`, and the hash of the model that made those of a kind.
///
/// Parts of a picture are `mean` and `log_variance`, or `latents`, `[1, h, w, C]`; parts of a text are `contexts.0` and so on, `pooled`, and `inputs.NAME`.
struct EncodingCacheFile: Sendable {
  /// The parts of an entry, by name.
  private typealias Entry = [String: WeightTensor]
  private var entries: [CacheReport.Kind: [String: Entry]] = [:]
  private var models: [String: String] = [:]
  /// Bytes that are in memory and not in the file yet.
  private(set) var waitingBytes = 0
  private var isWritten = true
  private let path: String

  private static let form = (key: "form", value: "LatentDiffusion encodings 1")
  /// Of an entry that has no tensors, as texts of models without conditions have none.
  private static let nothing = "nothing"

  /// - Throws: `TrainingDataError.noCache`.
  init(at url: URL?) throws(TrainingDataError) {
    path = url?.path(percentEncoded: false) ?? "Memory"
    guard let url, FileManager.default.fileExists(atPath: path) else { return }
    let file: SafetensorsFile
    do { file = try SafetensorsFile(url) } catch { throw .noCache(path: path, reason: "it is no whole safetensors file") }
    guard file.metadata[Self.form.key] == Self.form.value else {
      throw .noCache(path: path, reason: "it does not say of itself that it is \(Self.form.value)")
    }
    models = file.metadata.filter { $0.key != Self.form.key }
    for (name, stored) in file.tensors {
      let names = name.split(separator: ".", maxSplits: 2).map(String.init)
      guard names.count == 3, let kind = CacheReport.Kind(rawValue: names[0]), let tensor = try? file.tensor(name, shape: stored.shape),
        tensor.elementType == .float32
      else { throw .noCache(path: path, reason: "it holds \(name)") }
      entries[kind, default: [:]][names[1], default: [:]][names[2]] = tensor
    }
  }

  func holds(_ key: String, of kind: CacheReport.Kind) -> Bool { entries[kind]?[key] != nil }

  /// Drops all entries of a kind but those of these keys that this model made.
  mutating func keep(_ kind: CacheReport.Kind, _ wanted: Set<String>, model: ContentHash) -> CacheReport {
    let held = entries[kind] ?? [:]
    let isStale = models[kind.rawValue] != model.description
    let kept = isStale ? [:] : held.filter { wanted.contains($0.key) }
    if isStale || kept.count < held.count {
      (entries[kind], models[kind.rawValue], isWritten) = (kept, model.description, false)
    }
    return CacheReport(
      kind: kind, path: path, kept: kept.count, dropped: isStale ? 0 : held.count - kept.count, stale: isStale ? held.count : 0)
  }

  mutating func add(_ picture: EncodedPicture, as key: String) {
    switch picture {
    case .distribution(let gaussian): add(["mean": gaussian.mean, "log_variance": gaussian.logVariance], as: key, to: .pictures)
    case .latents(let latents): add(["latents": latents], as: key, to: .pictures)
    }
  }

  mutating func add(_ text: Conditioning, as key: String) {
    var parts: [String: Tensor] = [:]
    for (index, context) in text.contexts.enumerated() { parts["contexts.\(index)"] = context }
    parts["pooled"] = text.pooled
    for (name, input) in text.inputs { parts["inputs.\(name)"] = input }
    add(parts.isEmpty ? [Self.nothing: Tensor([0])] : parts, as: key, to: .texts)
  }

  private mutating func add(_ parts: [String: Tensor], as key: String, to kind: CacheReport.Kind) {
    entries[kind, default: [:]][key] = parts.mapValues { WeightTensor($0) }
    waitingBytes += parts.values.reduce(0) { $0 + 4 * $1.count }
    isWritten = false
  }

  /// Writes all entries, if there is anything new. From then on they are pages of the file.
  /// - Throws: `FileWriteError`; the old file is unchanged then.
  mutating func write(to url: URL?) throws {
    guard let url, !isWritten else { return }
    var tensors: [String: WeightTensor] = [:]
    for (kind, entries) in entries {
      for (key, entry) in entries {
        for (part, tensor) in entry { tensors["\(kind.rawValue).\(key).\(part)"] = tensor }
      }
    }
    try SafetensorsWriter.write(tensors, metadata: models.merging([Self.form.key: Self.form.value]) { old, _ in old }, to: url)
    self = try EncodingCacheFile(at: url)
  }

  /// Nil where there is no such entry.
  func encodedPicture(_ key: String) throws(TrainingDataError) -> EncodedPicture? {
    guard let entry = entries[.pictures]?[key] else { return nil }
    if let latents = try tensor("latents", of: entry) { return .latents(latents) }
    guard let mean = try tensor("mean", of: entry), let logVariance = try tensor("log_variance", of: entry), mean.shape == logVariance.shape
    else { throw .noCache(path: path, reason: "parts of a picture are missing") }
    return .distribution(DiagonalGaussian(mean: mean, logVariance: logVariance))
  }

  /// Nil where there is no such entry.
  func conditioning(_ key: String) throws(TrainingDataError) -> Conditioning? {
    guard let entry = entries[.texts]?[key] else { return nil }
    var result = Conditioning(rows: 1, pooled: try tensor("pooled", of: entry))
    while let context = try tensor("contexts.\(result.contexts.count)", of: entry) { result.contexts.append(context) }
    for part in entry.keys where part.hasPrefix("inputs.") { result.inputs[String(part.dropFirst(7))] = try tensor(part, of: entry) }
    return result
  }

  private func tensor(_ part: String, of entry: Entry) throws(TrainingDataError) -> Tensor? {
    guard let stored = entry[part] else { return nil }
    let tensor = stored.decoded()
    stored.releasePages()
    guard tensor.isFinite, tensor.shape.dimensions.first == 1 else { throw .noCache(path: path, reason: "an entry is damaged") }
    return tensor
  }
}
