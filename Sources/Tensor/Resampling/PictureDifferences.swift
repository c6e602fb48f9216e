/// Linear maps of pictures `[N, H, W, C]`, each with its transpose, which takes a gradient the way back.
extension Tensor {
  /// The two directions in which pixels have neighbours.
  package enum PixelAxis: Sendable, CaseIterable { case vertical, horizontal }

  /// Each pixel's next neighbour minus the pixel: `[N, H, W, C]` → `[N, H - 1, W, C]` vertically, `[N, H, W - 1, C]` horizontally.
  /// - Precondition: pictures with at least one pixel along the axis.
  package func differences(_ axis: PixelAxis, in context: ExecutionContext) -> Tensor {
    let (height, width, row) = pictureExtents()
    let step = axis == .vertical ? row : shape[3]
    let (rows, run) = axis == .vertical ? (height - 1, row) : (height, row - shape[3])
    precondition(rows >= 0 && run >= 0, "\(shape) has no neighbours.")
    let result = Tensor(uninitialized: [shape[0], rows, axis == .vertical ? width : width - 1, shape[3]])
    context.parallelToTheEnd(shape[0] * rows) { task in
      let source = pointer + (task / rows * height + task % rows) * row, place = result.mutablePointer + task * run
      for index in 0..<run { place[index] = source[index + step] - source[index] }
    }
    return result
  }

  /// Adds the transpose of `differences` to pictures of the size that the differences were taken of: each difference counts at the neighbour,
  /// and negatively at the pixel.
  /// - Precondition: the shapes belong together.
  package func addDifferences(_ axis: PixelAxis, to pictures: inout Tensor, in context: ExecutionContext) {
    let (height, width, row) = pictures.pictureExtents()
    precondition(
      shape == [pictures.shape[0], axis == .vertical ? height - 1 : height, axis == .vertical ? width : width - 1, pictures.shape[3]],
      "\(shape) are no differences of \(pictures.shape).")
    let (count, run) = (shape[1], shape[2] * shape[3]), step = axis == .vertical ? row : shape[3]
    let differences = pointer
    pictures.update(rowLength: row, in: context) { part in
      let place = part.targets[0]
      for number in 0..<part.count / row {
        let line = part.begin / row + number, y = line % height, begin = number * row
        // Vertically the differences of a pixel lie in two rows, horizontally in one.
        let own = differences + (line / height * count + y) * run
        if y < count { for index in 0..<run { place[begin + index] -= own[index] } }
        let other = axis == .vertical ? own - run : own, shift = axis == .vertical ? 0 : step
        if axis == .horizontal || y > 0 { for index in 0..<run { place[begin + shift + index] += other[index] } }
      }
    }
  }

  /// The means of squares of four pixels: `[N, H, W, C]` → `[N, ⌊H/2⌋, ⌊W/2⌋, C]`. A last odd row or column is left out.
  /// Source: PyTorch's `avg_pool2d` with a kernel of 2.
  package func averagePooled(in context: ExecutionContext) -> Tensor {
    let (height, width, row) = pictureExtents(), channels = shape[3]
    let result = Tensor(uninitialized: [shape[0], height / 2, width / 2, channels])
    let rows = height / 2
    context.parallelToTheEnd(shape[0] * rows) { task in
      let upper = pointer + (task / rows * height + task % rows * 2) * row, lower = upper + row
      let place = result.mutablePointer + task * (width / 2) * channels
      for column in 0..<width / 2 {
        let left = column * 2 * channels, right = left + channels
        for channel in 0..<channels {
          place[column * channels + channel] =
            0.25 * ((upper[left + channel] + upper[right + channel]) + (lower[left + channel] + lower[right + channel]))
        }
      }
    }
    return result
  }

  /// Adds the transpose of `averagePooled` to pictures of the size that was pooled: a quarter of each mean to each of its four pixels.
  /// - Precondition: the shapes belong together.
  package func addAveragePooled(to pictures: inout Tensor, in context: ExecutionContext) {
    let (height, width, row) = pictures.pictureExtents(), channels = pictures.shape[3]
    precondition(shape == [pictures.shape[0], height / 2, width / 2, channels], "\(shape) are no means of \(pictures.shape).")
    let means = pointer
    pictures.update(rowLength: row, in: context) { part in
      let place = part.targets[0]
      for number in 0..<part.count / row {
        let line = part.begin / row + number, y = line % height
        guard y / 2 < height / 2 else { continue }
        let source = means + (line / height * (height / 2) + y / 2) * (width / 2) * channels
        for column in 0..<width / 2 * 2 {
          for channel in 0..<channels {
            place[number * row + column * channels + channel] += 0.25 * source[column / 2 * channels + channel]
          }
        }
      }
    }
  }

  /// Height, width, and the elements of a row of pixels.
  private func pictureExtents() -> (height: Int, width: Int, row: Int) {
    precondition(shape.rank == 4 && shape.count > 0, "\(shape) is no picture.")
    return (shape[1], shape[2], shape[2] * shape[3])
  }
}
