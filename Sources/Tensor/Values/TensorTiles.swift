/// Parts of pictures: cutting them out, putting them back, and blending their edges.
extension Tensor {
  /// A part of pictures: `[N, H, W, C]` → `[N, rows.count, columns.count, C]`.
  /// - Precondition: the part lies within the pictures.
  package func part(rows: Range<Int>, columns: Range<Int>) -> Tensor {
    precondition(
      shape.rank == 4 && rows.lowerBound >= 0 && rows.upperBound <= shape[1] && columns.lowerBound >= 0 && columns.upperBound <= shape[2],
      "Rows \(rows) and columns \(columns) of \(shape).")
    let part: Shape = [shape[0], rows.count, columns.count, shape[3]]
    if let counted = Tensor.counted(part, like: [self]) { return counted }
    let result = Tensor(uninitialized: part)
    let run = columns.count * shape[3]
    for image in 0..<shape[0] {
      for (index, row) in rows.enumerated() {
        let source = pointer + ((image * shape[1] + row) * shape[2] + columns.lowerBound) * shape[3]
        (result.mutablePointer + (image * rows.count + index) * run).update(from: source, count: run)
      }
    }
    return result
  }

  /// Replaces this tensor's pixels from `row` and `column` on by pictures `[N, h, w, C]`.
  /// - Precondition: the pictures fit there.
  package mutating func put(_ part: Tensor, row: Int, column: Int) {
    precondition(
      shape.rank == 4 && part.shape.rank == 4 && part.shape[0] == shape[0] && part.shape[3] == shape[3] && row >= 0 && column >= 0
        && row + part.shape[1] <= shape[1] && column + part.shape[2] <= shape[2],
      "\(part.shape) does not fit into \(shape) at \(row), \(column).")
    guard !part.isCounted, !isCounted else { return }
    if !isKnownUniquelyReferenced(&storage) { self = rows(0..<shape[0]) }
    let run = part.shape[2] * shape[3]
    for image in 0..<shape[0] {
      for index in 0..<part.shape[1] {
        let target = mutablePointer + ((image * shape[1] + row + index) * shape[2] + column) * shape[3]
        target.update(from: part.pointer + (image * part.shape[1] + index) * run, count: run)
      }
    }
  }

  /// The two directions in which parts follow one another.
  package enum Side: Sendable { case below, beside }

  /// These pictures with a seam that is blended with the pictures before them: the last rows (columns) of `other` fade into the first ones of
  /// these. Source: diffusers' `blend_v` and `blend_h`.
  ///
  /// - Parameters:
  ///   - other: `[N, h, w, C]`, of the same extent along the seam.
  ///   - extent: the most rows (columns) of the seam.
  /// - Returns: of this tensor's shape.
  package func blended(_ side: Side, _ other: Tensor, over extent: Int) -> Tensor {
    let axis = side == .below ? 1 : 2
    let extent = min(extent, shape[axis], other.shape[axis])
    guard extent > 0, !isCounted, !other.isCounted else { return self }
    let seam: (Range<Int>, Range<Int>) = side == .below ? (0..<extent, 0..<shape[2]) : (0..<shape[1], 0..<extent)
    let last = other.shape[axis] - extent..<other.shape[axis]
    let before = side == .below ? other.part(rows: last, columns: seam.1) : other.part(rows: seam.0, columns: last)
    let after = part(rows: seam.0, columns: seam.1)
    var result = self
    let channels = shape[3]
    for index in 0..<after.count {
      let place = side == .below ? index / (channels * seam.1.count) % extent : index / channels % extent
      let weight = Double(place) / Double(extent)
      after.mutablePointer[index] = before.pointer[index] * Float(1 - weight) + after.pointer[index] * Float(weight)
    }
    result.put(after, row: 0, column: 0)
    return result
  }
}
