/// A convolution of maps by 3×3 windows that move by one, with one zero around: by windows of words where the processor multiplies those fast, or by
/// Winograd's method.
struct UnitStrideConvolution {
  /// `[N, H, W, Cᵢ]` each, side by side in channels; each pixel of a map of the result's height and width is the nearest one's copy.
  let inputs: [Tensor]
  let weights: PackedMatrix
  /// `[O]`, or `[N, O]` for one a picture.
  let bias: Tensor?
  let residual: Tensor?
  let result: Tensor
  /// Whether the only input's memory goes back to the system as it is read.
  let forgetsInput: Bool
  /// Makes what is convolved from the inputs, where that is not the inputs themselves: some lines at a time, just before they are read.
  let prepare: ((PassingLines) throws -> Void)?
  /// The inputs' line (column) that stands at each line (column) of the result.
  let rowMap: [Int]
  let columnMap: [Int]

  init(
    _ inputs: [Tensor], weights: PackedMatrix, bias: Tensor?, residual: Tensor?, result: Tensor, forgetsInput: Bool,
    preparing prepare: ((PassingLines) throws -> Void)? = nil
  ) {
    (self.inputs, self.weights, self.bias, self.residual, self.result) = (inputs, weights, bias, residual, result)
    (self.forgetsInput, self.prepare) = (forgetsInput, prepare)
    rowMap = nearestIndices(from: inputs[0].shape[1], to: result.shape[1])
    columnMap = nearestIndices(from: inputs[0].shape[2], to: result.shape[2])
  }

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

  /// Whether this is worth what it takes beside the products: for maps that are large beside the weights, and channels that fill the matrix kernel's
  /// tiles. Measured on an AVX-512 processor; it does not depend on the number of pictures, so that neither do they.
  static func isWorthwhile(_ geometry: ConvolutionGeometry, inputs: [Tensor], height: Int, width: Int, outputs: Int) -> Bool {
    isPossible(geometry)
      && isWorthwhile(channels: inputs.reduce(0) { $0 + $1.shape.columns }, outputs: outputs, height: height, width: width)
  }

  static func isWorthwhile(channels: Int, outputs: Int, height: Int, width: Int) -> Bool {
    height * width >= 8 * 8 && channels >= 32 && outputs >= 32
  }

  /// The lines of the inputs, counted through all pictures, that the windows read from a line of one picture to a line of the same or a later one.
  func lines(readFrom first: (image: Int, line: Int), to last: (image: Int, line: Int)) -> Range<Int> {
    let begin = first.image * inputs[0].shape[1] + rowMap[max(0, first.line - 1)]
    return begin..<last.image * inputs[0].shape[1] + rowMap[min(rowMap.count - 1, last.line + 1)] + 1
  }
}

/// Lines of the pictures that a convolution reads, counted through all of them, to be made in a window `[count, W, C]`: line i at i % count.
struct PassingLines {
  let lines: Range<Int>
  let window: Tensor
}

/// What a convolution reads: its inputs, or the lines that are made of them.
struct ConvolvedLines {
  /// Side by side in channels.
  let inputs: [Tensor]
  private let map: UnitStrideConvolution
  /// Where lines are made, if they are.
  private let window: Tensor?
  /// How many lines have a place.
  private let count: Int
  private var prepared = 0

  /// - Parameter most: lines that are read between one call of `take` and the next, at most.
  init(of map: UnitStrideConvolution, most: Int) {
    self.map = map
    window = map.prepare == nil ? nil : Tensor(uninitialized: [most, map.inputs[0].shape[2], map.channels])
    inputs = window.map { [$0] } ?? map.inputs
    count = window?.shape[0] ?? map.inputs[0].shape[0] * map.inputs[0].shape[1]
  }

  /// Makes what has not been made of some lines, which follow those before or begin among them. What is above them is not read again.
  mutating func take(_ lines: Range<Int>) throws {
    let input = map.inputs[0]
    if map.forgetsInput { input.storage.forget(first: lines.lowerBound * input.shape[2] * input.shape[3]) }
    guard let window, let prepare = map.prepare, lines.upperBound > prepared else { return }
    try prepare(PassingLines(lines: prepared..<lines.upperBound, window: window))
    prepared = lines.upperBound
  }

  /// The first pixel of what stands at a line of a picture.
  func pixel(image: Int, line: Int) -> Int { (image * map.inputs[0].shape[1] + map.rowMap[line]) % count * map.inputs[0].shape[2] }
}
