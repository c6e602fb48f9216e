/// What a computation takes: layers are followed in the order in which they run, and what they would hold is counted, but nothing is computed.
///
/// All counts are of floats, as tensors hold them.
package struct WorkEstimate: Sendable {
  /// Threads that compute.
  private let threads: Int
  /// Where the weights are.
  private let residency: WeightResidency
  /// That most of the weights have.
  private let elementType: ElementType
  /// Of the weights of each shape.
  private let elementTypes: [Shape: ElementType]
  /// Bytes that are held now.
  private var live = 0
  /// Bytes that were held at most.
  package private(set) var peakBytes = 0
  /// Multiplications and additions.
  package private(set) var operations = 0.0
  /// Bytes of weights that are packed on the way.
  package private(set) var packedBytes = 0.0

  /// - Parameters:
  ///   - threads: that compute.
  ///   - residency: where the weights are.
  ///   - elementType: that most of the weights have.
  ///   - elementTypes: of the weights of each shape, where they are known.
  package init(threads: Int, residency: WeightResidency, elementType: ElementType, elementTypes: [Shape: ElementType] = [:]) {
    (self.threads, self.residency, self.elementType, self.elementTypes) = (threads, residency, elementType, elementTypes)
  }

  /// The form of the weights of a shape: where none is known, what that of most weights is for it.
  private func elementType(of shape: Shape) -> ElementType { elementTypes[shape] ?? elementType.converted(to: elementType, shape: shape) }

  /// A tensor comes into being.
  package mutating func hold(_ floats: Int) {
    live += BufferPool.bytes(for: floats)
    peakBytes = max(peakBytes, live)
  }

  /// A tensor is let go of.
  package mutating func drop(_ floats: Int) { live -= BufferPool.bytes(for: floats) }

  /// A linear layer: `[rows, inputs]` → `[rows, outputs]`, which is held from here on.
  package mutating func linear(rows: Int, inputs: Int, outputs: Int, isGated: Bool = false) {
    hold(rows * (isGated ? outputs / 2 : outputs))
    operations += 2 * Double(rows) * Double(inputs) * Double(outputs)
    pack([outputs, inputs], beside: MatrixProduct.bufferFloats(threads: threads))
  }

  /// A convolution: `[n, h, w, channels]` → `[n, h / stride, w / stride, outputs]`, which is held from here on.
  ///
  /// - Parameters:
  ///   - height: of the result; as `width`.
  ///   - dropped: floats of an input that nobody needs afterwards, and which is let go of.
  ///   - shortcut: outputs of a 1×1 convolution beside it, which are held from here on too.
  ///   - isNormalized: whether the input is normalised first, as the convolution reads it.
  ///   - replacesResidual: whether the result is where a residual was, and takes no memory.
  package mutating func convolution(
    n: Int, height: Int, width: Int, channels: Int, outputs: Int, kernel: Int, stride: Int = 1, dropping dropped: Int = 0,
    shortcut: Int = 0, isNormalized: Bool = false, replacesResidual: Bool = false
  ) {
    let pixels = n * height * width
    operations += 2 * Double(pixels) * Double(channels) * Double(kernel * kernel * outputs + shortcut)
    let usesTiles =
      kernel == 3 && stride == 1 && MapConvolution.isWorthwhile(channels: channels, outputs: outputs, height: height, width: width)
    let buffers =
      !usesTiles
      ? MatrixProduct.bufferFloats(threads: threads)
      : WindowConvolution.takes(elementType == .q8 ? .pairs : .split, height: height, width: width)
        ? WindowConvolution.bufferFloats(
          n: n, height: height, width: width, channels: channels, threads: threads, isNormalized: isNormalized)
        : WinogradConvolution.bufferFloats(
          n: n, height: height, width: width, channels: channels, outputs: outputs, threads: threads, isNormalized: isNormalized)
    let normalized = isNormalized && !usesTiles ? pixels * channels : 0
    if normalized > 0 { hold(normalized) }
    defer { if normalized > 0 { drop(normalized) } }
    let input = dropped > 0 ? BufferPool.bytes(for: dropped) : 0
    let goesOnTheWay = usesTiles && !replacesResidual && input >= TensorStorage.forgettableBytes
    var results = replacesResidual ? 0 : BufferPool.bytes(for: pixels * outputs)
    if shortcut > 0 {
      let bytes = BufferPool.bytes(for: pixels * shortcut)
      if goesOnTheWay { results += bytes } else { live += bytes }
      pack([shortcut, channels, 1, 1], beside: MatrixProduct.bufferFloats(threads: threads))
    }
    if goesOnTheWay {
      // The input goes as the results come.
      live += max(results, input) - input
      pack([outputs, channels, kernel, kernel], beside: buffers)
      live += results - max(results, input)
    } else {
      live += results
      pack([outputs, channels, kernel, kernel], beside: buffers)
      live -= input
    }
  }

  /// Attention: queries `[n, length, heads · width]` meet `others` keys and values; the result is held from here on.
  package mutating func attention(n: Int, length: Int, others: Int, heads: Int, width: Int) {
    hold(n * length * heads * width)
    operations += 4 * Double(n * heads * width) * Double(length) * Double(others)
    let factors = ProductFactors.ofActivations(elementType == .q8 ? .bfloat16 : .float32)
    let keys = n * heads * ((others + 31) / 32 * 32) * factors.ofDepth(width).words(width)
    let values = n * heads * ((width + 31) / 32 * 32) * factors.words(others)
    peakBytes = max(peakBytes, live + BufferPool.bytes(for: keys) + BufferPool.bytes(for: values))
  }

  /// The weights of a layer and the buffers that its product takes, for as long as it runs.
  private mutating func pack(_ shape: Shape, beside buffers: Int) {
    var passing = buffers * 4
    if case .streamed = residency, let bytes = PackedMatrix.packedBytes(shape, as: elementType(of: shape)), !residency.isPacked(bytes) {
      passing += BufferPool.bytes(for: bytes / 4)
      packedBytes += Double(bytes)
    }
    peakBytes = max(peakBytes, live + passing)
  }
}
