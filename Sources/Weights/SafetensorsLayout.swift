import Foundation
import Tensor

/// Where the tensors of a safetensors file lie. This is known before their values are.
struct SafetensorsLayout {
  /// A tensor of the file.
  struct Entry {
    /// The tensor's name for readers. The name in the file may have a suffix.
    let name: String
    let storedName: String
    let elementType: String
    let shape: Shape
    let bytes: Int

    /// A tensor that is stored unchanged.
    init(_ name: String, _ tensor: StoredTensor) {
      (self.name, storedName, elementType, shape, bytes) = (name, name, tensor.elementType, tensor.shape, tensor.data.count)
    }

    /// - Parameter type: the format that the tensor will have.
    init(_ name: String, _ shape: Shape, as type: NumberFormat) {
      self.name = name
      let isQuantized = type.blockValues > 1
      storedName = isQuantized ? QuantizedLayout.storedName(name, type) : name
      elementType = isQuantized ? "U8" : type.name
      self.shape = isQuantized ? QuantizedLayout.storedShape(shape, type) : shape
      bytes = type.bytes(of: shape) ?? 0
    }

    fileprivate var bits: Int { SafetensorsFile.elementBits[elementType] ?? 0 }
  }

  /// In the order of their data: the widest elements first, so that all are aligned to their size, then by name.
  let entries: [Entry]
  /// The bytes before the data.
  let header: Data
  /// The size of the whole file.
  let bytes: Int

  /// - Precondition: no tensor is called `__metadata__`, the one name that the format reserves.
  init(_ entries: [Entry], metadata: [String: String]) {
    precondition(!entries.contains { $0.name == "__metadata__" }, "A tensor cannot be called __metadata__.")
    self.entries = entries.sorted { ($1.bits, $0.storedName) < ($0.bits, $1.storedName) }
    var members: [String] = []
    if !metadata.isEmpty {
      let pairs = metadata.sorted { $0.key < $1.key }.map { "\(Self.quoted($0.key)):\(Self.quoted($0.value))" }
      members.append("\"__metadata__\":{\(pairs.joined(separator: ","))}")
    }
    var end = 0
    for entry in self.entries {
      let shape = entry.shape.dimensions.map(String.init).joined(separator: ",")
      let offsets = "\(end),\(end + entry.bytes)"
      members.append(
        "\(Self.quoted(entry.storedName)):{\"dtype\":\"\(entry.elementType)\",\"shape\":[\(shape)],\"data_offsets\":[\(offsets)]}")
      end += entry.bytes
    }
    var text = Data("{\(members.joined(separator: ","))}".utf8)
    text.append(Data(repeating: UInt8(ascii: " "), count: (8 - text.count % 8) % 8))
    var header = Data(capacity: 8 + text.count)
    let length = UInt64(text.count)
    for byte in 0..<8 { header.append(UInt8(truncatingIfNeeded: length >> (8 * UInt64(byte)))) }
    header.append(text)
    self.header = header
    bytes = header.count + end
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
