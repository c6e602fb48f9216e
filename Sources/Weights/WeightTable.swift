import Foundation
import Tensor

/// A tensor of a file, whatever the type of its elements.
public struct StoredTensor: Sendable {
  /// The extents, outermost first, as PyTorch has them.
  public let shape: Shape
  /// The type as safetensors names it: `F16`, `I64`, …; `Q8_0`, `Q4_K`, … for blocks as `WeightTensor.data` describes them.
  public let elementType: String
  /// The elements, row-major, little-endian.
  public let data: Data
  /// Where the elements come from.
  public let origin: WeightOrigin
  /// True if the data are pages of a mapped file.
  public let isMapped: Bool
  /// The order of a kernel's values in blocks.
  public let order: BlockOrder
  /// What the values are multiplied by, one for all or one for each row `[O]`; nil for 1.
  let scales: Tensor?

  /// - Parameters:
  ///   - shape: outermost extent first.
  ///   - elementType: as safetensors names it, or the name of a format of blocks.
  ///   - data: the elements. Their number is checked against the shape when they are used.
  ///   - origin: where the elements come from.
  ///   - isMapped: whether the data are pages of a mapped file.
  ///   - order: of a kernel's values in blocks.
  public init(
    shape: Shape, elementType: String, data: Data, origin: WeightOrigin = .memory, isMapped: Bool = false, order: BlockOrder = .product
  ) {
    (self.shape, self.elementType, self.data, self.origin, self.isMapped) = (shape, elementType, data, origin, isMapped)
    (self.order, scales) = (order, nil)
  }

  /// A tensor with other parts, or other scales.
  init(_ other: StoredTensor, shape: Shape, data: Data, scales: Tensor?) {
    (self.shape, self.data, self.scales) = (shape, data, scales)
    (elementType, origin, isMapped, order) = (other.elementType, other.origin, other.isMapped, other.order)
  }

  /// The same bytes under another shape; nil if the counts differ.
  package func reshaped(_ shape: Shape) -> StoredTensor? {
    let keepsRows = shape.dimensions.first == self.shape.dimensions.first || scales.map { $0.count == 1 } ?? true
    guard shape.count == self.shape.count, keepsRows else { return nil }
    return StoredTensor(self, shape: shape, data: data, scales: scales)
  }

  /// A matrix with its axes exchanged, in memory of its own; nil for other tensors. Blocks become float32, since they lie along rows.
  package func transposed() -> StoredTensor? {
    guard shape.rank == 2, let weights else { return nil }
    let (rows, columns) = (shape[0], shape[1]), format = weights.elementType
    let isPlain = format.blockValues == 1
    let bytes = isPlain ? data : WeightTensor(weights.decoded()).data, size = isPlain ? format.blockBytes : 4
    return StoredTensor(
      shape: [columns, rows], elementType: isPlain ? elementType : NumberFormat.float32.name,
      data: bytes.gathered(shape: [columns, rows], strides: [1, columns], elementBytes: size), origin: origin)
  }

  /// Tensors of the same format one after the other along the outermost axis, in memory of its own; nil where they do not fit.
  package static func joined(_ parts: [StoredTensor]) -> StoredTensor? {
    guard let first = parts.first, first.shape.rank > 0 else { return nil }
    let inner = Array(first.shape.dimensions.dropFirst())
    let fit = parts.allSatisfy {
      $0.elementType == first.elementType && $0.order == first.order && $0.scales == nil && Array($0.shape.dimensions.dropFirst()) == inner
    }
    guard fit else { return nil }
    let rows = parts.reduce(0) { $0 + $1.shape[0] }
    return StoredTensor(
      shape: Shape([rows] + inner), elementType: first.elementType, data: parts.reduce(into: Data()) { $0.append($1.data) },
      origin: first.origin, order: first.order)
  }

  /// Splits the outermost axis into equal parts; nil if it cannot be split.
  package func split(_ parts: Int) -> [StoredTensor]? {
    guard let rows = shape.dimensions.first, rows % parts == 0, data.count % parts == 0 else { return nil }
    let bytes = data.count / parts
    guard bytes % (stored?.blockBytes ?? 1) == 0 else { return nil }
    let part = Shape([rows / parts] + shape.dimensions.dropFirst())
    return (0..<parts).map { index in
      let start = data.startIndex + index * bytes
      let scales = scales.map { all in
        all.count == 1 ? all : Tensor(Array(all.elements[index * rows / parts..<(index + 1) * rows / parts]))
      }
      return StoredTensor(self, shape: part, data: data[start..<start + bytes], scales: scales)
    }
  }
}

// MARK: what layers get

extension StoredTensor {
  /// The format in the file; nil for types that hold no numbers, or that have a meaning only together with other tensors (`F4`, `F6_…`, `C64`).
  var stored: NumberFormat? { NumberFormat(named: elementType) }

  /// The format in which layers get the elements. Layers know no scales and no blocks that reach from one row into the next. Such blocks are cut into their
  /// groups. Where that does not help, matrices are widened to half precision, and vectors to float32.
  var format: NumberFormat? {
    guard let stored else { return nil }
    let candidates = scales == nil ? [stored, stored.regrouped].compactMap(\.self) : []
    return candidates.first { $0.blockValues == 1 || $0.bytes(of: shape, order: order) != nil } ?? (shape.rank > 1 ? .float16 : .float32)
  }

  /// The tensor for layers; nil if its elements are not numbers, or not as many as the shape says.
  var weights: WeightTensor? {
    guard let stored, let format else { return nil }
    if let bytes = stored.bytes(of: shape, order: order) {
      guard data.count == bytes else { return nil }
      let tensor = WeightTensor(shape: shape, elementType: stored, data: data, isMapped: isMapped, order: order)
      guard let scales else { return tensor }
      defer { tensor.releasePages() }
      return tensor.scaled(by: scales).widened(to: format)
    }
    if let regrouped = WeightTensor(regrouping: data, from: stored, shape: shape, order: order) { return regrouped }
    let (blocks, rest) = shape.count.quotientAndRemainder(dividingBy: stored.blockValues)
    guard blocks > 0, rest == 0, data.count % stored.blockBytes == 0, data.count / stored.blockBytes == blocks else { return nil }
    let rows = WeightTensor(shape: [blocks, stored.blockValues], elementType: stored, data: data, isMapped: isMapped)
    return rows.widened(to: format)?.reshaped(shape)
  }
}

extension WeightTensor {
  /// The values in this format, or in float32 if it cannot hold them.
  fileprivate func widened(to format: NumberFormat) -> WeightTensor? { (try? converted(to: format)) ?? (try? converted(to: .float32)) }
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

  /// The sizes of the tensors in a form; nil: as they are.
  package func extents(as form: WeightForm?, by rule: QuantizationRule) -> [TensorExtent] {
    tensors.compactMap { name, stored in
      guard stored.data.count > 0, let held = stored.format else { return nil }
      return TensorExtent(
        name: name, shape: stored.shape,
        elementType: form?.elementType(of: held, shape: stored.shape, name: name, rule: rule) ?? held,
        storedType: stored.stored ?? held, order: form == nil ? stored.order : .product)
    }
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
