import LatentDiffusionComponents
import LatentDiffusionTrainingData
import Tensor

/// Pictures of a folder as autoencoders learn from them.
public struct AutoencoderPictures: TrainingDataset {
  private var batches: BatchOrder.Batches
  private let scale: Int, channels: Int

  /// - Parameters:
  ///   - order: of the pictures, whose sizes are multiples of the autoencoder's scale.
  ///   - autoencoder: that learns.
  /// - Throws: `ComponentError.indivisibleSide` for other sizes.
  public init(_ order: BatchOrder, for autoencoder: any LatentAutoencoder) throws {
    batches = try order.batches()
    (scale, channels) = (autoencoder.spatialScale, autoencoder.latentChannels)
    for side in order.framing.buckets.sizes.flatMap({ [$0.width, $0.height] }) where !side.isMultiple(of: scale) {
      throw ComponentError.indivisibleSide(component: "The autoencoder", side: side, multiple: scale)
    }
  }

  public mutating func batch(
    _ number: Int, drawing generator: inout TorchGenerator, in context: ExecutionContext
  ) throws -> AutoencoderReconstruction.Batch {
    let images = try batches.batch(number).images(in: context)
    let shape: Shape = [images.shape[0], images.shape[1] / scale, images.shape[2] / scale, channels]
    return AutoencoderReconstruction.Batch(images: images, noise: generator.normal(channelsLast: shape))
  }
}
