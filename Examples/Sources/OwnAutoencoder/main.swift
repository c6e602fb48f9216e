import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

// step: 2
/// An autoencoder of one's own: another one, whose pictures it makes sharper.
struct OwnAutoencoder: LatentAutoencoder {
  let base: any LatentAutoencoder
  /// How much of what blurring takes away is added.
  let amount: Float

  var spatialScale: Int { base.spatialScale }
  var latentChannels: Int { base.latentChannels }
  var latentScale: Float { base.latentScale }
  var latentShift: Float { base.latentShift }

  func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture { try base.encode(image, in: context) }

  func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    let decoded = try base.decode(latents, in: context)
    return decoded + amount * (decoded - decoded.blurred)
  }
}

// end step
extension Tensor {
  /// `[N, H, W, C]`: each pixel is the mean of itself and its eight neighbours.
  var blurred: Tensor { permuted([1, 2, 0, 3]).meanOfNeighbours.permuted([1, 0, 2, 3]).meanOfNeighbours.permuted([2, 1, 0, 3]) }

  /// Each row of the outermost axis is the mean of itself and both its neighbours; beyond the ends are the ends.
  private var meanOfNeighbours: Tensor {
    let last = shape[0] - 1
    let before = Tensor.concatenated([rows(0..<1), rows(0..<last)], axis: 0)
    let after = Tensor.concatenated([rows(1..<last + 1), rows(last..<last + 1)], axis: 0)
    return (before + self + after) / 3
  }
}

// step: 3
// Draws the same picture with a model's autoencoder and with one that sharpens, side by side: OwnAutoencoder [MODEL].
do {
  let arguments = CommandLine.arguments.dropFirst()
  let model = try StableDiffusion.load(from: arguments.first.map { URL(filePath: $0) } ?? EmojiModel.folder())
  let request = model.request("red apple", seed: 42)

  // snippet: pipeline
  var pipeline = model.pipeline
  pipeline.autoencoder = OwnAutoencoder(base: pipeline.autoencoder, amount: 1)
  // end snippet

  // step: 4
  let pictures = [
    try await model.pipeline.images(for: request)[0].image, try await pipeline.images(for: request)[0].image,
  ]
  try Picture(Tensor.concatenated(pictures, axis: 2)).write(to: URL(filePath: "sharpened.png"))
  print("The pictures are in sharpened.png.")
  // step: 3
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
