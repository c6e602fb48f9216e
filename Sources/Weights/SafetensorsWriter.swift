import Foundation
import Tensor

/// Writes tensors as a safetensors file.
public enum SafetensorsWriter {
  /// Writes float32 tensors, whole or not at all.
  ///
  /// - Throws: `FileWriteError`; what was there before is then still there.
  public static func write(_ tensors: [String: Tensor], metadata: [String: String] = [:], to url: URL) throws(FileWriteError) {
    try write(tensors.mapValues { WeightTensor($0) }, metadata: metadata, to: url)
  }

  /// Writes tensors with the element types they have, whole or not at all.
  ///
  /// - Throws: `FileWriteError`; what was there before is then still there.
  public static func write(_ tensors: [String: WeightTensor], metadata: [String: String] = [:], to url: URL) throws(FileWriteError) {
    try encode(tensors, metadata: metadata).writeBesideThenRename(to: url)
  }

  /// A file's bytes: the same tensors give the same bytes.
  ///
  /// - Precondition: no tensor is called `__metadata__`, the one name that the format keeps for itself.
  public static func encode(_ tensors: [String: WeightTensor], metadata: [String: String] = [:]) -> Data {
    precondition(tensors["__metadata__"] == nil, "A tensor cannot be called __metadata__.")
    // The widest elements first, so that all lie at multiples of their size.
    let ordered = tensors.sorted { ($1.value.elementType.bytes, $0.key) < ($0.value.elementType.bytes, $1.key) }
    var members: [String] = []
    if !metadata.isEmpty {
      let pairs = metadata.sorted { $0.key < $1.key }.map { "\(quoted($0.key)):\(quoted($0.value))" }
      members.append("\"__metadata__\":{\(pairs.joined(separator: ","))}")
    }
    var end = 0
    for (name, tensor) in ordered {
      let shape = tensor.shape.dimensions.map(String.init).joined(separator: ",")
      let offsets = "\(end),\(end + tensor.data.count)"
      members.append("\(quoted(name)):{\"dtype\":\"\(tensor.elementType.rawValue)\",\"shape\":[\(shape)],\"data_offsets\":[\(offsets)]}")
      end += tensor.data.count
    }
    var header = Data("{\(members.joined(separator: ","))}".utf8)
    header.append(Data(repeating: UInt8(ascii: " "), count: (8 - header.count % 8) % 8))
    var file = Data(capacity: 8 + header.count + end)
    let length = UInt64(header.count)
    for byte in 0..<8 { file.append(UInt8(truncatingIfNeeded: length >> (8 * UInt64(byte)))) }
    file.append(header)
    for (_, tensor) in ordered { file.append(tensor.data) }
    return file
  }

  private static func quoted(_ text: String) -> String {
    var result = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"", "\\":
        result += "\\"
        result.unicodeScalars.append(scalar)
      case "\0"..<" ":
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result + "\""
  }
}
