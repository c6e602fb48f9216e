import LatentDiffusionComponents

/// How much a generation has to do at once: what its memory follows from.
public struct GenerationExtent: Sendable, Equatable {
  /// Of the pictures in the model.
  public var size: PixelSize
  /// Pictures of the request, all in the same passes.
  public var images: Int
  /// Rows of a pass for each picture: 2 with guidance, 1 without, 3 for edits, and one more for each further part of a prompt.
  public var rowsPerImage: Int
  /// Whether all rows of a picture see the same latents, so that what comes before the text is computed once; not for edits.
  public var sharesLatents: Bool
  /// Whether a picture is encoded first.
  public var encodesPicture: Bool
  /// Frames of each clip; nil for pictures.
  public var frames: Int?
  /// In which clips are drawn; nil: in one pass, in which every frame sees all.
  public var frameWindows: FrameWindows?
  /// Of those, the frames that are decoded together where they see one another; nil: all.
  public var framesDecodedTogether: Int?
  /// Tokens of the longest text; nil: as many as the text encoder reads at once.
  public var contextLength: Int?
  /// The names of the networks that steer the generation (`ControlModel.name`).
  public var controls: [String] = []

  /// - Parameters:
  ///   - size: of the pictures in the model.
  ///   - images: in the same passes.
  ///   - rowsPerImage: 2 with guidance, 1 without.
  ///   - sharesLatents: whether all rows of a picture see the same latents.
  ///   - encodesPicture: whether the generation starts from a picture.
  public init(size: PixelSize, images: Int = 1, rowsPerImage: Int = 2, sharesLatents: Bool = true, encodesPicture: Bool = false) {
    (self.size, self.images, self.rowsPerImage) = (size, images, rowsPerImage)
    (self.sharesLatents, self.encodesPicture) = (sharesLatents, encodesPicture)
  }
}
