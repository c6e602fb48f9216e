import Components
import Tensor

/// A picture of latents for the price of a small matrix: red, green and blue as affine functions of the channels.
public struct LatentPreview: Sendable {
  /// For each of red, green and blue a factor for each channel, and a constant.
  private let coefficients: [[Float]]

  /// - Parameter coefficients: three rows of C factors and a constant, for values 0…1.
  /// - Precondition: there are three rows of equal length.
  public init(coefficients: [[Float]]) {
    precondition(coefficients.count == 3 && Set(coefficients.map(\.count)).count == 1, "A preview has three rows of equal length.")
    self.coefficients = coefficients
  }

  /// The affine functions that come closest, by least squares, to what a decoder makes of random patches; costs one small decode.
  /// - Throws: `CancellationError`, and what the autoencoder throws.
  public init(fittedTo autoencoder: any LatentAutoencoder, in context: ExecutionContext) throws {
    let (side, patch, channels) = (16, 4, autoencoder.latentChannels)
    // Patches of one colour, since the colour of a surface is what a preview is to show.
    let patches = side / patch
    var generator = TorchGenerator(seed: 0)
    let colors = generator.normal(patches * patches * channels)
    let latents = Tensor(
      (0..<side * side).flatMap { pixel -> ArraySlice<Float> in
        let index = (pixel / side / patch * patches + pixel % side / patch) * channels
        return colors[index..<index + channels]
      }, shape: [1, side, side, channels])
    let image = try autoencoder.image(of: latents, in: context)
    let means = image.averaged(over: autoencoder.spatialScale).elements
    let inputs = latents.elements
    var equations = NormalEquations(unknowns: channels + 1, outputs: 3)
    for pixel in 0..<side * side {
      equations.add(
        inputs[pixel * channels..<(pixel + 1) * channels].map(Double.init) + [1], means[pixel * 3..<pixel * 3 + 3].map(Double.init))
    }
    self.init(coefficients: equations.solution().map { $0.map(Float.init) })
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

/// A linear least-squares problem, added up an observation at a time.
private struct NormalEquations {
  private var matrix: [[Double]]

  /// A little on the diagonal decides for the smallest solution where the observations leave a choice.
  init(unknowns: Int, outputs: Int) {
    matrix = (0..<unknowns).map { row in (0..<unknowns + outputs).map { $0 == row ? 1e-9 : 0 } }
  }

  mutating func add(_ inputs: [Double], _ outputs: [Double]) {
    let observation = inputs + outputs
    for (row, input) in inputs.enumerated() {
      for (column, value) in observation.enumerated() { matrix[row][column] += input * value }
    }
  }

  /// For each output the factors of the inputs. Elimination without pivoting: the matrix is positive definite.
  func solution() -> [[Double]] {
    var rows = matrix
    for pivot in rows.indices {
      let scale = rows[pivot][pivot]
      rows[pivot] = rows[pivot].map { $0 / scale }
      for row in rows.indices where row != pivot {
        let factor = rows[row][pivot]
        rows[row] = zip(rows[row], rows[pivot]).map { $0 - factor * $1 }
      }
    }
    return (rows.count..<(rows.first?.count ?? 0)).map { output in rows.map { $0[output] } }
  }
}
