import LatentDiffusionFiles
import Foundation
import Tensor

/// Writes tensors as a safetensors file.
public enum SafetensorsWriter {
  /// Writes float32 tensors, whole or not at all, one after the other: there is never a second copy of all.
  ///
  /// - Throws: `FileWriteError`; an existing file is then unchanged.
  /// - Precondition: no tensor is called `__metadata__`, the one name that the format reserves.
  public static func write(_ tensors: [String: Tensor], metadata: [String: String] = [:], to url: URL) throws(FileWriteError) {
    let layout = SafetensorsLayout(tensors.map { .init($0.key, $0.value.shape, as: .float32) }, metadata: metadata)
    do {
      try FileWriting.writeBesideThenRename(to: url) { append in
        try append(layout.header)
        for entry in layout.entries { if let tensor = tensors[entry.name] { try append(WeightTensor(tensor).data) } }
      }
    } catch let error as FileWriteError {
      throw error
    } catch {
      throw .failed(path: url.path(percentEncoded: false), reason: "\(error)")
    }
  }

  /// Writes tensors in their own formats, whole or not at all. A quantised tensor is called `NAME.q8_0` in the file.
  ///
  /// - Throws: `FileWriteError`; an existing file is then unchanged.
  public static func write(_ tensors: [String: WeightTensor], metadata: [String: String] = [:], to url: URL) throws(FileWriteError) {
    let layout = layout(of: tensors, metadata: metadata)
    do {
      // Tensor by tensor, since they may be pages of files that together are larger than memory.
      try FileWriting.writeBesideThenRename(to: url) { append in
        try append(layout.header)
        for entry in layout.entries {
          guard let tensor = tensors[entry.name] else { continue }
          try append(tensor.data)
          tensor.releasePages()
        }
      }
    } catch let error as FileWriteError {
      throw error
    } catch {
      throw .failed(path: url.path(percentEncoded: false), reason: "\(error)")
    }
  }

  /// A file's bytes: the same tensors give the same bytes.
  ///
  /// - Precondition: no tensor is called `__metadata__`, the one name that the format reserves.
  public static func encode(_ tensors: [String: WeightTensor], metadata: [String: String] = [:]) -> Data {
    let layout = layout(of: tensors, metadata: metadata)
    var file = Data(capacity: layout.bytes)
    file.append(layout.header)
    for entry in layout.entries { if let tensor = tensors[entry.name] { file.append(tensor.data) } }
    return file
  }

  private static func layout(of tensors: [String: WeightTensor], metadata: [String: String]) -> SafetensorsLayout {
    SafetensorsLayout(tensors.map { .init($0.key, $0.value.shape, as: $0.value.elementType) }, metadata: metadata)
  }
}
