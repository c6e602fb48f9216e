import Tensor

/// Halves the sides by a filter of ⅛, ⅜, ⅜ and ⅛ along each. Beyond its edges a picture is mirrored. Source: diffusers' `KDownsample2D`.
public struct KDownsample2D: Sendable {
  private let path: String

  /// It has no parameters.
  /// - Parameter path: what observers call it.
  public init(path: String) { self.path = path }

  /// `[N, H, W, C]` → `[N, H/2, W/2, C]`.
  /// - Precondition: both sides are even.
  /// - Throws: what the engine throws.
  public func callAsFunction(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = try x.changed { line in
      let count = line.shape[1] / 2, channels = line.shape[2]
      let pairs = try line.mirrored(in: context).reshaped([line.shape[0], count + 1, 2 * channels])
      let first = try pairs.channels(0..<channels, in: context), second = try pairs.channels(channels..<2 * channels, in: context)
      let outer = try first.places(0..<count, in: context).adding(second.places(1..<count + 1, in: context), in: context)
      let inner = try second.places(0..<count, in: context).adding(first.places(1..<count + 1, in: context), in: context)
      return try outer.scaled(by: 1 / 8, in: context).adding(inner.scaled(by: 3 / 8, in: context), in: context)
    }
    context.observer?(path, result)
    return result
  }
}

/// Doubles the sides by the transpose of `KDownsample2D`'s filter: each new pixel is three quarters of the nearest old one and a quarter of the next. Source:
/// diffusers' `KUpsample2D`.
public struct KUpsample2D: Sendable {
  private let path: String

  /// It has no parameters.
  /// - Parameter path: what observers call it.
  public init(path: String) { self.path = path }

  /// `[N, H, W, C]` → `[N, 2H, 2W, C]`.
  /// - Precondition: both sides are at least 2.
  /// - Throws: what the engine throws.
  public func callAsFunction(_ x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = try x.changed { line in
      let count = line.shape[1], wide = try line.mirrored(in: context), nearest = try line.scaled(by: 3 / 4, in: context)
      func new(_ next: Range<Int>) throws -> Tensor {
        try wide.places(next, in: context).scaled(by: 1 / 4, in: context).adding(nearest, in: context)
      }
      let pairs = try Tensor.concatenated([new(0..<count), new(2..<count + 2)], axis: -1, in: context)
      return pairs.reshaped([line.shape[0], 2 * count, line.shape[2]])
    }
    context.observer?(path, result)
    return result
  }
}

extension Tensor {
  /// The same change of each row's pixels and then of each column's, for `[N, H, W, C]`. The change takes lines `[M, L, C]`.
  fileprivate func changed(_ change: (Tensor) throws -> Tensor) rethrows -> Tensor {
    let (pictures, height, width, channels) = (shape[0], shape[1], shape[2], shape[3])
    let rows = try change(reshaped([pictures * height, width, channels]))
    let columns = try change(rows.reshaped([pictures, height, rows.shape[1] * channels]))
    return columns.reshaped([pictures, columns.shape[1], rows.shape[1], channels])
  }

  /// Some places of lines `[M, L, C]`.
  fileprivate func places(_ range: Range<Int>, in context: ExecutionContext) throws -> Tensor {
    let channels = shape[2]
    return try reshaped([shape[0], shape[1] * channels])
      .channels(range.lowerBound * channels..<range.upperBound * channels, in: context).reshaped([shape[0], range.count, channels])
  }

  /// Lines `[M, L, C]` with a place more at either end, each as the one beside the end is.
  fileprivate func mirrored(in context: ExecutionContext) throws -> Tensor {
    let count = shape[1]
    return try .concatenated([places(1..<2, in: context), self, places(count - 2..<count - 1, in: context)], axis: 1, in: context)
  }
}
