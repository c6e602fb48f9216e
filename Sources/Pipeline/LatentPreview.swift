import LatentDiffusionComponents
import Tensor

/// A picture of latents for the price of a small matrix: red, green and blue as affine functions of the channels. What of a colour is no such function
/// is lost: where a decoder is cheap, `DiffusionPipeline.decodesPreviews` is true.
public struct LatentPreview: Sendable {
  /// For each of red, green and blue a factor for each channel, and a constant.
  private let coefficients: [[Float]]

  /// - Parameter coefficients: three rows of C factors and a constant, for values 0…1.
  /// - Precondition: there are three rows of equal length.
  public init(coefficients: [[Float]]) {
    precondition(coefficients.count == 3 && Set(coefficients.map(\.count)).count == 1, "A preview has three rows of equal length.")
    self.coefficients = coefficients
  }

  /// The affine functions that come closest, by least squares, to what the decoder makes of a picture's latents; costs one small encoding and one
  /// small decoding.
  ///
  /// The picture is one of many small squares of colour. Its latents lie where those of pictures lie, which random ones do not. An autoencoder that has no
  /// encoder is asked for the pictures of random ones all the same.
  /// - Throws: `CancellationError`, and what the autoencoder throws.
  public init(fittedTo autoencoder: any LatentAutoencoder, in context: ExecutionContext) throws {
    let scale = autoencoder.spatialScale, channels = autoencoder.latentChannels
    let latents: Tensor
    do {
      latents = autoencoder.scaled(try autoencoder.encode(Self.colours(scale: scale).centered, in: context).mode)
    } catch ComponentError.missingPart {
      latents = Self.squares(channels: channels)
    }
    let inputs = latents.elements.map(Double.init)
    let targets = try autoencoder.image(of: latents, in: context).averaged(over: scale).elements.map(Double.init)
    let count = inputs.count / channels
    let observations = (0..<count).map { Array(inputs[$0 * channels..<($0 + 1) * channels]) + [1] }
    let equations = NormalEquations(observations, ridge: 1e-3 * Double(count))
    var factors = equations.solution(for: (0..<count).map { Array(targets[$0 * 3..<$0 * 3 + 3]) })
    // A colour at the end of its range says that the function is there or beyond; only what falls short of it counts as an error.
    for _ in 0..<5 {
      let aims = (0..<count).map { index in
        (0..<3).map { output in
          let target = targets[index * 3 + output]
          let prediction = zip(factors[output], observations[index]).reduce(0) { $0 + $1.0 * $1.1 }
          return target >= 0.98 ? max(target, prediction) : target <= 0.02 ? min(target, prediction) : target
        }
      }
      factors = equations.solution(for: aims)
    }
    self.init(coefficients: factors.map { $0.map(Float.init) })
  }

  /// `[1, h, w, C]`: squares of two latents a side, standard normal, as scaled latents are.
  private static func squares(channels: Int) -> Tensor {
    var generator = TorchGenerator(seed: 0)
    return Tensor(generator.normal(cells * cells * channels), shape: [1, cells, cells, channels])
      .resizedNearest(height: 2 * cells, width: 2 * cells)
  }

  private static let cells = 12

  /// `[1, H, W, 3]`, 0…1: squares of two latents a side, half of them in the corners of the colour cube, some white, as much of a picture is, and the
  /// rest between. Where they lie is random, but always the same, since a regular pattern would be seen by the encoder as one.
  private static func colours(scale: Int) -> Tensor {
    let side = 2 * scale
    var state: UInt32 = 0
    func draw() -> UInt32 {
      // Numerical Recipes' generator: nothing here asks for a better one.
      state = state &* 1_664_525 &+ 1_013_904_223
      return state
    }
    let palette = (0..<cells * cells).map { _ -> [Float] in
      let kind = draw() >> 28
      if kind >= 13 { return [1, 1, 1] }
      if kind < 8 { return [Float(kind >> 2 & 1), Float(kind >> 1 & 1), Float(kind & 1)] }
      return (0..<3).map { _ in Float((draw() >> 16) % 3) / 2 }
    }
    let pixels = cells * side
    let colours = (0..<pixels * pixels).flatMap { pixel -> [Float] in
      let (row, column) = (pixel / pixels / side, pixel % pixels / side)
      return palette[row * cells + column]
    }
    return Tensor(colours, shape: [1, pixels, pixels, 3])
  }

  /// - Parameter latents: `[N, h, w, C]`, scaled as the noise predictor sees them.
  /// - Returns: `[N, h, w, 3]`, 0…1.
  public func image(of latents: Tensor) -> Tensor {
    let channels = latents.shape.columns
    let elements = latents.elements
    var colors: [Float] = []
    colors.reserveCapacity(latents.shape.rows * 3)
    for pixel in 0..<latents.shape.rows {
      for row in coefficients {
        var value = row[channels]
        for channel in 0..<channels { value += row[channel] * elements[pixel * channels + channel] }
        colors.append(min(max(value, 0), 1))
      }
    }
    return Tensor(colors, shape: Shape(latents.shape.dimensions.dropLast() + [3]))
  }
}

/// A linear least-squares problem: the same inputs for any outputs.
private struct NormalEquations {
  private let observations: [[Double]]
  private let matrix: [[Double]]

  /// - Parameters:
  ///   - observations: the inputs, the last of which is constant.
  ///   - ridge: what is added to the diagonal, but for the constant's: it decides for small factors where the observations leave a choice.
  init(_ observations: [[Double]], ridge: Double) {
    self.observations = observations
    let unknowns = observations.first?.count ?? 0
    var matrix = (0..<unknowns).map { row in (0..<unknowns).map { $0 == row ? row == unknowns - 1 ? 1e-9 : ridge : 0 } }
    for inputs in observations {
      for row in 0..<unknowns { for column in 0..<unknowns { matrix[row][column] += inputs[row] * inputs[column] } }
    }
    self.matrix = matrix
  }

  /// For each output the factors of the inputs. Elimination without pivoting: the matrix is positive definite.
  func solution(for outputs: [[Double]]) -> [[Double]] {
    let unknowns = matrix.count, count = outputs.first?.count ?? 0
    var rows = matrix.map { $0 + Array(repeating: 0, count: count) }
    for (inputs, values) in zip(observations, outputs) {
      for row in 0..<unknowns { for output in 0..<count { rows[row][unknowns + output] += inputs[row] * values[output] } }
    }
    for pivot in rows.indices {
      let scale = rows[pivot][pivot]
      rows[pivot] = rows[pivot].map { $0 / scale }
      for row in rows.indices where row != pivot {
        let factor = rows[row][pivot]
        rows[row] = zip(rows[row], rows[pivot]).map { $0 - factor * $1 }
      }
    }
    return (0..<count).map { output in rows.map { $0[unknowns + output] } }
  }
}
