import Synchronization

/// Counts what a computation takes: memory, multiplications and additions, and weights that are packed.
///
/// Large buffers get addresses in an arena without memory, which places them as `BufferPool` places real ones. So the peak includes gaps that are touched
/// and too small for what comes next.
public final class WorkCounter: Sendable {
  private struct State {
    var live = 0
    var peak = 0
    var operations = 0.0
    var packedBytes = 0.0
    var arena = MemoryArena(isImaginary: true)
    /// The addresses that take memory: those of living buffers, and of gaps where buffers lived.
    var touched = AddressSet()
    /// Bytes of buffers that are too small for the arena.
    var small = 0
    /// Bytes that are in `touched` twice, because an input returns its memory while a result is written.
    var exchanged = 0

    mutating func take(_ bytes: Int) -> UInt {
      defer { peak = max(peak, small + touched.count - exchanged) }
      guard bytes >= BufferPool.large, let place = arena.take(bytes) else {
        small += bytes
        return 0
      }
      let address = UInt(bitPattern: place)
      touched.insert(address..<address + UInt(bytes))
      return address
    }

    mutating func giveBack(_ bytes: Int, at address: UInt, isForgotten: Bool = false) {
      guard let place = UnsafeMutableRawPointer(bitPattern: address) else { return small -= bytes }
      arena.giveBack(place, bytes: bytes)
      if isForgotten { touched.remove(address..<address + UInt(bytes)) }
    }
  }
  private let state = Mutex(State())

  /// A counter of nothing yet.
  public init() {}

  /// The counter of memory that is counted in another way, such as that of weights, which is counted by their extents.
  package static let elsewhere = WorkCounter()
  /// A placeholder for the elements of tensors without memory. It must be neither read nor written.
  nonisolated(unsafe) static let nowhere = UnsafeMutablePointer<Float>.allocate(capacity: 1)

  /// Bytes that are held now.
  public var liveBytes: Int { state.withLock(\.live) }
  /// The most bytes that were taken at once.
  public var peakBytes: Int { state.withLock(\.peak) }
  /// Multiplications and additions.
  public var operations: Double { state.withLock(\.operations) }
  /// Bytes of weights that were packed by operations.
  public var packedBytes: Double { state.withLock(\.packedBytes) }

  /// Resets operations and packed bytes, but not live bytes, for the next of several passes.
  public func beginPass() { state.withLock { ($0.operations, $0.packedBytes) = (0, 0) } }

  /// - Returns: the address at which the bytes would lie in the arena; 0 for few, and for what is counted in another way.
  func hold(_ bytes: Int) -> UInt {
    state.withLock { state in
      state.live += bytes
      return self === Self.elsewhere ? 0 : state.take(bytes)
    }
  }

  func drop(_ bytes: Int, at address: UInt, isForgotten: Bool) {
    state.withLock { state in
      state.live -= bytes
      if self !== Self.elsewhere { state.giveBack(bytes, at: address, isForgotten: isForgotten) }
    }
  }

  /// - Parameters:
  ///   - operations: multiplications and additions.
  ///   - packed: bytes of weights that are packed during the operation only.
  ///   - buffers: temporary buffers that live at once during the operation, in floats each.
  func note(operations: Double, packed: Int = 0, buffers: [Int]) {
    state.withLock { state in
      state.operations += operations
      state.packedBytes += Double(packed)
      var taken: [(bytes: Int, address: UInt)] = []
      taken.reserveCapacity(buffers.count)
      for count in buffers where count > 0 {
        let bytes = BufferPool.bytes(for: count)
        taken.append((bytes, state.take(bytes)))
      }
      for buffer in taken { state.giveBack(buffer.bytes, at: buffer.address) }
    }
  }

  /// Counts an operation that returns its input's memory while it writes results: of the two, which `body` makes and drops, the larger is live.
  fileprivate func exchange(_ input: Int, for results: Int, _ body: () -> Void) {
    state.withLock { $0.exchanged += min(input, results) }
    body()
    state.withLock { $0.exchanged -= min(input, results) }
  }
}

/// Ranges of addresses, in order and apart: those that touch are one.
private struct AddressSet {
  private var ranges: [Range<UInt>] = []
  private(set) var count = 0

  /// The ranges that overlap another one or touch it.
  private func meeting(_ range: Range<UInt>) -> Range<Int> {
    var (low, high) = (0, ranges.count)
    while low < high {
      let middle = (low + high) / 2
      if ranges[middle].upperBound < range.lowerBound { low = middle + 1 } else { high = middle }
    }
    return low..<(ranges[low...].firstIndex { $0.lowerBound > range.upperBound } ?? ranges.count)
  }

  mutating func insert(_ range: Range<UInt>) {
    let met = meeting(range)
    guard let first = met.first, let last = met.last else {
      ranges.insert(range, at: met.lowerBound)
      count += range.count
      return
    }
    let whole = min(ranges[first].lowerBound, range.lowerBound)..<max(ranges[last].upperBound, range.upperBound)
    guard whole != ranges[first] else { return }
    count += whole.count - ranges[met].reduce(0) { $0 + $1.count }
    ranges.replaceSubrange(met, with: CollectionOfOne(whole))
  }

  mutating func remove(_ range: Range<UInt>) {
    let met = meeting(range)
    guard let first = met.first, let last = met.last else { return }
    let before = ranges[first].lowerBound..<max(ranges[first].lowerBound, min(ranges[first].upperBound, range.lowerBound))
    let after = min(ranges[last].upperBound, max(ranges[last].lowerBound, range.upperBound))..<ranges[last].upperBound
    let rest = [before, after].filter { !$0.isEmpty }
    count += rest.reduce(0) { $0 + $1.count } - ranges[met].reduce(0) { $0 + $1.count }
    ranges.replaceSubrange(met, with: rest)
  }
}

/// Counts the operations of networks without computing them. Results have a shape and no memory, and are counted while they live. So the cost of a
/// pass is known before there are weights, from the code that will compute it.
///
/// ```swift
/// let engine = CountingEngine(WorkCounter(), threads: 2)
/// _ = try predictor.predict(engine.input([2, 64, 64, 4]), timestep: 0, conditioning: conditioning, in: engine.context)
/// print(engine.counter.peakBytes, engine.counter.operations)
/// ```
///
/// Layers made of `ModelFiles.extentSource` need no weights either. Element-wise functions of a tensor without elements count no operations and
/// compute nothing. Its `elements` are zeros.
public struct CountingEngine: Engine {
  /// What has been counted.
  public let counter: WorkCounter
  /// The number of threads that will compute. Each has its own buffers.
  let threads: Int
  /// Where the weights will be between uses.
  private let residency: WeightResidency

  /// - Parameters:
  ///   - counter: receives the counts; several engines may share one.
  ///   - threads: the number of threads that will compute, each with its own buffers.
  ///   - residency: where the weights will be between uses.
  public init(_ counter: WorkCounter, threads: Int, residency: WeightResidency = .packed) {
    (self.counter, self.threads, self.residency) = (counter, threads, residency)
  }

  public var mayRearrange: Bool { true }

  /// Counts parts that will run in parallel: one after the other, each by itself, with the memory of all added up.
  func apart<Output>(_ count: Int, in context: ExecutionContext, _ body: (Int, ExecutionContext) throws -> Output) throws -> [Output] {
    var buffers: [Int] = [], operations = 0.0, packed = 0.0
    let outputs = try (0..<count).map { index in
      let part = WorkCounter()
      var own = context
      own.engine = CountingEngine(part, threads: 1, residency: residency)
      let output = try body(index, own)
      (buffers, operations, packed) = (buffers + [part.peakBytes / 4], operations + part.operations, packed + part.packedBytes)
      return output
    }
    counter.note(operations: operations, packed: Int(packed), buffers: buffers)
    return outputs
  }

  /// A context in which layers are counted.
  public var context: ExecutionContext { ExecutionContext(self, threads: threads) }

  /// An input for layers to be counted. It is not counted itself, because the caller holds it.
  public func input(_ shape: Shape) -> Tensor { Tensor(counted: shape, by: .elsewhere) }

  func new(_ shape: Shape) -> Tensor { Tensor(counted: shape, by: counter) }

  /// Bytes of weights that a product packs only for itself.
  private func packed(_ weights: PackedMatrix) -> Int {
    let bytes = weights.panels * weights.panelBytes
    guard case .streamed = residency, !residency.isPacked(bytes) else { return 0 }
    return bytes
  }

  private func note(_ weights: PackedMatrix, rows: Int, buffers: [Int]) {
    let packed = packed(weights)
    counter.note(
      operations: 2 * Double(rows) * Double(weights.inputs) * Double(weights.outputs), packed: packed,
      buffers: buffers + [packed / 4])
  }

  public func product(
    _ x: Tensor, with weights: PackedMatrix, bias: Tensor?, adding residual: Tensor?, activation: Activation, in context: ExecutionContext
  ) throws -> Tensor {
    let result = new(Shape(x.shape.dimensions.dropLast() + [weights.resultColumns]))
    note(weights, rows: x.shape.rows, buffers: MatrixProduct.buffers(threads: threads))
    return result
  }

  public func convolution(
    _ inputs: consuming [Tensor], resizedTo size: (height: Int, width: Int)?, weights: PackedMatrix, geometry: ConvolutionGeometry,
    bias: Tensor?, adding residual: consuming Tensor?, activation: Activation, method: ConvolutionMethod, in context: ExecutionContext
  ) throws -> Tensor {
    let (height, width) = (size?.height ?? inputs[0].shape[1], size?.width ?? inputs[0].shape[2])
    let shape: Shape = [inputs[0].shape[0], geometry.outputHeight(height), geometry.outputWidth(width), weights.outputs]
    let usesTiles =
      method != .direct
      && UnitStrideConvolution.isWorthwhile(geometry, inputs: inputs, height: shape[1], width: shape[2])
    return convolve(
      consume inputs, to: shape, weights: weights, adding: consume residual, usesTiles: usesTiles, isNormalized: false, around: nil
    ).result
  }

  public func convolution(
    _ inputs: consuming [Tensor], normalizedBy normalization: GroupNormalization, activation: Activation, weights: PackedMatrix,
    geometry: ConvolutionGeometry, bias: Tensor?, adding residual: consuming Tensor?,
    beside shortcut: (weights: PackedMatrix, bias: Tensor?)?,
    in context: ExecutionContext
  ) throws -> (result: Tensor, shortcut: Tensor?) {
    let shape = Shape(inputs[0].shape.dimensions.dropLast() + [weights.outputs])
    guard UnitStrideConvolution.isWorthwhile(geometry, inputs: inputs, height: shape[1], width: shape[2]) else {
      return try Tensor.convolutionStepByStep(
        consume inputs, normalizedBy: normalization, activation: activation, weights: weights, geometry: geometry, bias: bias,
        adding: consume residual, beside: shortcut, in: context)
    }
    return convolve(
      consume inputs, to: shape, weights: weights, adding: consume residual, usesTiles: true, isNormalized: true, around: shortcut?.weights)
  }

  /// Counts a convolution as `CPUEngine` makes it: by gathered rows, or tile by tile, which returns a large input's memory while it is read.
  private func convolve(
    _ inputs: consuming [Tensor], to shape: Shape, weights: PackedMatrix, adding residual: consuming Tensor?, usesTiles: Bool,
    isNormalized: Bool, around: PackedMatrix?
  ) -> (result: Tensor, shortcut: Tensor?) {
    var (inputs, residual) = (inputs, residual)
    let isOurs = inputs.count == 1 && isKnownUniquelyReferenced(&inputs[0].storage)
    let pixels = shape[0] * shape[1] * shape[2], channels = inputs.reduce(0) { $0 + $1.shape.columns }
    let aroundShape = around.map { Shape(shape.dimensions.dropLast() + [$0.outputs]) }
    let canForget = usesTiles && isOurs && inputs[0].storage.isForgettable
    // The shortcut's result is made before the convolution, unless it is made line by line as the input's memory is returned.
    var shortcut: Tensor?
    if let around, let aroundShape {
      if !canForget { shortcut = new(aroundShape) }
      note(around, rows: pixels, buffers: MatrixProduct.buffers(threads: threads))
    }
    let buffers =
      !usesTiles
      ? MatrixProduct.buffers(threads: threads)
      : BandedConvolution.takes(weights.form.factors, height: shape[1], width: shape[2])
        ? BandedConvolution.buffers(
          n: shape[0], height: shape[1], width: shape[2], channels: channels, threads: threads, isNormalized: isNormalized)
        : WinogradConvolution.buffers(
          n: shape[0], height: shape[1], width: shape[2], channels: channels, outputs: shape[3], threads: threads,
          isNormalized: isNormalized)
    // A result in the residual's memory takes no memory of its own, and the input's memory is kept.
    var place: Tensor?
    if residual != nil {
      let (found, isNew) = Tensor.result(shape, adding: &residual, new: { Tensor(counted: $0, by: .elsewhere) })
      if !isNew { place = found }
    }
    if canForget, place == nil {
      let results = BufferPool.bytes(for: shape.count) + (shortcut == nil ? aroundShape.map { BufferPool.bytes(for: $0.count) } ?? 0 : 0)
      counter.exchange(inputs[0].storage.bytes, for: results) {
        place = new(shape)
        if shortcut == nil { shortcut = aroundShape.map { new($0) } }
        note(weights, rows: pixels, buffers: buffers)
        inputs[0].storage.isForgotten = true
        inputs = []
      }
    } else {
      if place == nil { place = new(shape) }
      if shortcut == nil { shortcut = aroundShape.map { new($0) } }
      note(weights, rows: pixels, buffers: buffers)
    }
    return (place ?? new(shape), shortcut)
  }

  public func groupNormalization(
    _ inputs: consuming [Tensor], by normalization: GroupNormalization, activation: Activation, in context: ExecutionContext
  ) throws -> Tensor {
    var inputs = inputs
    let isOurs = inputs.count == 1 && isKnownUniquelyReferenced(&inputs[0].storage)
    return isOurs ? inputs[0] : new(Shape(inputs[0].shape.dimensions.dropLast() + [normalization.channels]))
  }

  public func layerNormalization(_ x: Tensor, weight: Tensor, bias: Tensor, epsilon: Float, in context: ExecutionContext) throws -> Tensor {
    new(x.shape)
  }

  public func attention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, causal: Bool, precision: ProductPrecision,
    in context: ExecutionContext
  ) throws -> Tensor {
    let result = new(queries.shape)
    let (n, length, others, width) = (queries.shape[0], queries.shape[1], keys.shape[1], queries.shape[2] / heads)
    let factors = ProductFactors.ofActivations(precision)
    let packedKeys = n * heads * ((others + 31) / 32 * 32) * factors.ofDepth(width).words(width)
    let packedValues = n * heads * ((width + 31) / 32 * 32) * factors.words(others)
    counter.note(
      operations: 4 * Double(n * heads * width) * Double(length) * Double(others),
      buffers: [packedKeys, packedValues])
    return result
  }

  public func attentionReceived(
    queries: Tensor, keys: Tensor, heads: Int, scale: Float, in context: ExecutionContext
  ) throws -> Tensor {
    let (n, count, width) = (keys.shape[0], keys.shape[1], keys.shape[2] / heads)
    let own = ReceivedAttention.buffers(keys: count, width: width)
    counter.note(
      operations: 2 * Double(queries.count) * Double(count),
      buffers: [n * heads * count] + Array(repeating: own, count: threads).flatMap { $0 })
    return new([n, count])
  }

  public func frameAttention(
    queries: Tensor, keys: Tensor, values: Tensor, heads: Int, scale: Float, in context: ExecutionContext
  ) throws -> Tensor {
    let result = new(queries.shape)
    let own = FrameAttention.buffers(length: queries.shape[1], keys: keys.shape[1], width: queries.shape[3] / heads)
    counter.note(
      operations: 4 * Double(queries.count) * Double(keys.shape[1]), buffers: Array(repeating: own, count: threads).flatMap { $0 })
    return result
  }

  public func activation(_ activation: Activation, of x: Tensor, in context: ExecutionContext) throws -> Tensor { new(x.shape) }

  public func nearest(_ table: Tensor, to x: Tensor, in context: ExecutionContext) throws -> Tensor {
    let result = new(x.shape)
    counter.note(
      operations: 3 * Double(x.shape.rows) * Double(table.count),
      buffers: [table.count] + Array(repeating: table.shape.rows, count: threads))
    return result
  }

  public func softmax(_ x: Tensor, in context: ExecutionContext) throws -> Tensor { new(x.shape) }

  public func rows(_ range: Range<Int>, of x: Tensor, in context: ExecutionContext) throws -> Tensor {
    new(Shape([range.count] + x.shape.dimensions.dropFirst()))
  }

  public func rows(at indices: [Int], of table: Tensor, in context: ExecutionContext) throws -> Tensor {
    new(Shape([indices.count] + table.shape.dimensions.dropFirst()))
  }

  public func channels(_ range: Range<Int>, of x: Tensor, in context: ExecutionContext) throws -> Tensor {
    new(Shape(x.shape.dimensions.dropLast() + [range.count]))
  }

  public func concatenation(_ tensors: [Tensor], axis: Int, in context: ExecutionContext) throws -> Tensor {
    var extents = tensors[0].shape.dimensions
    let axis = axis < 0 ? extents.count + axis : axis
    extents[axis] = tensors.reduce(0) { $0 + $1.shape[axis] }
    return new(Shape(extents))
  }

  public func sum(_ a: Tensor, _ b: Tensor, in context: ExecutionContext) throws -> Tensor { new(a.shape) }

  public func rowScaling(_ x: Tensor, by factors: Tensor, in context: ExecutionContext) throws -> Tensor { new(x.shape) }

  public func affine(_ x: Tensor, factor: Float, constant: Float, in context: ExecutionContext) throws -> Tensor { new(x.shape) }
}
