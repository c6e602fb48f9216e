/// How a convolution's window moves over a picture.
public struct ConvolutionGeometry: Sendable, Equatable {
  /// The height of the window, in pixels.
  public var kernelHeight: Int
  /// The width of the window, in pixels.
  public var kernelWidth: Int
  /// The step from a window to the next in both directions, in pixels.
  public var stride: Int
  /// Zeros before the first and after the last row and column.
  public var padding: Padding

  /// Zeros on each of the four sides.
  public struct Padding: Sendable, Equatable {
    /// Rows and columns of zeros.
    public var top: Int, left: Int, bottom: Int, right: Int
    /// - Precondition: none is negative.
    public init(top: Int, left: Int, bottom: Int, right: Int) {
      (self.top, self.left, self.bottom, self.right) = (top, left, bottom, right)
    }
    /// The same on all sides.
    public static func all(_ width: Int) -> Padding { Padding(top: width, left: width, bottom: width, right: width) }
  }

  /// - Precondition: the kernel's sides and the stride are positive.
  public init(kernelHeight: Int, kernelWidth: Int, stride: Int = 1, padding: Padding) {
    precondition(kernelHeight > 0 && kernelWidth > 0 && stride > 0, "A window has a size and moves.")
    (self.kernelHeight, self.kernelWidth, self.stride, self.padding) = (kernelHeight, kernelWidth, stride, padding)
  }

  func outputHeight(_ height: Int) -> Int { places(height + padding.top + padding.bottom - kernelHeight) }
  func outputWidth(_ width: Int) -> Int { places(width + padding.left + padding.right - kernelWidth) }

  /// The number of positions of a window that has `room` to move; 0 if it does not fit.
  private func places(_ room: Int) -> Int { room < 0 ? 0 : room / stride + 1 }
}

/// How a convolution is computed.
public enum ConvolutionMethod: Sendable {
  /// As one matrix product. Its left operand, the windows, is gathered during the product.
  case direct
  /// By Winograd's transforms, for 3×3 windows with stride 1 and padding 1. It takes less arithmetic, but the rounding error is about 1e-5 of
  /// the result's magnitude instead of 1e-6.
  case winograd
  /// Whichever is faster for the size of the map.
  case automatic
}

extension Tensor {
  /// A convolution over inputs joined along channels: activation(bias + residual + Σ window · W).
  ///
  /// - Parameters:
  ///   - inputs: `[N, H, W, Cᵢ]` each. The result is that of their concatenation along C, which is not made. If the caller passes the last
  ///     reference to a single large input, its memory is returned to the system while it is read.
  ///   - size: resizes the inputs to this height and width first, each pixel a copy of the nearest one, without storing them.
  ///   - weights: `[O, ΣCᵢ, kernelHeight, kernelWidth]`, packed.
  ///   - bias: `[O]`, or `[N, O]` with a bias for each picture.
  ///   - residual: of the result's shape. If the caller passes the last reference, the result reuses its memory.
  ///   - activation: applied to each sum while it is in the cache.
  /// - Returns: `[N, H', W', O]`.
  /// - Precondition: the shapes fit, and Winograd's method is requested only where it is possible.
  /// - Throws: `CancellationError`.
  public static func convolution(
    _ inputs: consuming [Tensor], resizedTo size: (height: Int, width: Int)? = nil, weights: PackedMatrix, geometry: ConvolutionGeometry,
    bias: Tensor? = nil, adding residual: consuming Tensor? = nil, activation: Activation = .none, method: ConvolutionMethod = .automatic,
    in context: ExecutionContext
  ) throws -> Tensor {
    try context.engine.convolution(
      consume inputs, resizedTo: size, weights: weights, geometry: geometry, bias: bias, adding: consume residual, activation: activation,
      method: method, in: context)
  }
}

extension CPUEngine {
  public func convolution(
    _ inputs: consuming [Tensor], resizedTo size: (height: Int, width: Int)?, weights: PackedMatrix, geometry: ConvolutionGeometry,
    bias: Tensor?, adding residual: consuming Tensor?, activation: Activation, method: ConvolutionMethod, in context: ExecutionContext
  ) throws -> Tensor {
    var (inputs, residual) = (inputs, residual)
    let isOurs = inputs.count == 1 && isKnownUniquelyReferenced(&inputs[0].storage)
    let weights = try weights.resident(in: context)
    let patches = Patches(inputs, size: size, geometry: geometry)
    let (batch, height, width) = (inputs[0].shape[0], patches.outputHeight, patches.outputWidth)
    let (result, isNew) = Tensor.result([batch, height, width, weights.outputs], adding: &residual)
    precondition(patches.inner == weights.inputs, "Windows of \(patches.inner) values meet weights of \(weights.inputs).")
    precondition(residual.map { $0.shape == result.shape } ?? true, "The residual does not match \(result.shape).")
    precondition(
      bias.map { [[weights.outputs], [batch, weights.outputs]].contains($0.shape) } ?? true, "The bias does not match \(result.shape).")
    // If the result reuses the residual's memory, the input's memory is better kept for the next operation.
    let forgetsInput = isOurs && isNew
    let isWorthwhile = UnitStrideConvolution.isWorthwhile(geometry, inputs: inputs, height: height, width: width)
    if method == .winograd || method == .automatic && isWorthwhile {
      precondition(UnitStrideConvolution.isPossible(geometry), "Winograd's method is for 3×3 windows that move by one.")
      let map = UnitStrideConvolution(
        inputs, weights: weights, bias: bias, residual: residual, activation: activation, result: result, forgetsInput: forgetsInput)
      if method == .winograd { try WinogradConvolution(map).run(in: context) } else { try map.run(in: context) }
    } else {
      try MatrixProduct(
        left: .patches(patches), rows: batch * height * width, weights: weights, result: result, bias: bias, residual: residual,
        activation: activation
      ).run(in: context)
    }
    return result
  }
}

/// The windows of a convolution as the rows of a matrix: for each output pixel kernelHeight · kernelWidth · ΣC values.
struct Patches {
  private let inputs: [Tensor]
  private let geometry: ConvolutionGeometry
  /// The input's row (column) at each row (column) of the resized picture.
  private let rowMap: [Int]
  private let columnMap: [Int]
  private let segments: [Segment]
  let outputHeight: Int
  let outputWidth: Int
  let chunks: [MatrixProduct.Chunk]

  /// Neighbouring channels of one input under one tap of the window: contiguous in memory.
  private struct Segment {
    let input: Int
    let channel: Int
    let count: Int
    let row: Int
    let column: Int
  }

  init(_ inputs: [Tensor], size: (height: Int, width: Int)?, geometry: ConvolutionGeometry) {
    precondition(
      inputs.allSatisfy { $0.shape.rank == 4 && $0.shape.dimensions[..<3] == inputs[0].shape.dimensions[..<3] },
      "\(inputs.map(\.shape)) do not lie side by side.")
    precondition(size == nil || inputs[0].shape[1] > 0 && inputs[0].shape[2] > 0, "\(inputs[0].shape) has no pixel to copy.")
    self.inputs = inputs
    self.geometry = geometry
    rowMap = nearestIndices(from: inputs[0].shape[1], to: size?.height ?? inputs[0].shape[1])
    columnMap = nearestIndices(from: inputs[0].shape[2], to: size?.width ?? inputs[0].shape[2])
    outputHeight = geometry.outputHeight(rowMap.count)
    outputWidth = geometry.outputWidth(columnMap.count)
    segments = Self.segments(of: inputs.map(\.shape.columns), geometry: geometry)
    chunks = Self.chunks(of: segments)
  }

  var inner: Int { chunks.last?.inner.upperBound ?? 0 }
  /// The greatest common divisor of all segments' lengths, and so a divisor of every chunk's length.
  var granularity: Int { segments.reduce(0) { greatestCommonDivisor($0, $1.count) } }

  private static func segments(of channels: [Int], geometry: ConvolutionGeometry) -> [Segment] {
    var segments: [Segment] = []
    for row in 0..<geometry.kernelHeight {
      for column in 0..<geometry.kernelWidth {
        for (input, count) in channels.enumerated() {
          for channel in stride(from: 0, to: count, by: MatrixProduct.chunkLength) {
            let length = min(MatrixProduct.chunkLength, count - channel)
            segments.append(Segment(input: input, channel: channel, count: length, row: row, column: column))
          }
        }
      }
    }
    return segments
  }

  private static func chunks(of segments: [Segment]) -> [MatrixProduct.Chunk] {
    var chunks: [MatrixProduct.Chunk] = []
    var first = 0, begin = 0, length = 0
    for (index, segment) in segments.enumerated() {
      if length + segment.count > MatrixProduct.chunkLength {
        chunks.append(.init(inner: begin..<begin + length, segments: first..<index))
        (first, begin, length) = (index, begin + length, 0)
      }
      length += segment.count
    }
    if length > 0 || chunks.isEmpty { chunks.append(.init(inner: begin..<begin + length, segments: first..<segments.count)) }
    return chunks
  }

  /// Copies the `chosen` segments of the windows `rows`, one window after the other, `stride` floats apart.
  func gather(_ chosen: Range<Int>, rows: Range<Int>, into buffer: UnsafeMutablePointer<Float>, stride: Int) {
    var offset = 0
    for segment in segments[chosen] {
      copy(segment, rows: rows, to: buffer + offset, stride: stride)
      offset += segment.count
    }
  }

  private func copy(_ segment: Segment, rows: Range<Int>, to buffer: UnsafeMutablePointer<Float>, stride: Int) {
    var row = rows.lowerBound
    while row < rows.upperBound {
      let x = row % outputWidth, line = row / outputWidth, count = min(rows.upperBound - row, outputWidth - x)
      copy(segment, line: line, columns: x..<x + count, to: buffer + (row - rows.lowerBound) * stride, stride: stride)
      row += count
    }
  }

  /// Copies a segment of neighbouring windows of a line of the result.
  private func copy(_ segment: Segment, line: Int, columns: Range<Int>, to buffer: UnsafeMutablePointer<Float>, stride: Int) {
    let (height, width) = (inputs[0].shape[1], inputs[0].shape[2]), input = inputs[segment.input], channels = input.shape.columns
    let y = line % outputHeight * geometry.stride + segment.row - geometry.padding.top
    let isSeen = y >= 0 && y < rowMap.count
    let source = input.pointer + (line / outputHeight * height + (isSeen ? rowMap[y] : 0)) * width * channels + segment.channel
    for (place, column) in columns.enumerated() {
      let target = buffer + place * stride, x = column * geometry.stride + segment.column - geometry.padding.left
      if isSeen, x >= 0, x < columnMap.count {
        target.update(from: source + columnMap[x] * channels, count: segment.count)
      } else {
        target.update(repeating: 0, count: segment.count)
      }
    }
  }
}

/// For each index of an axis of length `to` the nearest index of an axis of length `from`, rounded down as PyTorch's `nearest` does.
func nearestIndices(from: Int, to: Int) -> [Int] {
  let scale = Float(from) / Float(max(to, 1))
  return (0..<to).map { min(Int(Float($0) * scale), from - 1) }
}

private func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : greatestCommonDivisor(b, a % b) }
