import Foundation

/// Operations that move elements without changing them.
extension Tensor {
  /// The rows `range` of the outermost axis: `[N, …]` → `[range.count, …]`.
  /// - Precondition: the range lies within the axis.
  public func rows(_ range: Range<Int>) -> Tensor {
    precondition(shape.rank > 0 && range.lowerBound >= 0 && range.upperBound <= shape[0], "Rows \(range) of \(shape).")
    let row = count / max(shape[0], 1)
    let part = Shape([range.count] + shape.dimensions.dropFirst())
    if let counted = Tensor.counted(part, like: [self]) { return counted }
    let result = Tensor(uninitialized: part)
    result.mutablePointer.update(from: pointer + range.lowerBound * row, count: range.count * row)
    return result
  }

  /// The channels `range` of the innermost axis: `[…, C]` → `[…, range.count]`.
  /// - Precondition: the range lies within the axis.
  public func channels(_ range: Range<Int>) -> Tensor {
    precondition(shape.rank > 0 && range.lowerBound >= 0 && range.upperBound <= shape.columns, "Channels \(range) of \(shape).")
    let part = Shape(shape.dimensions.dropLast() + [range.count])
    if let counted = Tensor.counted(part, like: [self]) { return counted }
    let result = Tensor(uninitialized: part)
    for row in 0..<shape.rows {
      result.mutablePointer.advanced(by: row * range.count)
        .update(from: pointer + row * shape.columns + range.lowerBound, count: range.count)
    }
    return result
  }

  /// The tensors concatenated along `axis` (negative: from the end).
  /// - Precondition: there is at least one, and all other extents are equal.
  public static func concatenated(_ tensors: [Tensor], axis: Int) -> Tensor {
    precondition(!tensors.isEmpty, "Nothing to concatenate.")
    let rank = tensors[0].shape.rank
    let axis = axis < 0 ? rank + axis : axis
    func others(_ tensor: Tensor) -> [Int] { tensor.shape.dimensions.enumerated().filter { $0.offset != axis }.map(\.element) }
    precondition(
      tensors.allSatisfy { $0.shape.rank == rank && others($0) == others(tensors[0]) },
      "\(tensors.map(\.shape)) do not fit along axis \(axis).")
    var dimensions = tensors[0].shape.dimensions
    dimensions[axis] = tensors.reduce(0) { $0 + $1.shape[axis] }
    if let counted = counted(Shape(dimensions), like: tensors) { return counted }
    let result = Tensor(uninitialized: Shape(dimensions))
    let outer = Shape(Array(dimensions[..<axis])).count
    let inner = Shape(Array(dimensions[(axis + 1)...])).count
    var offset = 0
    for tensor in tensors {
      let run = tensor.shape[axis] * inner
      for i in 0..<outer {
        result.mutablePointer.advanced(by: i * dimensions[axis] * inner + offset).update(from: tensor.pointer + i * run, count: run)
      }
      offset += run
    }
    return result
  }

  /// The tensor repeated `times` times along the outermost axis: `[N, …]` → `[times · N, …]`.
  public func repeated(_ times: Int) -> Tensor { times == 1 ? self : Tensor.concatenated(Array(repeating: self, count: times), axis: 0) }

  /// The axes in another order: axis `i` of the result is axis `order[i]` of this tensor.
  /// - Precondition: `order` names each axis once.
  public func permuted(_ order: [Int]) -> Tensor {
    precondition(order.sorted() == Array(0..<shape.rank), "\(order) is no order of the axes of \(shape).")
    if let counted = Tensor.counted(Shape(order.map { shape[$0] }), like: [self]) { return counted }
    let result = Tensor(uninitialized: Shape(order.map { shape[$0] }))
    guard count > 0 else { return result }
    var strides = [Int](repeating: 1, count: shape.rank)
    for axis in stride(from: shape.rank - 2, through: 0, by: -1) { strides[axis] = strides[axis + 1] * shape[axis + 1] }
    let steps = order.map { strides[$0] }
    let extents = result.shape.dimensions
    var index = [Int](repeating: 0, count: shape.rank)
    var source = 0
    for target in 0..<count {
      result.mutablePointer[target] = pointer[source]
      var axis = shape.rank - 1
      while axis >= 0 {
        index[axis] += 1
        source += steps[axis]
        if index[axis] < extents[axis] { break }
        source -= steps[axis] * extents[axis]
        index[axis] = 0
        axis -= 1
      }
    }
    return result
  }

  /// `[N, C, H, W]`, as files and PyTorch have it, to `[N, H, W, C]`.
  public func channelsLast() -> Tensor { permuted([0, 2, 3, 1]) }

  /// `[N, H, W, C]` to `[N, C, H, W]`, as files and PyTorch have it.
  public func channelsFirst() -> Tensor { permuted([0, 3, 1, 2]) }
}
