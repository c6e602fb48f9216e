import LatentDiffusionFiles
import Foundation
import Tensor

extension TensorFileFormat {
  /// Several files by their index: `….safetensors.index.json` or `….bin.index.json`.
  public static let shardIndex = TensorFileFormat("index of shards") { url, _ in
    url.pathExtension == "json" && [".safetensors.", ".bin."].contains { url.lastPathComponent.contains($0) }
  } opened: {
    try ShardedTensorFile(index: $0)
  }
}

/// Tensors in several files, and the `….index.json` that says which file has which tensor.
public struct ShardedTensorFile: TensorFile {
  /// Where the index is.
  public let url: URL
  /// The files, sorted by path.
  public let shards: [any TensorFile]
  /// All tensors of the files that the index names.
  public let table: WeightTable

  /// The metadata of the first file.
  public var metadata: [String: String] { shards.first?.metadata ?? [:] }
  public var parts: [any TensorFile] { shards }

  private struct Index: Decodable { let weight_map: [String: String] }

  /// - Parameter index: the index. The shards must lie beside it.
  /// - Throws: `SafetensorsError`, and what the format of the shards throws.
  public init(index url: URL) throws {
    let path = url.path(percentEncoded: false)
    let map = try Self.weightMap(url, path: path)
    let folder = url.deletingLastPathComponent()
    var shards: [String: any TensorFile] = [:]
    for name in Set(map.values).sorted() {
      // Only a plain name is allowed, because an index must not lead out of its folder.
      guard !name.isEmpty, !name.contains("/"), !name.contains("\\"), !name.utf8.contains(0), name != ".", name != ".." else {
        throw SafetensorsError.malformedIndex(path: path, reason: "\(name) is not the name of a file beside it")
      }
      let shard = folder.appending(path: name)
      guard FileManager.default.fileExists(atPath: shard.path(percentEncoded: false)) else {
        throw SafetensorsError.missingShard(path: path, shard: name)
      }
      shards[name] = try TensorFileFormat.open(shard, as: [.pyTorch, .safetensors])
    }
    self.url = url
    self.shards = shards.values.sorted { $0.url.path < $1.url.path }
    // Like the reference, this takes all tensors of the files. The index only says which files belong together.
    var tensors: [String: StoredTensor] = [:]
    for shard in self.shards { tensors.merge(shard.tensors) { first, _ in first } }
    for (name, file) in map.sorted(by: { $0.key < $1.key }) {
      if let tensor = shards[file]?.tensors[name] { tensors[name] = tensor }
      guard tensors[name] != nil else {
        throw SafetensorsError.missingFromShard(name: name, path: folder.appending(path: file).path(percentEncoded: false))
      }
    }
    table = WeightTable(tensors)
  }

  private static func weightMap(_ url: URL, path: String) throws(SafetensorsError) -> [String: String] {
    let json: Data
    do {
      json = try Data(mapping: url)
    } catch {
      throw .unreadable(path: path, reason: error.reason)
    }
    guard json.count <= SafetensorsFile.longestHeader else { throw .malformedIndex(path: path, reason: "it is too long") }
    do {
      return try JSONDecoder().decode(Index.self, from: json).weight_map
    } catch {
      throw .malformedIndex(path: path, reason: "it has no weight_map from names to files")
    }
  }
}
