import CLatentDiffusionKernels
import Foundation

/// Constant weights `[outputs, inputs]`, laid out for the matrix kernel: panels of 32 outputs, each with a row for each input.
///
/// Weights never change, so they are packed once at loading; a general BLAS would repack them at every call. The layout of a panel depends on the weights'
/// format. Weights of 16 bits, for example, stay 16 bits wide and are widened a chunk of a panel at a time during use, which costs under 1 % of a product.
///
/// The outputs of a gated layer are values, then as many gates. Each panel has 16 values and their 16 gates side by side, so that a product can end with the
/// gating.
public struct PackedMatrix: Sendable {
  /// Rows of the matrix: features or channels of the result.
  public let outputs: Int
  /// Whether the second half of the outputs are gates of the first.
  public let isGated: Bool
  /// Whether products end with the gating.
  private(set) var isGating: Bool
  /// The length of the product's inner sum; for a convolution kernelHeight · kernelWidth · channels, in this order.
  public let inputs: Int
  /// The taps of a convolution's kernel that follow one another in the file for each channel; 1 for a linear layer, and for blocks in a product's order.
  let taps: Int
  /// The layout of a panel in memory.
  let form: any PanelForm.Type
  /// The bytes of one panel.
  let panelBytes: Int
  let storage: PackedStorage
  /// The number of inputs that are read together: 1, or the length of a format's blocks.
  let granularity: Int
  /// Makes the panels at each use; nil if they are packed.
  private let made: (any PanelSource)?
  /// The weights that the panels are packed from at each use or at the first; nil if the panels are in `storage`.
  private let unpacked: UnpackedWeights?

  /// All copies of a layer's matrix share this identity. No other matrix has it while one of them exists.
  public var id: ObjectIdentifier { unpacked.map { ObjectIdentifier($0) } ?? ObjectIdentifier(storage) }

  static let panelWidth = Int(CK_PANEL)
  private static let half = panelWidth / 2
  var panels: Int { isGated ? (outputs / 2 + Self.half - 1) / Self.half : (outputs + Self.panelWidth - 1) / Self.panelWidth }
  /// Columns of a product's result.
  var resultColumns: Int { isGating ? outputs / 2 : biasColumns }
  /// Columns of the bias that a product adds. For gated weights, these are all columns of the panels.
  var biasColumns: Int { isGated ? panels * Self.panelWidth : outputs }

  /// The bytes of a packed matrix; nil if they do not fit in an `Int`, or if the shape cannot be cut into blocks.
  ///
  /// - Parameter shape: of rank 2, 4 or 5.
  public static func packedBytes(_ shape: Shape, of format: NumberFormat) -> Int? {
    let (padded, overflow) = shape[0].addingReportingOverflow(panelWidth - 1)
    let row = Shape(Array(shape.dimensions.dropFirst())).count, block = packedBlock(of: format)
    guard !overflow, row != Int.max, row % block.values == 0 else { return nil }
    let bytes = (row / block.values).multipliedReportingOverflow(by: block.bytes)
    let all = bytes.partialValue.multipliedReportingOverflow(by: padded / panelWidth * panelWidth)
    return bytes.overflow || all.overflow ? nil : all.partialValue
  }

  /// The length of the blocks that a format is packed as, and their bytes in a panel.
  private static func packedBlock(of format: NumberFormat) -> (values: Int, bytes: Int) {
    let coding = format.packed.coding
    return (coding.blockValues, (coding as? any PackedNumbers.Type)?.packedBlockBytes ?? coding.blockBytes)
  }

  /// The weights of a linear layer, `[outputs, inputs]`, or of a convolution, `[outputs, channels, kernelHeight, kernelWidth]`, as PyTorch stores them; or of
  /// one with a third axis of 1, `[outputs, channels, kernelHeight, kernelWidth, 1]`: the same values.
  ///
  /// - Parameters:
  ///   - isGated: whether the second half of the outputs are gates of the first.
  ///   - residency: where the panels are between uses. Only weights that are mapped from a file can be streamed. Others are packed at their first use and
  ///     kept.
  /// - Returns: nil if a weight is infinite or not a number.
  /// - Precondition: the shape has rank 2, 4 or 5, and gated weights an even number of outputs.
  /// - Throws: `CancellationError`.
  public init?(
    checking weights: WeightTensor, isGated: Bool = false, residency: WeightResidency = .packed, in context: ExecutionContext
  ) throws {
    // The bytes of weights in a file or in memory can be counted. An extent has nothing to pack.
    let isPacked = !weights.isExtent && residency.isPacked(Self.packedBytes(weights.shape, of: weights.elementType) ?? weights.data.count)
    let isKept = residency == .packedOnceUsed || !weights.isMapped
    self.init(weights, isGated: isGated, unpacked: isPacked ? nil : UnpackedWeights(weights, isKept: isKept))
    guard try isPacked ? pack(weights, into: storage, checking: true, in: context) : weights.isFinite(in: context) else { return nil }
  }

  /// Packs weights at once, without a check.
  ///
  /// - Precondition: the shape has rank 2, 4 or 5, and gated weights an even number of outputs.
  /// - Throws: `CancellationError`.
  public init(_ weights: WeightTensor, isGated: Bool = false, in context: ExecutionContext) throws {
    self.init(weights, isGated: isGated, unpacked: nil)
    _ = try pack(weights, into: storage, checking: false, in: context)
  }

  /// A matrix whose storage, if any, is not written yet.
  private init(_ weights: WeightTensor, isGated: Bool, unpacked: UnpackedWeights?) {
    precondition(weights.shape.isKernel, "Weights of shape \(weights.shape) are no matrix.")
    precondition(!isGated || weights.shape[0] % 2 == 0, "\(weights.shape[0]) outputs have no two halves.")
    outputs = weights.shape[0]
    let taps = weights.shape.dimensions.dropFirst(2).reduce(1, *), block = Self.packedBlock(of: weights.elementType)
    inputs = weights.shape[1] * taps
    made = nil
    (self.isGated, isGating) = (isGated, isGated)
    self.taps = block.values > 1 && weights.order == .product ? 1 : taps
    let packed = weights.elementType.packed.coding as? any PackedNumbers.Type ?? SinglePrecision.self
    form = packed.panels(channels: weights.shape[1], taps: self.taps)
    granularity = form.inPlace == .split ? ProductFactors.split.granularity : block.values
    panelBytes = Self.panelWidth * (inputs / block.values * block.bytes)
    self.unpacked = unpacked
    let half = Self.half, width = Self.panelWidth
    let panels = isGated ? (outputs / 2 + half - 1) / half : (outputs + width - 1) / width
    storage = PackedStorage(bytes: unpacked == nil ? panels * panelBytes : 0)
  }

  private init(_ other: PackedMatrix, storage: PackedStorage) {
    (outputs, isGated, isGating) = (other.outputs, other.isGated, other.isGating)
    (inputs, taps, granularity) = (other.inputs, other.taps, other.granularity)
    (form, panelBytes) = (other.form, other.panelBytes)
    (self.storage, unpacked, made) = (storage, nil, nil)
  }

  /// A matrix whose panels are made at each use, so that a product needs no copy of its right operand.
  init(_ outputs: Int, inputs: Int, madeBy source: any PanelSource) {
    (self.outputs, self.inputs, isGated, isGating, taps, granularity) = (outputs, inputs, false, false, 1, 1)
    (form, panelBytes, storage, unpacked, made) = (MadePanels.self, 0, PackedStorage(bytes: 0), nil, source)
  }

  /// The same matrix for products that are not gated: their results are the sums `[…, biasColumns]` in the order of `arranged`.
  var ungated: PackedMatrix {
    var matrix = self
    matrix.isGating = false
    return matrix
  }

  /// The same matrix with its panels in memory, kept there or freed with the result. Every product begins with this.
  ///
  /// - Throws: `CancellationError`.
  func resident(in context: ExecutionContext) throws -> PackedMatrix {
    if let made { return PackedMatrix(outputs, inputs: inputs, madeBy: try made.resident(in: context)) }
    guard let unpacked else { return self }
    return PackedMatrix(self, storage: try unpacked.storage(of: self, in: context))
  }

  /// The output at a column of a panel; nil if the panel has more columns than there are outputs.
  func output(panel: Int, column: Int) -> Int? {
    if isGated { return Self.output(ofGated: outputs, panel: panel, column: column) }
    let output = panel * Self.panelWidth + column
    return output < outputs ? output : nil
  }

  private static func output(ofGated outputs: Int, panel: Int, column: Int) -> Int? {
    let value = panel * half + column % half
    return value < outputs / 2 ? column / half * (outputs / 2) + value : nil
  }

  /// The output at each column of the panels of a gated matrix.
  static func columns(ofGated outputs: Int) -> [Int?] {
    let panels = (outputs / 2 + half - 1) / half
    return (0..<panels * panelWidth).map { output(ofGated: outputs, panel: $0 / panelWidth, column: $0 % panelWidth) }
  }

  /// The outputs that lie in some panels.
  func outputs(inPanels range: Range<Int>) -> [Range<Int>] {
    let (count, width) = isGated ? (outputs / 2, Self.half) : (outputs, Self.panelWidth)
    let values = range.lowerBound * width..<min(count, range.upperBound * width)
    return isGated ? [values, values.lowerBound + count..<values.upperBound + count] : [values]
  }

  /// A layer's bias `[outputs]` as products with these weights take it.
  public func arranged(_ bias: Tensor) -> Tensor {
    precondition(bias.shape == [outputs], "A bias \(bias.shape) for \(outputs) outputs.")
    guard isGated else { return bias }
    if let counted = Tensor.counted([biasColumns], like: [bias]) { return counted }
    let columns = Self.columns(ofGated: outputs)
    return Tensor(columns.map { $0.map { bias.pointer[$0] } ?? 0 }, shape: [columns.count])
  }

  /// Whether the weights are less exact than bfloat16, as those of 8 bits are.
  public var isQuantized: Bool { form.factors == .pairs }
  /// Whether products multiply bytes.
  var hasIntegerProduct: Bool { biasColumns % Self.panelWidth == 0 && form.hasIntegerProduct }

  /// Rows `k` of a panel.
  func rows(_ k: Range<Int>, ofPanel index: Int) -> PanelRows {
    PanelRows(panel: storage.pointer + index * panelBytes, inputs: inputs, taps: taps, rows: k)
  }

  /// Rows `k` of a panel as floats, in place or in `scratch`, 32 values a row. If weights are in blocks or in words, the rows must begin and end with whole
  /// ones.
  @inline(__always)
  func panel(_ index: Int, rows k: Range<Int>, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float> {
    if let made {
      made.make(index, rows: k, into: scratch)
      return UnsafePointer(scratch)
    }
    return form.floats(rows(k, ofPanel: index), scratch: scratch)
  }
}
