import Tensor

/// Halves the sides by the mean of each square of four pixels. Source: PyTorch's `AvgPool2d` with a kernel and a stride of 2 and `ceil_mode`.
public struct AveragePool2D: Sendable {
  /// Nothing to choose.
  public init() {}

  /// `[N, H, W, C]` → `[N, ⌈H/2⌉, ⌈W/2⌉, C]`.
  /// - Throws: what the engine throws.
  public func callAsFunction(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let columns = try x.paired(in: context)
    // A whole row is then one column of many channels.
    let rows = try columns.reshaped([x.shape[0], 1, x.shape[1], columns.shape[2] * x.shape[3]]).paired(in: context)
    return try rows.reshaped([x.shape[0], rows.shape[2], columns.shape[2], x.shape[3]]).scaled(by: 0.25, in: context)
  }
}

extension Tensor {
  /// The sums of neighbouring columns of `[N, H, W, C]`. A last one without a neighbour counts twice, so that the mean is its own value.
  fileprivate func paired(in context: ExecutionContext) throws -> Tensor {
    let (width, channels) = (shape[2], shape[3])
    var even = self
    if width % 2 == 1 {
      let flat = reshaped([shape[0], shape[1], width * channels])
      let last = try flat.channels((width - 1) * channels..<width * channels, in: context)
      even = try Tensor.concatenated([flat, last], axis: -1, in: context)
    }
    let pairs = even.reshaped([shape[0], shape[1], (width + 1) / 2, 2 * channels])
    return try pairs.channels(0..<channels, in: context).adding(pairs.channels(channels..<2 * channels, in: context), in: context)
  }
}
