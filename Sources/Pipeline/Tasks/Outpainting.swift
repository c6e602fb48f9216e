import Tensor

extension Inpainting {
  /// A larger canvas around a picture, the new part of which is painted.
  ///
  /// The picture itself comes back exactly; `keepsPixelsOutsideMask` says so and can be changed.
  ///
  /// - Parameters:
  ///   - image: `[N, H, W, 3]`, 0…1.
  ///   - left: pixels to add on this side, as are the others; 0 or more, and not all of them 0.
  /// - Throws: `GenerationError` where a side is negative or the canvas too large.
  public static func outpainting(
    _ image: Tensor, left: Int = 0, right: Int = 0, top: Int = 0, bottom: Int = 0, strength: Double = 1
  ) throws(GenerationError) -> Inpainting {
    try image.checkPicture("The image", channels: 3)
    let allowed = "0…\(GenerationRequest.maximumPixels)"
    for (name, side) in [("left", left), ("right", right), ("top", top), ("bottom", bottom)] {
      guard (0...GenerationRequest.maximumPixels).contains(side) else {
        throw .outOfRange(name: "The border \(name)", value: "\(side)", allowed: allowed)
      }
    }
    guard left + right + top + bottom > 0 else {
      throw .outOfRange(name: "The border", value: "0 on all sides", allowed: "more than 0 on at least one")
    }
    let (width, height) = (image.shape[2] + left + right, image.shape[1] + top + bottom)
    guard Shape([image.shape[0], width, height]).count <= GenerationRequest.maximumPixels else {
      throw .tooLarge(width: width, height: height, images: image.shape[0])
    }
    let mask = (0..<height).flatMap { y in
      (0..<width).map { x in
        (top..<top + image.shape[1]).contains(y) && (left..<left + image.shape[2]).contains(x) ? Float(0) : 1
      }
    }
    // The border repeats the picture's edge: it is what the autoencoder sees beside the picture, and a picture that ends in black
    // would leave a dark seam.
    return Inpainting(
      image: image.extended(left: left, right: right, top: top, bottom: bottom), mask: Tensor(mask, shape: [1, height, width, 1]),
      strength: strength, keepsPixelsOutsideMask: true)
  }
}
