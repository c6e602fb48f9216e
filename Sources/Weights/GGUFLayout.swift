import Foundation
import Tensor

/// Where the tensors of a GGUF file lie. This is known before their values are.
struct GGUFLayout {
  /// A tensor of the file.
  struct Entry {
    let name: String
    let shape: Shape
    let elementType: String
    let bytes: Int

    init(_ name: String, _ shape: Shape, _ elementType: String, bytes: Int) {
      (self.name, self.shape, self.elementType, self.bytes) = (name, shape, elementType, bytes)
    }

    /// The zeros after it, so that the next tensor is aligned.
    var padding: Int { GGUFFile.aligned(bytes, to: GGUFHeader.usualAlignment) - bytes }
  }

  /// In the order of their data.
  let entries: [Entry]
  /// The bytes before the data.
  let header: Data

  /// - Throws: `GGUFError.notWritable` for a tensor that the format cannot hold.
  init(_ entries: [Entry], metadata: [String: String]) throws(GGUFError) {
    self.entries = entries.sorted { $0.name < $1.name }
    let types = Dictionary(GGUFFile.elementTypes.map { ($0.value, $0.key) }) { first, _ in first }
    var header = GGUFHeader.signature
    header.append(UInt32(3))
    header.append(UInt64(entries.count))
    header.append(UInt64(metadata.count))
    for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
      header.append(text: key)
      header.append(GGUFHeader.textType)
      header.append(text: value)
    }
    var begin = 0
    for entry in self.entries {
      guard let type = types[entry.elementType] else {
        throw .notWritable(name: entry.name, reason: "its elements are \(entry.elementType), a type that the format lacks")
      }
      guard entry.shape.rank <= GGUFHeader.mostExtents else {
        throw .notWritable(name: entry.name, reason: "it has \(entry.shape.rank) axes, and the format has \(GGUFHeader.mostExtents)")
      }
      header.append(text: entry.name)
      header.append(UInt32(entry.shape.rank))
      for extent in entry.shape.dimensions.reversed() { header.append(UInt64(extent)) }
      header.append(type)
      header.append(UInt64(begin))
      begin += entry.bytes + entry.padding
    }
    header.append(Data(count: GGUFFile.aligned(header.count, to: GGUFHeader.usualAlignment) - header.count))
    self.header = header
  }
}

extension Data {
  fileprivate mutating func append<Number: FixedWidthInteger>(_ number: Number) {
    for byte in 0..<MemoryLayout<Number>.size { append(UInt8(truncatingIfNeeded: number >> (8 * Number(byte)))) }
  }

  fileprivate mutating func append(text: String) {
    append(UInt64(text.utf8.count))
    append(contentsOf: text.utf8)
  }
}
