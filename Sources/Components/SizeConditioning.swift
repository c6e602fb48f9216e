/// What models of the kind of SDXL are told of a picture beside its text: in training, how large the original was, where it was cut, and how people
/// liked it. Source: Podell et al. 2023 (arXiv:2307.01952), section 2.2; `original_size`, `crops_coords_top_left`, `target_size` and
/// `aesthetic_score` of diffusers' `StableDiffusionXLPipeline` and `StableDiffusionXLImg2ImgPipeline`.
public struct SizeConditioning: Sendable, Hashable {
  /// Of the original; nil: that of the picture.
  public var original: PixelSize?
  /// What was cut off at the original's top and left; nil: nothing, and for what to stay away from, what the model's pipeline in diffusers takes.
  public var crop: Crop?
  /// What the original became; nil: the size of the picture.
  public var target: PixelSize?
  /// How people like it, from 1 to 10, for models that were told this instead of `target`; nil: 6, and 2.5 for what to stay away from.
  public var aestheticScore: Double?

  /// - Parameters:
  ///   - original: of the original; nil: that of the picture.
  ///   - crop: what was cut off at its top and left.
  ///   - target: what it became; nil: the size of the picture.
  ///   - aestheticScore: how people like it; nil: 6, and 2.5 for what to stay away from.
  public init(
    original: PixelSize? = nil, crop: Crop? = nil, target: PixelSize? = nil, aestheticScore: Double? = nil
  ) {
    (self.original, self.crop, self.target, self.aestheticScore) = (original, crop, target, aestheticScore)
  }

  /// Pixels that are cut off.
  public struct Crop: Sendable, Hashable {
    /// At the top.
    public var top: Int
    /// At the left.
    public var left: Int

    /// Of these numbers of pixels.
    public init(top: Int, left: Int) { (self.top, self.left) = (top, left) }
  }
}
