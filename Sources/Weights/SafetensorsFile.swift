import LatentDiffusionFiles
import Foundation
import Tensor

extension TensorFileFormat {
  /// One safetensors file.
  public static let safetensors = TensorFileFormat("safetensors") { url, _ in
    url.pathExtension == "safetensors"
  } opened: {
    try SafetensorsFile($0)
  }
}

/// A safetensors file, mapped into memory. A tensor is read from disk when it is used.
///
/// The checks are those of the format's reference implementation: tensors lie one after the other without gap or overlap, and fill the file exactly. A tensor
/// in a format that no `NumberFormat` describes is refused when a layer asks for it. A tensor `NAME.q8_0` is listed as `NAME`, of the type `Q8_0` and with
/// the shape of its values (`q4_0` likewise). The scale beside a matrix of 8-bit floats belongs to the matrix and is not listed.
public struct SafetensorsFile: TensorFile {
  /// Where the file is.
  public let url: URL
  /// The file's `__metadata__`.
  public let metadata: [String: String]
  public let table: WeightTable

  /// The longest header that is accepted, as in the reference implementation.
  static let longestHeader = 100_000_000

  private static let headerBeginnings = Array("{ \n\r\t".utf8)

  /// Bits per element of each type in the format.
  static let elementBits = [
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6,
    "F6_E3M2": 6, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64,
  ]

  /// - Throws: `SafetensorsError`.
  public init(_ url: URL) throws(SafetensorsError) {
    let path = url.path(percentEncoded: false)
    let file: Data
    do {
      file = try Data(mapping: url)
    } catch {
      throw .unreadable(path: path, reason: error.reason)
    }
    self.url = url
    (metadata, table) = try Self.parse(file, url: url, path: path)
  }

  private static func parse(_ file: Data, url: URL, path: String) throws(SafetensorsError) -> ([String: String], WeightTable) {
    let announced = file.prefix(8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    let limit = min(longestHeader, max(0, file.count - 8))
    // A safetensors file has its header's brace at the ninth byte, or white space before it.
    if announced > limit || !Self.headerBeginnings.contains(file.dropFirst(8).first ?? 0),
      let foreign = ForeignFile(beginning: file.prefix(ForeignFile.signatureBytes))
    {
      throw .foreign(path: path, foreign)
    }
    guard file.count >= 8 else { throw .tooShort(path: path, bytes: file.count) }
    guard let length = Int(exactly: announced), length <= limit else {
      throw .headerTooLong(path: path, bytes: announced, limit: limit)
    }
    let header: SafetensorsHeader
    do {
      header = try SafetensorsHeader(Array(file[8..<8 + length]))
    } catch {
      throw .malformedHeader(path: path, reason: error.reason)
    }
    let data = file[(8 + length)...]
    var tensors = Dictionary<String, StoredTensor>(minimumCapacity: header.entries.count)
    var end = 0
    for entry in header.entries.sorted(by: { ($0.begin, $0.end) < ($1.begin, $1.end) }) {
      try check(entry, after: end, path: path)
      end = entry.end
      guard end <= data.count else { continue }
      let stored = StoredTensor(
        shape: Shape(entry.shape), elementType: entry.elementType, data: data[data.startIndex + entry.begin..<data.startIndex + end],
        origin: .file(url), isMapped: true)
      let (name, tensor) = try unquantized(entry.name, stored, path: path)
      guard tensors.updateValue(tensor, forKey: name) == nil else {
        throw .invalidTensor(path: path, name: name, reason: "is there twice, once quantised")
      }
    }
    guard end == data.count else { throw .wrongLength(path: path, described: end, found: data.count) }
    return (header.metadata, WeightTable(try ScaledFloats.joined(tensors, path: path)))
  }

  /// The tensor that a tensor of the file encodes.
  private static func unquantized(
    _ name: String, _ stored: StoredTensor, path: String
  ) throws(SafetensorsError) -> (name: String, tensor: StoredTensor) {
    do throws(QuantizedLayout.Problem) {
      return try QuantizedLayout.tensor(name, stored) ?? (name, stored)
    } catch {
      switch error {
      case .unknownForm(let form): throw .unknownForm(path: path, name: name, form: form)
      case .wrongShape(let format):
        let found = "\(stored.elementType) of shape \(stored.shape)"
        throw .invalidTensor(
          path: path, name: name, reason: "is \(found), which is not U8 with blocks of \(format.blockBytes) bytes innermost")
      }
    }
  }

  private static func check(_ entry: SafetensorsHeader.Entry, after end: Int, path: String) throws(SafetensorsError) {
    guard let bits = elementBits[entry.elementType] else {
      throw .unknownElementType(path: path, name: entry.name, type: entry.elementType)
    }
    func fail(_ reason: String) -> SafetensorsError { .invalidTensor(path: path, name: entry.name, reason: reason) }
    guard entry.begin <= entry.end else { throw fail("ends before it begins") }
    guard entry.begin >= end else { throw fail("overlaps another") }
    guard entry.begin == end else { throw fail("begins after a gap of \(entry.begin - end) bytes") }
    let shape = Shape(entry.shape)
    let (size, overflow) = shape.count.multipliedReportingOverflow(by: bits)
    guard shape.count != Int.max, !overflow else { throw fail("is too large") }
    guard size % 8 == 0, size / 8 == entry.end - entry.begin else {
      throw fail("has \(entry.end - entry.begin) bytes, which do not fit its type and shape")
    }
  }
}
