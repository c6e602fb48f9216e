import Foundation
import Tensor

/// A tensor of a file, whatever the type of its elements.
public struct StoredTensor: Sendable {
  /// The extents, outermost first, as PyTorch has them.
  public let shape: Shape
  /// The type as safetensors names it: `F16`, `I64`, …; `Q8_0` for blocks as `WeightTensor.data` describes them.
  public let elementType: String
  /// The elements, row-major, little-endian.
  public let data: Data
  /// Where the elements come from.
  public let origin: WeightOrigin
  /// True if the data are pages of a mapped file.
  public let isMapped: Bool

  /// - Parameters:
  ///   - shape: outermost extent first.
  ///   - elementType: as safetensors names it, or `Q8_0`.
  ///   - data: the elements. Their number is checked against the shape when they are used.
  ///   - origin: where the elements come from.
  ///   - isMapped: whether the data are pages of a mapped file.
  public init(shape: Shape, elementType: String, data: Data, origin: WeightOrigin = .memory, isMapped: Bool = false) {
    self.shape = shape
    self.elementType = elementType
    self.data = data
    self.origin = origin
    self.isMapped = isMapped
  }

  /// The format of the elements; nil for types that hold no numbers, or that have a meaning only together with other tensors (`F4`, `F6_…`, `C64`).
  var format: NumberFormat? { NumberFormat(named: elementType) }

  /// The tensor for layers; nil if its elements are not numbers, or not as many as the shape says.
  var weights: WeightTensor? {
    guard let format, data.count == format.bytes(of: shape) else { return nil }
    return WeightTensor(shape: shape, elementType: format, data: data, isMapped: isMapped)
  }

  /// The same bytes under another shape; nil if the counts differ.
  package func reshaped(_ shape: Shape) -> StoredTensor? {
    guard shape.count == self.shape.count else { return nil }
    return StoredTensor(shape: shape, elementType: elementType, data: data, origin: origin, isMapped: isMapped)
  }

  /// A matrix with its axes exchanged, in memory of its own; nil for other tensors, and for elements in blocks.
  package func transposed() -> StoredTensor? {
    guard shape.rank == 2, let format, format.blockValues == 1, data.count == format.bytes(of: shape) else { return nil }
    let (rows, columns, size) = (shape[0], shape[1], format.blockBytes)
    var result = Data(capacity: data.count)
    for column in 0..<columns {
      for row in 0..<rows {
        let start = data.startIndex + (row * columns + column) * size
        result.append(data[start..<start + size])
      }
    }
    return StoredTensor(shape: [columns, rows], elementType: elementType, data: result, origin: origin)
  }

  /// Splits the outermost axis into equal parts; nil if it cannot be split.
  package func split(_ parts: Int) -> [StoredTensor]? {
    guard let rows = shape.dimensions.first, rows % parts == 0, data.count % parts == 0 else { return nil }
    let bytes = data.count / parts
    let part = Shape([rows / parts] + shape.dimensions.dropFirst())
    return (0..<parts).map { index in
      let start = data.startIndex + index * bytes
      return StoredTensor(
        shape: part, elementType: elementType, data: data[start..<start + bytes], origin: origin, isMapped: isMapped)
    }
  }
}

/// Tensors by name. An opened checkpoint becomes such a table, with the names that layers ask for.
public struct WeightTable: WeightSource {
  /// By name.
  public let tensors: [String: StoredTensor]
  public let names: Set<String>

  /// - Parameter tensors: by name.
  public init(_ tensors: [String: StoredTensor]) {
    self.tensors = tensors
    names = Set(tensors.keys)
  }

  public func origin(of name: String) -> WeightOrigin { tensors[name]?.origin ?? .memory }

  public func tensor(_ name: String, shape: Shape) throws(WeightError) -> WeightTensor {
    guard let stored = tensors[name] else { throw .missing(name: name, similar: nearestName(to: name)) }
    guard stored.format != nil else { throw .unsupportedElementType(name: name, type: stored.elementType) }
    guard stored.shape == shape, let tensor = stored.weights else {
      throw .wrongShape(name: name, expected: shape, found: stored.shape)
    }
    return tensor
  }

  /// The name that shares the longest beginning and end with the wanted one, if they are at least three quarters of the longer name.
  private func nearestName(to name: String) -> String? {
    guard names.count <= 20_000 else { return nil }
    let wanted = Array(name.utf8)
    var best: (name: String, shared: Int)?
    for candidate in names {
      let start = zip(wanted, candidate.utf8).prefix { $0 == $1 }.count
      let end = zip(wanted.reversed(), candidate.utf8.reversed()).prefix { $0 == $1 }.count
      let shared = min(start + end, wanted.count, candidate.utf8.count)
      // Ties are decided alphabetically, so that the message is the same every time.
      if best.map({ shared > $0.shared || (shared == $0.shared && candidate < $0.name) }) ?? true { best = (candidate, shared) }
    }
    return best.flatMap { 4 * $0.shared >= 3 * max(wanted.count, $0.name.utf8.count) ? $0.name : nil }
  }
}
