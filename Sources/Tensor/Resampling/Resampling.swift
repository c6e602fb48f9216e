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
