import LatentDiffusion

/// A noise predictor that the library has never seen, made of its layers.
struct OwnNetwork: NoisePredictor {
  let inputChannels = 4
  let outputChannels = 4
  private let convIn: Convolution2D
  private let resnet: ResnetBlock2D
  private let convOut: Convolution2D

  init(weights: WeightScope) throws {
    convIn = try Convolution2D(4, 64, kernel: 3, padding: 1, weights: weights["conv_in"])
    resnet = try ResnetBlock2D(64, 128, timeChannels: nil, groups: 4, epsilon: 1e-5, weights: weights["resnet"])
    convOut = try Convolution2D(128, 4, kernel: 1, weights: weights["conv_out"])
  }

  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    var x = try convIn(latents, in: context)
    x = try resnet([consume x], in: context)
    return try convOut(x, in: context)
  }

  /// Multiplications and additions for each latent.
  static let operations = 2 * (9 * 4 * 64 + 9 * 64 * 128 + 9 * 128 * 128 + 64 * 128 + 128 * 4)
}
