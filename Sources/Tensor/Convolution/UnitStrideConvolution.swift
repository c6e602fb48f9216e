/// A convolution by 3×3 windows with stride 1 and padding 1. It uses products of words if the processor multiplies those fast, and Winograd's
/// method otherwise.
struct UnitStrideConvolution {
  /// `[N, H, W, Cᵢ]` each, joined along channels. They are resized to the result's height and width, each pixel a copy of the nearest one.
  let inputs: [Tensor]
  let weights: PackedMatrix
  /// `[O]`, or `[N, O]` with a bias for each picture.
  let bias: Tensor?
  let residual: Tensor?
  /// Applied to the sums.
  let activation: Activation
  let result: Tensor
  /// Whether the memory of the only input is returned to the system while it is read.
  let forgetsInput: Bool
  /// Makes the lines that are convolved from the inputs, just before they are read; nil if the inputs themselves are convolved.
  let prepare: ((PassingLines) throws -> Void)?
  /// The input line (column) at each line (column) of the result.
  let rowMap: [Int]
  let columnMap: [Int]

  init(
    _ inputs: [Tensor], weights: PackedMatrix, bias: Tensor?, residual: Tensor?, activation: Activation = .none, result: Tensor,
    forgetsInput: Bool, preparing prepare: ((PassingLines) throws -> Void)? = nil
  ) {
    (self.inputs, self.weights, self.bias, self.residual, self.result) = (inputs, weights, bias, residual, result)
    (self.activation, self.forgetsInput, self.prepare) = (activation, forgetsInput, prepare)
    rowMap = nearestIndices(from: inputs[0].shape[1], to: result.shape[1])
    columnMap = nearestIndices(from: inputs[0].shape[2], to: result.shape[2])
  }

  /// Whether the inputs are read in place and kept, so that their lines may be read in any order.
  var readsAsItIs: Bool { prepare == nil && !forgetsInput }
  var channels: Int { weights.inputs / 9 }
  var height: Int { result.shape[1] }
  var width: Int { result.shape[2] }

  func run(in context: ExecutionContext) throws {
    if let windows = BandedConvolution(self) {
      try windows.run(in: context)
    } else {
      try WinogradConvolution(self).run(in: context)
    }
  }

  static func isPossible(_ geometry: ConvolutionGeometry) -> Bool {
    geometry == ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
  }

  /// Whether this is faster than a matrix product of the windows: for maps that are large compared with the weights, and channels that fill the
  /// matrix kernel's tiles. Measured on an AVX-512 processor. It does not depend on the number of pictures, so the results do not either.
  static func isWorthwhile(_ geometry: ConvolutionGeometry, inputs: [Tensor], height: Int, width: Int) -> Bool {
    isPossible(geometry) && height * width >= 8 * 8 && inputs.reduce(0) { $0 + $1.shape.columns } >= 32
  }

  /// The input lines, counted across all pictures, that the windows read from a line of one picture to a line of the same or a later one.
  func lines(readFrom first: (image: Int, line: Int), to last: (image: Int, line: Int)) -> Range<Int> {
    let begin = first.image * inputs[0].shape[1] + rowMap[max(0, first.line - 1)]
    return begin..<last.image * inputs[0].shape[1] + rowMap[min(rowMap.count - 1, last.line + 1)] + 1
  }
}

/// Lines that a convolution will read, counted across all pictures. They go into a ring buffer `[count, W, C]`: line i at i % count.
struct PassingLines {
  let lines: Range<Int>
  let window: Tensor
}

/// The source of a convolution: its inputs, or the lines that are made from them.
struct ConvolvedLines {
  /// Joined along channels.
  let inputs: [Tensor]
  private let map: UnitStrideConvolution
  /// The ring buffer of the lines that are made; nil if the inputs are read.
  private let window: Tensor?
  /// The number of lines that `inputs` have room for.
  private let count: Int
  /// Of the inputs' pictures.
  private let height: Int, width: Int
  private var prepared = 0

  /// - Parameter most: the most lines that are read between two calls of `take`.
  init(of map: UnitStrideConvolution, most: Int) {
    self.map = map
    (height, width) = (map.inputs[0].shape[1], map.inputs[0].shape[2])
    window = map.prepare == nil ? nil : Tensor(uninitialized: [most, width, map.channels])
    inputs = window.map { [$0] } ?? map.inputs
    count = window?.shape[0] ?? map.inputs[0].shape[0] * height
  }

  /// Makes the lines of this range that are not made yet. Ranges come in order and may overlap. Lines above a range are not read again.
  mutating func take(_ lines: Range<Int>) throws {
    let input = map.inputs[0]
    if map.forgetsInput { input.storage.forget(first: lines.lowerBound * width * input.shape[3]) }
    guard let window, let prepare = map.prepare, lines.upperBound > prepared else { return }
    try prepare(PassingLines(lines: prepared..<lines.upperBound, window: window))
    prepared = lines.upperBound
  }

  /// The index of the first pixel that a line of a picture reads.
  func pixel(image: Int, line: Int) -> Int { (image * height + map.rowMap[line]) % count * width }
}
