import Tensor

/// Two scales, for the text and for the picture beside the latents. Source: Brooks, Holynski and Efros 2022 (arXiv:2211.09800), equation 3.
public struct PictureGuidance: Guidance {
  /// s_T: how far from the negative prompt to the prompt.
  public var text: Float
  /// s_I: how far from a prediction without the picture to one with it.
  public var picture: Float
  /// How much of the spread of the prediction with both is restored, 0…1 (`guidance_rescale`, section 3.4 of arXiv:2305.08891).
  public var rescale: Float

  /// - Parameters:
  ///   - text: s_T.
  ///   - picture: s_I.
  ///   - rescale: 0…1.
  public init(text: Float, picture: Float, rescale: Float = 0) { (self.text, self.picture, self.rescale) = (text, picture, rescale) }

  public var rows: [GuidanceRow] {
    [GuidanceRow(.prompt), GuidanceRow(.negativePrompt), GuidanceRow(.negativePrompt, seesPicture: false)]
  }

  public func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    let (both, pictureAlone, neither) = (predictions[0], predictions[1], predictions[2])
    return (neither + text * (both - pictureAlone) + picture * (pictureAlone - neither)).rescaled(to: both, by: rescale)
  }
}
