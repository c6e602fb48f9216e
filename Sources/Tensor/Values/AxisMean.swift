extension Tensor {
  /// The mean along an axis, which goes away: `[…, n, …]` → `[…, …]`. It is summed up in double precision.
  ///
  /// - Parameter axis: a negative one counts from the end.
  /// - Precondition: the axis exists and is not empty.
  package func mean(axis: Int, in context: ExecutionContext) -> Tensor {
    let axis = axis < 0 ? shape.rank + axis : axis
    precondition(shape.dimensions.indices.contains(axis) && shape[axis] > 0, "\(shape) has no mean along axis \(axis).")
    let (outer, length) = (Shape(Array(shape.dimensions[..<axis])).count, shape[axis])
    let inner = Shape(Array(shape.dimensions[(axis + 1)...])).count
    var dimensions = shape.dimensions
    dimensions.remove(at: axis)
    if let counted = Tensor.counted(Shape(dimensions), like: [self]) { return counted }
    let result = Tensor(uninitialized: Shape(dimensions))
    // A piece is some neighbouring results of one outer index. A task has several pieces if they are small.
    let width = max(1, min(inner, 512)), pieces = (inner + width - 1) / width
    let perTask = max(1, 8192 / (width * length)), count = outer * pieces
    context.parallelToTheEnd((count + perTask - 1) / perTask) { task in
      var sums = [Double](repeating: 0, count: width)
      for piece in task * perTask..<min(count, (task + 1) * perTask) {
        let (row, begin) = (piece / pieces, piece % pieces * width)
        let columns = min(width, inner - begin)
        for column in 0..<columns { sums[column] = 0 }
        for index in 0..<length {
          let source = pointer + (row * length + index) * inner + begin
          for column in 0..<columns { sums[column] += Double(source[column]) }
        }
        let place = result.mutablePointer + row * inner + begin
        for column in 0..<columns { place[column] = Float(sums[column] / Double(length)) }
      }
    }
    return result
  }
}
