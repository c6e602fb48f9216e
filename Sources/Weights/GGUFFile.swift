import LatentDiffusionFiles
import Foundation
import Tensor

extension TensorFileFormat {
  /// One GGUF file.
  public static let gguf = TensorFileFormat("GGUF") { url, beginning in
    url.pathExtension.lowercased() == "gguf" || beginning.starts(with: GGUFHeader.signature)
  } opened: {
    try GGUFFile($0)
  }
}

/// A GGUF file, mapped into memory. A tensor is read from disk when it is used, and stays in its blocks.
///
/// Tensors lie one after the other, each at a multiple of the alignment, and fill the file. A kernel's values have the tensor's own order
/// (`BlockOrder.tensor`). ComfyUI-GGUF cuts tensors into rows of 256 and keeps the shape in `comfy.gguf.orig_shape.NAME`; such a tensor has that shape here.
/// Source: the format's specification in ggml's documentation.
public struct GGUFFile: TensorFile {
  /// Where the file is.
  public let url: URL
  /// The file's metadata as text. An array is its elements with commas between them, or `[N values]` if it has more than 64.
  public let metadata: [String: String]
  public let table: WeightTable

  /// The key prefix for the shape of a tensor that was cut into other rows.
  static let shapePrefix = "comfy.gguf.orig_shape."

  /// The types that are read, by their numbers in the format.
  static let elementTypes: [UInt32: String] = [
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K",
    24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16",
  ]

  /// Other types, for messages.
  private static let otherTypes: [UInt32: String] = [
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS",
    29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
  ]

  /// - Throws: `GGUFError`.
  public init(_ url: URL) throws(GGUFError) {
    let path = url.path(percentEncoded: false), file: Data, header: GGUFHeader
    do {
      file = try Data(mapping: url)
    } catch {
      throw .unreadable(path: path, reason: error.reason)
    }
    if !file.starts(with: GGUFHeader.signature), let foreign = ForeignFile(beginning: file.prefix(ForeignFile.signatureBytes)) {
      throw .foreign(path: path, foreign)
    }
    do {
      header = try GGUFHeader(file)
    } catch let error as GGUFHeader.Unsupported {
      throw .unsupported(path: path, reason: error.reason)
    } catch {
      throw .malformedHeader(path: path, reason: (error as? GGUFHeader.Problem)?.reason ?? "\(error)")
    }
    self.url = url
    metadata = header.metadata
    table = WeightTable(try Self.tensors(header, of: file, url: url, path: path))
  }

  private static func tensors(_ header: GGUFHeader, of file: Data, url: URL, path: String) throws(GGUFError) -> [String: StoredTensor] {
    // The header ends within the file, so no sum here overflows but those that are checked.
    let first = aligned(header.bytes, to: header.alignment)
    var tensors = Dictionary<String, StoredTensor>(minimumCapacity: header.entries.count)
    var end = 0
    for entry in header.entries.sorted(by: { ($0.begin, $0.name) < ($1.begin, $1.name) }) {
      func fail(_ reason: String) -> GGUFError { .invalidTensor(path: path, name: entry.name, reason: reason) }
      guard let type = elementTypes[entry.elementType], let format = NumberFormat(named: type) else {
        let type = otherTypes[entry.elementType] ?? "type \(entry.elementType)"
        throw .unknownElementType(path: path, name: entry.name, type: type)
      }
      let rows = Shape(entry.extents.reversed()), shape = try shape(of: entry.name, rows, header.metadata, path: path)
      let count = rows.count
      guard count != Int.max else { throw fail("is too large") }
      guard (entry.extents.first ?? 1) % format.blockValues == 0 else { throw fail("has rows that are no whole blocks of \(type)") }
      let (bytes, overflow) = (count / format.blockValues).multipliedReportingOverflow(by: format.blockBytes)
      guard entry.begin >= end else { throw fail("overlaps another") }
      guard entry.begin == aligned(end, to: header.alignment) else { throw fail("begins at byte \(entry.begin), where none is expected") }
      let (last, isTooLarge) = entry.begin.addingReportingOverflow(bytes)
      guard !overflow, !isTooLarge, last <= Int.max - first - header.alignment else { throw fail("is too large") }
      end = last
      guard first + end <= file.count else { throw .tooShort(path: path, described: first + end, found: file.count) }
      let begin = file.startIndex + first + entry.begin
      tensors[entry.name] = StoredTensor(
        shape: shape, elementType: type, data: file[begin..<begin + bytes], origin: .file(url), isMapped: true, order: .tensor)
    }
    let all = aligned(first + end, to: header.alignment)
    guard file.count <= all else {
      throw .malformedHeader(path: path, reason: "its tensors end at byte \(all), but the file has \(file.count)")
    }
    return tensors
  }

  /// A number of bytes, at most some bytes from `Int.max`, as a multiple of the alignment.
  static func aligned(_ bytes: Int, to alignment: Int) -> Int { (bytes + alignment - 1) / alignment * alignment }

  /// The shape of a tensor that may have been cut into other rows.
  private static func shape(of name: String, _ rows: Shape, _ metadata: [String: String], path: String) throws(GGUFError) -> Shape {
    guard let text = metadata[shapePrefix + name] else { return rows }
    let extents = text.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) ?? -1 }
    let shape = extents.allSatisfy { $0 >= 0 } ? Shape(extents) : [0]
    guard shape.count == rows.count, !extents.isEmpty, extents.count <= 5 else {
      throw .invalidTensor(path: path, name: name, reason: "has the shape \(rows), but \(shapePrefix)\(name) says \(text)")
    }
    return shape
  }
}
