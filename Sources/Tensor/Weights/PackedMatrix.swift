import CLatentDiffusionKernels
import Foundation

/// Constant weights `[outputs, inputs]`, laid out for the matrix kernel: panels of 32 outputs, within a panel a row for each input.
///
/// Packed once at loading, since they never change and a general BLAS would repack them at every call. 16-bit weights stay
/// 16 bits wide and are widened a panel at a time while they are used, which costs under 1 % of a product. 8-bit weights are multiplied as they
/// are, with activations of 8 bits, where the processor has an instruction for it, and widened elsewhere. Where products are made of factors in two parts,
/// weights of 32 bits are that from packing on, which takes no more room.
///
/// The weights of a gated layer, whose outputs are values and then as many gates, have both halves side by side: 16 values and their 16 gates
/// in each panel, so that a product can end with the gating.
public struct PackedMatrix: Sendable {
  /// Rows of the matrix: features or channels of the result.
  public let outputs: Int
  /// Whether the second half of the outputs are gates of the first.
  public let isGated: Bool
  /// The length of the product's inner sum; for a convolution kernelHeight · kernelWidth · channels, in this order.
  public let inputs: Int
  /// Places of a convolution's window, 1 for a linear layer.
  let taps: Int
  let elementType: ElementType
  /// Whether values of 32 bits are in two parts, as products of those take them: where the processor makes them faster.
  let isSplit: Bool
  let storage: PackedStorage
  /// Where the panels come from; nil where they are in `storage`.
  private let origin: WeightOrigin?

  static let panelWidth = Int(CK_PANEL)
  private static let half = panelWidth / 2
  var panels: Int { isGated ? (outputs / 2 + Self.half - 1) / Self.half : (outputs + Self.panelWidth - 1) / Self.panelWidth }
  /// What a product with these weights makes.
  var resultColumns: Int { isGated ? outputs / 2 : outputs }
  /// What a product adds: for gated weights as many as the panels have columns.
  var biasColumns: Int { isGated ? panels * Self.panelWidth : outputs }
  /// Of one panel.
  var panelBytes: Int {
    let column = elementType == .q8 ? inputs / QuantizedBlocks.blockValues * QuantizedBlocks.blockBytes : inputs * elementType.bytes
    return Self.panelWidth * column
  }

  /// Bytes that a matrix takes when it is packed; nil where they are more than can be counted, or where no `q8` has this shape.
  ///
  /// - Parameter shape: of rank 2 or 4.
  public static func packedBytes(_ shape: Shape, as elementType: ElementType) -> Int? {
    let (padded, overflow) = shape[0].addingReportingOverflow(panelWidth - 1)
    guard !overflow else { return nil }
    return elementType.bytes(of: Shape([padded / panelWidth * panelWidth] + shape.dimensions.dropFirst()))
  }

  /// The weights of a linear layer, `[outputs, inputs]`, or of a convolution, `[outputs, channels, kernelHeight, kernelWidth]`,
  /// as PyTorch stores them.
  ///
  /// - Parameters:
  ///   - isGated: the second half of the outputs are gates of the first.
  ///   - residency: where the panels are between uses. Only weights that are mapped from a file can be streamed; others are packed once they are
  ///     used.
  /// - Returns: nil where a weight is infinite or not a number.
  /// - Precondition: the shape has rank 2 or 4, and gated weights an even number of outputs.
  /// - Throws: `CancellationError`.
  public init?(
    checking weights: WeightTensor, isGated: Bool = false, residency: WeightResidency = .packed, in context: ExecutionContext
  ) throws {
    // What is in a file or in memory can be counted. Of an extent there is nothing to pack.
    let isPacked = !weights.isExtent && residency.isPacked(Self.packedBytes(weights.shape, as: weights.elementType) ?? weights.data.count)
    let isKept = residency == .packedOnceUsed || !weights.isMapped
    self.init(weights, isGated: isGated, origin: isPacked ? nil : WeightOrigin(weights, isKept: isKept))
    guard try isPacked ? pack(weights, into: storage, checking: true, in: context) : weights.isFinite(in: context) else { return nil }
  }

  /// The same of weights that need no check, packed at once.
  ///
  /// - Precondition: the shape has rank 2 or 4, and gated weights an even number of outputs.
  /// - Throws: `CancellationError`.
  public init(_ weights: WeightTensor, isGated: Bool = false, in context: ExecutionContext) throws {
    self.init(weights, isGated: isGated, origin: nil)
    _ = try pack(weights, into: storage, checking: false, in: context)
  }

  /// A matrix whose storage, if it is to have one, is not written yet.
  private init(_ weights: WeightTensor, isGated: Bool, origin: WeightOrigin?) {
    precondition(weights.shape.rank == 2 || weights.shape.rank == 4, "Weights of shape \(weights.shape) are no matrix.")
    precondition(!isGated || weights.shape[0] % 2 == 0, "\(weights.shape[0]) outputs have no two halves.")
    outputs = weights.shape[0]
    taps = weights.shape.dimensions.dropFirst(2).reduce(1, *)
    inputs = weights.shape[1] * taps
    self.isGated = isGated
    elementType = weights.elementType
    isSplit = elementType == .float32 && weights.shape[1] > 0 && ProductFactors.split.takes(channels: weights.shape[1])
    self.origin = origin
    let half = Self.half, width = Self.panelWidth
    let panels = isGated ? (outputs / 2 + half - 1) / half : (outputs + width - 1) / width
    let column = elementType == .q8 ? inputs / QuantizedBlocks.blockValues * QuantizedBlocks.blockBytes : inputs * elementType.bytes
    storage = PackedStorage(bytes: origin == nil ? panels * width * column : 0)
  }

  private init(_ other: PackedMatrix, storage: PackedStorage) {
    (outputs, isGated, inputs, taps, elementType) = (other.outputs, other.isGated, other.inputs, other.taps, other.elementType)
    isSplit = other.isSplit
    (self.storage, origin) = (storage, nil)
  }

  /// The same matrix with its panels in memory: kept there, or for as long as the result lives. Every product begins with this.
  ///
  /// - Throws: `CancellationError`.
  func resident(in context: ExecutionContext) throws -> PackedMatrix {
    guard let origin else { return self }
    return PackedMatrix(self, storage: try origin.storage(of: self, in: context))
  }

  /// The output at a column of a panel; nil where the panel has more columns than there are outputs.
  func output(panel: Int, column: Int) -> Int? {
    guard isGated else {
      let output = panel * Self.panelWidth + column
      return output < outputs ? output : nil
    }
    let value = panel * Self.half + column % Self.half
    return value < outputs / 2 ? column / Self.half * (outputs / 2) + value : nil
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
    let columns = (0..<panels * Self.panelWidth).map { output(panel: $0 / Self.panelWidth, column: $0 % Self.panelWidth) }
    return Tensor(columns.map { $0.map { bias.pointer[$0] } ?? 0 }, shape: [columns.count])
  }

  /// Whether the weights have 8 bits.
  public var isQuantized: Bool { elementType == .q8 }
  /// Whether products are made with bytes.
  var hasIntegerProduct: Bool { elementType == .q8 && biasColumns % Self.panelWidth == 0 && Kernels.active.gemm_panel_q8 != nil }

  /// Rows `k` of a panel of 8-bit weights.
  func bytes(_ index: Int, rows k: Range<Int>) -> QuantizedPanel {
    precondition(k.lowerBound % QuantizedBlocks.blockValues == 0, "Blocks are used whole.")
    let begin = storage.pointer + index * panelBytes
    return QuantizedPanel(
      values: UnsafePointer((begin + k.lowerBound * Self.panelWidth).assumingMemoryBound(to: UInt8.self)),
      scales: UnsafePointer(
        (begin + inputs * Self.panelWidth).assumingMemoryBound(to: UInt16.self) + k.lowerBound / QuantizedBlocks.blockValues
          * Self.panelWidth))
  }

  /// Rows `k` of a panel in two parts, where the weights are.
  func split(_ index: Int, rows k: Range<Int>) -> UnsafePointer<Float> {
    UnsafePointer(storage.pointer.assumingMemoryBound(to: Float.self) + (index * inputs + k.lowerBound) * Self.panelWidth)
  }

  /// Whether a panel's floats are where the weights are.
  var isInPlace: Bool { elementType == .float32 && !isSplit }

  /// Rows `k` of a panel as floats: in place for float32 weights, widened into `scratch` (32 values a row) otherwise. Of weights in two parts the rows
  /// begin and end with whole words.
  @inline(__always)
  func panel(_ index: Int, rows k: Range<Int>, scratch: UnsafeMutablePointer<Float>) -> UnsafePointer<Float> {
    let start = (index * inputs + k.lowerBound) * Self.panelWidth
    let count = k.count * Self.panelWidth
    switch elementType {
    case .float32:
      let values = UnsafePointer(storage.pointer.assumingMemoryBound(to: Float.self) + start)
      guard isSplit else { return values }
      Kernels.active.join_panel(k.count, values.words, scratch)
    case .float16:
      Kernels.active.widen_f16(count, storage.pointer.assumingMemoryBound(to: UInt16.self) + start, scratch)
    case .bfloat16:
      Kernels.active.widen_bf16(count, storage.pointer.assumingMemoryBound(to: UInt16.self) + start, scratch)
    case .q8:
      let panel = bytes(index, rows: k)
      Kernels.active.widen_q8(k.count, panel.values, panel.scales, scratch)
    }
    return UnsafePointer(scratch)
  }
}

/// Rows of a panel of 8-bit weights, as the kernels take them.
struct QuantizedPanel {
  let values: UnsafePointer<UInt8>
  let scales: UnsafePointer<UInt16>
}
