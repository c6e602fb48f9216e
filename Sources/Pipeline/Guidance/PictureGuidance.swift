import Tensor

/// Two scales, for the text and for the picture beside the latents. Source: Brooks, Holynski and Efros 2022 (arXiv:2211.09800), equation 3.
public struct PictureGuidance: Guidance {
  /// s_T: how far from the negative prompt to the prompt.
  public var text: Float
  /// s_I: how far from a prediction without the picture to one with it.
  public var picture: Float

  /// - Parameters:
  ///   - text: s_T.
  ///   - picture: s_I.
  public init(text: Float, picture: Float) { (self.text, self.picture) = (text, picture) }

  public var rows: [GuidanceRow] {
    [GuidanceRow(.prompt), GuidanceRow(.negativePrompt), GuidanceRow(.negativePrompt, seesPicture: false)]
  }

  public func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    let (both, pictureAlone, neither) = (predictions[0], predictions[1], predictions[2])
    return neither + text * (both - pictureAlone) + picture * (pictureAlone - neither)
  }
}
