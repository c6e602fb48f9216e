import CLatentDiffusionKernels

/// A group normalisation with its parameters: per picture and group of neighbouring channels, mean 0 and variance 1, then a scale and a
/// shift for each channel. Source: Wu and He 2018, PyTorch's `GroupNorm`.
public struct GroupNormalization: Sendable {
  /// Groups of neighbouring channels.
  public let groups: Int
  /// Added to the variance.
  public let epsilon: Float
  /// `[C]`, or `[N, C]` where each picture has its own.
  package let weight: Tensor
  /// As `weight`.
  package let bias: Tensor

  /// - Parameters:
  ///   - groups: of neighbouring channels.
  ///   - epsilon: added to the variance.
  ///   - weight: `[C]`, the scales, or `[N, C]` with those of each picture.
  ///   - bias: of the same shape, the shifts.
  /// - Precondition: weight and bias have the same shape, and their channels are a multiple of `groups`.
  public init(groups: Int, epsilon: Float, weight: Tensor, bias: Tensor) {
    precondition(
      groups > 0 && weight.shape == bias.shape && weight.shape.columns % groups == 0, "\(weight.shape) channels in \(groups) groups.")
    (self.groups, self.epsilon, self.weight, self.bias) = (groups, epsilon, weight, bias)
  }

  /// activation(normalised) of inputs joined along channels. The result is that of their concatenation.
  ///
  /// - Parameters:
  ///   - inputs: `[N, …, Cᵢ]`, ΣCᵢ channels in all. If the caller passes the last reference to a single input, the result reuses its
  ///     memory.
  ///   - activation: none or SiLU.
  /// - Returns: `[N, …, ΣCᵢ]`.
  /// - Throws: `CancellationError`.
  public func callAsFunction(_ inputs: consuming [Tensor], activation: Activation = .none, in context: ExecutionContext) throws -> Tensor {
    try context.engine.groupNormalization(consume inputs, by: self, activation: activation, in: context)
  }

  /// The number of channels.
  var channels: Int { weight.shape.columns }

  /// The normalisation as a scale and a shift for each picture and channel.
  struct Affine {
    /// `[N, C]`.
    let scale: Tensor, shift: Tensor
    /// The same without weight and bias: 1 / σ and −μ / σ of the channel's group.
    let rate: Tensor, offset: Tensor

    /// - Parameters:
    ///   - rows: pixels, counted across all pictures.
    ///   - result: has room for every row, or is a ring buffer of `count` rows: row i at i % count.
    func apply(to inputs: [Tensor], rows: Range<Int>, activation: Activation, into result: Tensor, in context: ExecutionContext) throws {
      precondition(activation == .none || activation == .silu, "A normalisation ends with SiLU or nothing.")
      let channels = scale.shape.columns, pixels = inputs[0].shape.rows / max(scale.shape[0], 1), places = result.shape.rows
      let run = GroupNormalization.run(channels)
      try context.parallel((rows.count + run - 1) / run) { task in
        var begin = rows.lowerBound + task * run
        let end = min(rows.upperBound, begin + run)
        while begin < end {
          let image = begin / pixels, place = begin % places
          let count = min(end - begin, (image + 1) * pixels - begin, places - place)
          var offset = 0
          for input in inputs {
            let width = input.shape.columns
            Kernels.active.scale_shift(
              activation.code, count, width, input.pointer + begin * width, scale.pointer + image * channels + offset,
              shift.pointer + image * channels + offset, result.mutablePointer + place * channels + offset, channels)
            offset += width
          }
          begin += count
        }
      }
    }
  }

  /// Pixels in a task: 32 KiB.
  static func run(_ channels: Int) -> Int { max(16, 8192 / max(channels, 1)) }

  func affine(of inputs: [Tensor], in context: ExecutionContext) throws -> Affine {
    let channels = inputs.reduce(0) { $0 + $1.shape.columns }
    precondition(channels == self.channels, "\(inputs.map(\.shape)) have not \(self.channels) channels.")
    let batch = inputs[0].shape[0]
    precondition(weight.shape.rank == 1 || weight.shape.rows == batch, "\(weight.shape.rows) pictures have scales, and \(batch) are there.")
    let pixels = inputs[0].shape.rows / max(batch, 1)
    precondition(inputs.allSatisfy { $0.shape.rows == batch * pixels }, "\(inputs.map(\.shape)) do not lie side by side.")
    let run = Self.run(channels)
    let runs = (pixels + run - 1) / run
    let moments = try moments(of: inputs, channels: channels, pixels: pixels, run: run, runs: runs, in: context)
    return affine(from: moments, batch: batch, pixels: pixels, run: run, runs: runs)
  }

  /// The mean and the sum of squared deviations of each channel over each run of pixels: `[N · runs, 2, C]`.
  private func moments(
    of inputs: [Tensor], channels: Int, pixels: Int, run: Int, runs: Int, in context: ExecutionContext
  ) throws -> Tensor {
    let batch = inputs[0].shape[0]
    let moments = Tensor(uninitialized: [batch * runs, 2, channels])
    try context.parallel(batch * runs) { task in
      let begin = task % runs * run
      var offset = task * 2 * channels
      for input in inputs {
        let width = input.shape.columns
        let start = input.pointer + (task / runs * pixels + begin) * width
        let mean = moments.mutablePointer + offset
        Kernels.active.moments(min(run, pixels - begin), width, start, mean, mean + channels)
        offset += width
      }
    }
    return moments
  }

  /// Merges the runs' moments (Chan, Golub and LeVeque 1979) into one scale and shift for each picture and channel.
  private func affine(from moments: Tensor, batch: Int, pixels: Int, run: Int, runs: Int) -> Affine {
    let channels = channels, width = channels / groups
    let scale = Tensor(uninitialized: [batch, channels]), shift = Tensor(uninitialized: [batch, channels])
    let rate = Tensor(uninitialized: [batch, channels]), offset = Tensor(uninitialized: [batch, channels])
    for image in 0..<batch {
      let own = weight.shape.rank == 1 ? 0 : image * channels
      for group in 0..<groups {
        let range = group * width..<(group + 1) * width
        var count = 0.0, mean = 0.0, m2 = 0.0
        for part in 0..<runs {
          let means = moments.pointer + (image * runs + part) * 2 * channels, squares = means + channels
          let channelCount = Double(min(run, pixels - part * run)), partCount = channelCount * Double(width)
          let partMean = range.reduce(0) { $0 + Double(means[$1]) } / Double(width)
          let partM2 = range.reduce(0) { sum, channel in
            let delta = Double(means[channel]) - partMean
            return sum + Double(squares[channel]) + channelCount * delta * delta
          }
          let delta = partMean - mean, total = count + partCount
          mean += delta * partCount / total
          m2 += partM2 + delta * delta * count * partCount / total
          count = total
        }
        let inverse = 1 / (m2 / max(count, 1) + Double(epsilon)).squareRoot()
        for channel in range {
          let factor = Double(weight.pointer[own + channel]) * inverse
          scale.mutablePointer[image * channels + channel] = Float(factor)
          shift.mutablePointer[image * channels + channel] = Float(Double(bias.pointer[own + channel]) - mean * factor)
          rate.mutablePointer[image * channels + channel] = Float(inverse)
          offset.mutablePointer[image * channels + channel] = Float(-mean * inverse)
        }
      }
    }
    return Affine(scale: scale, shift: shift, rate: rate, offset: offset)
  }
}

extension CPUEngine {
  public func groupNormalization(
    _ inputs: consuming [Tensor], by normalization: GroupNormalization, activation: Activation, in context: ExecutionContext
  ) throws -> Tensor {
    var inputs = inputs
    let isOurs = inputs.count == 1 && isKnownUniquelyReferenced(&inputs[0].storage)
    let affine = try normalization.affine(of: inputs, in: context)
    let result = isOurs ? inputs[0] : Tensor(uninitialized: Shape(inputs[0].shape.dimensions.dropLast() + [normalization.channels]))
    try affine.apply(to: inputs, rows: 0..<result.shape.rows, activation: activation, into: result, in: context)
    return result
  }

  public func layerNormalization(_ x: Tensor, weight: Tensor, bias: Tensor, epsilon: Float, in context: ExecutionContext) throws -> Tensor {
    let columns = x.shape.columns
    let result = Tensor(uninitialized: x.shape)
    try x.forRuns(in: context) { begin, rows in
      Kernels.active.layer_norm(
        rows, columns, epsilon, x.pointer + begin * columns, weight.pointer, bias.pointer, result.mutablePointer + begin * columns)
    }
    return result
  }
}

extension Tensor {
  /// Each row normalised to mean 0 and variance 1, then scaled and shifted. Source: Ba, Kiros and Hinton 2016, PyTorch's `LayerNorm`.
  ///
  /// - Parameters:
  ///   - weight: `[C]`, as `bias`.
  /// - Throws: `CancellationError`.
  public func layerNormalized(weight: Tensor, bias: Tensor, epsilon: Float, in context: ExecutionContext) throws -> Tensor {
    let columns = shape.columns
    precondition(weight.count == columns && bias.count == columns, "\(shape) has not \(weight.count) columns.")
    return try context.engine.layerNormalization(self, weight: weight, bias: bias, epsilon: epsilon, in: context)
  }
}
