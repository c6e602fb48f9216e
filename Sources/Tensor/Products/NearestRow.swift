extension CPUEngine {
  public func nearest(_ table: Tensor, to x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let columns = x.shape.columns, entries = table.shape.rows
    precondition(table.shape == [entries, columns] && entries > 0, "Rows of \(columns) values are not near those of \(table.shape).")
    let result = Tensor(uninitialized: x.shape)
    // A column of the table lies together, so that the distances to neighbouring entries are summed at once.
    let transposed = table.permuted([1, 0])
    let rows = x.shape.rows, run = 64
    try context.parallel((rows + run - 1) / run) { task in
      let distances = TensorStorage(count: entries)
      for row in task * run..<min(rows, (task + 1) * run) {
        distances.pointer.update(repeating: 0, count: entries)
        for column in 0..<columns {
          let value = x.pointer[row * columns + column], place = transposed.pointer + column * entries
          for entry in 0..<entries {
            let difference = value - place[entry]
            distances.pointer[entry] += difference * difference
          }
        }
        var nearest = 0
        for entry in 1..<max(entries, 1) where distances.pointer[entry] < distances.pointer[nearest] { nearest = entry }
        result.mutablePointer.advanced(by: row * columns).update(from: table.pointer + nearest * columns, count: columns)
      }
    }
    return result
  }
}

extension Tensor {
  /// Each row replaced by the nearest row of a table, by the sum of squared differences; of equally near ones, by the first.
  ///
  /// - Parameter table: `[M, C]`, M at least 1.
  /// - Returns: `[…, C]`, the shape of this tensor.
  /// - Precondition: the tables' rows are as long as this tensor's.
  /// - Throws: `CancellationError`.
  public func nearest(in table: Tensor, in context: ExecutionContext) throws -> Tensor {
    try context.engine.nearest(table, to: self, in: context)
  }
}
