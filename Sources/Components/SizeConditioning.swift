/// What models of the kind of SDXL are told of a picture beside its text: in training, how large the original was, where it was cut, and how people
/// liked it. Source: Podell et al. 2023 (arXiv:2307.01952), section 2.2; `original_size`, `crops_coords_top_left`, `target_size` and
/// `aesthetic_score` of diffusers' `StableDiffusionXLPipeline` and `StableDiffusionXLImg2ImgPipeline`.
public struct SizeConditioning: Sendable, Hashable {
  /// Of the original; nil: that of the picture.
  public var original: PixelSize?
  /// Pixels that were cut off at the original's top.
  public var cropTop: Int
  /// Pixels that were cut off at the original's left.
  public var cropLeft: Int
  /// What the original became; nil: the size of the picture.
  public var target: PixelSize?
  /// How people like it, from 1 to 10, for models that were told this instead of `target`; nil: 6, and 2.5 for what to stay away from.
  public var aestheticScore: Double?

  /// - Parameters:
  ///   - original: of the original; nil: that of the picture.
  ///   - cropTop: pixels that were cut off at its top.
  ///   - cropLeft: pixels that were cut off at its left.
  ///   - target: what it became; nil: the size of the picture.
  ///   - aestheticScore: how people like it; nil: 6, and 2.5 for what to stay away from.
  public init(
    original: PixelSize? = nil, cropTop: Int = 0, cropLeft: Int = 0, target: PixelSize? = nil, aestheticScore: Double? = nil
  ) {
    (self.original, self.cropTop, self.cropLeft) = (original, cropTop, cropLeft)
    (self.target, self.aestheticScore) = (target, aestheticScore)
  }
}
