import LatentDiffusion

/// An autoencoder that the library does not have: the model's own seen in a mirror, so that its effect can be told.
struct OwnAutoencoder: LatentAutoencoder {
  let inner: any LatentAutoencoder
  var spatialScale: Int { inner.spatialScale }
  var latentChannels: Int { inner.latentChannels }
  var latentScale: Float { inner.latentScale }

  func encode(_ image: Tensor, in context: ExecutionContext) throws -> EncodedPicture {
    try inner.encode(image.mirrored, in: context)
  }

  func decode(_ latents: Tensor, in context: ExecutionContext) throws -> Tensor {
    try inner.decode(latents, in: context).mirrored
  }
}

extension Tensor {
  /// `[N, H, W, C]`, left and right exchanged.
  var mirrored: Tensor {
    let columns = permuted([2, 0, 1, 3])
    let reversed = Tensor.concatenated((0..<columns.shape[0]).reversed().map { columns.rows($0..<$0 + 1) }, axis: 0)
    return reversed.permuted([1, 2, 0, 3])
  }
}
