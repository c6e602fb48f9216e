import Foundation
import Tensor

/// Tensors that are spread over several safetensors files, and the `….safetensors.index.json` that says which is where.
public struct ShardedSafetensors: WeightSource {
  /// The files, sorted by path.
  public let shards: [SafetensorsFile]
  let table: WeightTable

  public var names: Set<String> { table.names }
  /// All tensors of the files that the index names.
  public var tensors: [String: StoredTensor] { table.tensors }

  public func tensor(_ name: String, shape: Shape) throws(WeightError) -> WeightTensor { try table.tensor(name, shape: shape) }

  private struct Index: Decodable { let weight_map: [String: String] }

  /// - Parameter index: the index; the shards are looked for beside it.
  /// - Throws: `SafetensorsError`.
  public init(index url: URL) throws(SafetensorsError) {
    let path = url.path(percentEncoded: false)
    let map = try Self.weightMap(url, path: path)
    let folder = url.deletingLastPathComponent()
    var shards: [String: SafetensorsFile] = [:]
    for name in Set(map.values).sorted() {
      // A plain name: an index must not lead out of its folder.
      guard !name.isEmpty, !name.contains("/"), !name.contains("\\"), !name.utf8.contains(0), name != ".", name != ".." else {
        throw .malformedIndex(path: path, reason: "\(name) is not the name of a file beside it")
      }
      let shard = folder.appending(path: name)
      guard FileManager.default.fileExists(atPath: shard.path(percentEncoded: false)) else { throw .missingShard(path: path, shard: name) }
      shards[name] = try SafetensorsFile(shard)
    }
    self.shards = shards.values.sorted { $0.url.path < $1.url.path }
    // The reference reads all that the files have: the index says which files belong together, not what is in them.
    var tensors: [String: StoredTensor] = [:]
    for shard in self.shards { tensors.merge(shard.tensors) { first, _ in first } }
    for (name, file) in map.sorted(by: { $0.key < $1.key }) {
      if let tensor = shards[file]?.tensors[name] { tensors[name] = tensor }
      guard tensors[name] != nil else {
        throw .missingFromShard(name: name, path: folder.appending(path: file).path(percentEncoded: false))
      }
    }
    table = WeightTable(tensors)
  }

  private static func weightMap(_ url: URL, path: String) throws(SafetensorsError) -> [String: String] {
    let json: Data
    do {
      json = try Data(mapping: url)
    } catch {
      throw .unreadable(path: path, reason: "there is no such file, or it is not to be read")
    }
    guard json.count <= SafetensorsFile.longestHeader else { throw .malformedIndex(path: path, reason: "it is too long") }
    do {
      return try JSONDecoder().decode(Index.self, from: json).weight_map
    } catch {
      throw .malformedIndex(path: path, reason: "it has no weight_map from names to files")
    }
  }
}
