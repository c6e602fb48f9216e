import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport

/// A copy of a tiny model in a temporary folder, to be changed; it goes with the value.
final class ModelCopy {
  let folder: URL

  init(_ name: String = "sd1") throws {
    folder = FileManager.default.temporaryDirectory.appending(path: "LatentDiffusionTests-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let original = ReferenceModel(name).folder
    for item in [
      "model_index.json", "scheduler", "low_res_scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "unet", "vae",
      "vqvae",
    ] {
      let source = original.appending(path: item)
      guard FileManager.default.fileExists(atPath: source.path) else { continue }
      try FileManager.default.copyItem(at: source, to: folder.appending(path: item))
    }
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  func remove(_ path: String) throws { try FileManager.default.removeItem(at: folder.appending(path: path)) }

  func write(_ text: String, to path: String) throws { try Data(text.utf8).write(to: folder.appending(path: path)) }

  /// Changes a file's bytes.
  func edit(_ path: String, _ change: (inout Data) -> Void) throws {
    let file = folder.appending(path: path)
    // A copy of the bytes: the file under them is written to.
    var data = Data([UInt8](try Data(contentsOf: file)))
    change(&data)
    try data.write(to: file)
  }

  /// Sets a key of a configuration to a value that is given as JSON; nil takes the key out.
  func set(_ key: String, _ value: String?, in path: String) throws {
    let file = folder.appending(path: path)
    var all = try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any] ?? [:]
    all[key] = try value.map { try JSONSerialization.jsonObject(with: Data($0.utf8), options: [.fragmentsAllowed]) }
    try JSONSerialization.data(withJSONObject: all, options: [.fragmentsAllowed]).write(to: file)
  }

  /// Changes the tensors of a safetensors file.
  func editTensors(_ path: String, _ change: (inout [String: Tensor]) -> Void) throws {
    var tensors = try readTensors(folder.appending(path: path))
    change(&tensors)
    try SafetensorsWriter.write(tensors, to: folder.appending(path: path))
  }

  /// Puts another model's component in the place of this one's.
  func replace(_ component: String, with model: String) throws {
    try remove(component)
    try FileManager.default.copyItem(at: ReferenceModel(model).folder.appending(path: component), to: folder.appending(path: component))
  }
}
