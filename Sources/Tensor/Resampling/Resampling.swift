extension Tensor {
  /// Pictures at another size, each pixel a copy of the nearest one, as PyTorch's `nearest` rounds: `[N, H, W, C]` → `[N, height, width, C]`.
  /// - Precondition: rank 4, no empty picture.
  public func resizedNearest(height: Int, width: Int) -> Tensor {
    precondition(shape.rank == 4 && shape.count > 0, "\(shape) is no picture.")
    let channels = shape[3]
    let rows = nearestIndices(from: shape[1], to: height), columns = nearestIndices(from: shape[2], to: width)
    let result = Tensor(uninitialized: [shape[0], height, width, channels])
    var target = result.mutablePointer
    for image in 0..<shape[0] {
      for row in rows {
        for column in columns {
          target.update(from: pointer + ((image * shape[1] + row) * shape[2] + column) * channels, count: channels)
          target += channels
        }
      }
    }
    return result
  }
}

/// The gradients of resizing and of a stride.
extension CPUEngine {
  public func foldedNearest(_ x: Tensor, height: Int, width: Int, in context: ExecutionContext) throws -> Tensor {
    let channels = x.shape[3], result = Tensor(repeating: 0, shape: [x.shape[0], height, width, channels])
    let rows = nearestIndices(from: height, to: x.shape[1]), columns = nearestIndices(from: width, to: x.shape[2])
    try context.parallel(x.shape[0] * height) { line in
      let target = result.mutablePointer + line * width * channels
      for row in rows.indices where rows[row] == line % height {
        let source = x.pointer + (line / height * x.shape[1] + row) * x.shape[2] * channels
        for (index, column) in columns.enumerated() { add(channels, source + index * channels, to: target + column * channels) }
      }
    }
    return result
  }

  public func spread(_ x: Tensor, by stride: Int, in context: ExecutionContext) throws -> Tensor {
    let (height, width, channels) = (x.shape[1], x.shape[2], x.shape[3])
    let result = Tensor(repeating: 0, shape: [x.shape[0], (height - 1) * stride + 1, (width - 1) * stride + 1, channels])
    try context.parallel(x.shape[0] * height) { line in
      let row = (line / height * result.shape[1] + line % height * stride) * result.shape[2]
      for column in 0..<width {
        (result.mutablePointer + (row + column * stride) * channels)
          .update(from: x.pointer + (line * width + column) * channels, count: channels)
      }
    }
    return result
  }

  public func zeros(_ shape: Shape, in context: ExecutionContext) throws -> Tensor { Tensor(repeating: 0, shape: shape) }
}
