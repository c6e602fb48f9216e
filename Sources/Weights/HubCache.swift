import Foundation

extension ModelFolder {
  /// The folder that a folder of Hugging Face's cache (`models--OWNER--NAME`) stands for: the snapshot that `refs/main` names, or the only
  /// one. Any other folder stands for itself. Source: huggingface_hub's cache layout; the files of a snapshot are links to `blobs`.
  ///
  /// - Throws: `ModelFilesError.noSnapshot`.
  static func snapshot(in folder: URL) throws(ModelFilesError) -> URL {
    let path = folder.path(percentEncoded: false)
    let names = (try? FileManager.default.contentsOfDirectory(atPath: path)) ?? []
    guard names.contains("snapshots"), !names.contains("model_index.json"), !names.contains("config.json") else { return folder }
    let snapshots = folder.appending(path: "snapshots", directoryHint: .isDirectory)
    let found = ((try? FileManager.default.contentsOfDirectory(atPath: snapshots.path(percentEncoded: false))) ?? []).sorted()
    let main = try? String(contentsOf: folder.appending(path: "refs/main"), encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
    if let main {
      guard isPlain(main), found.contains(main) else {
        throw .noSnapshot(folder: path, reason: "its main snapshot, \(main), is not there; download the model again")
      }
      return snapshots.appending(path: main, directoryHint: .isDirectory)
    }
    guard let only = found.first, found.count == 1 else {
      let reason =
        found.isEmpty ? "it has no snapshots" : "it has several snapshots and no refs/main; give one of \(found.joined(separator: ", "))"
      throw .noSnapshot(folder: path, reason: reason)
    }
    return snapshots.appending(path: only, directoryHint: .isDirectory)
  }
}
