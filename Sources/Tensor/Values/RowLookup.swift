/// Rows that are looked up in a table, and the gradient of the lookup.
extension Tensor {
  /// The rows of these numbers of the outermost axis, each as often as it is named: `[N, …]` → `[indices.count, …]`.
  /// - Precondition: the numbers lie within the axis.
  public func rows(at indices: [Int]) -> Tensor {
    precondition(shape.rank > 0 && indices.allSatisfy { (0..<shape[0]).contains($0) }, "Rows \(indices) of \(shape).")
    let part = Shape([indices.count] + shape.dimensions.dropFirst()), row = count / max(shape[0], 1)
    if let counted = Tensor.counted(part, like: [self]) { return counted }
    let result = Tensor(uninitialized: part)
    for (place, index) in indices.enumerated() {
      result.mutablePointer.advanced(by: place * row).update(from: pointer + index * row, count: row)
    }
    return result
  }

  /// The same through the context's engine.
  /// - Precondition: the numbers lie within the axis.
  /// - Throws: what the engine throws.
  public func rows(at indices: [Int], in context: ExecutionContext) throws -> Tensor {
    try context.engine.rows(at: indices, of: self, in: context)
  }
}

extension CPUEngine {
  public func rows(at indices: [Int], of table: Tensor, in context: ExecutionContext) throws -> Tensor { table.rows(at: indices) }

  /// Adds up in the order of the indices, so the sums are the same bytes for any number of threads.
  public func rowSums(_ x: Tensor, at indices: [Int], count: Int, in context: ExecutionContext) throws -> Tensor {
    let row = x.count / max(indices.count, 1), result = Tensor(shape: Shape([count] + x.shape.dimensions.dropFirst()))
    for (place, index) in indices.enumerated() {
      let sum = result.mutablePointer + index * row, part = x.pointer + place * row
      for column in 0..<row { sum[column] += part[column] }
    }
    return result
  }
}
