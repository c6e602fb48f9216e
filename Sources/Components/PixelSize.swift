/// The size of a picture in pixels.
public struct PixelSize: Sendable, Hashable {
  /// Pixels.
  public let width: Int
  /// Pixels.
  public let height: Int

  /// A size in pixels; whether a model can work in it, a generation says.
  public init(width: Int, height: Int) {
    self.width = width
    self.height = height
  }

  /// The size of about as many pixels as this one, in the proportions of a picture; for a picture without pixels, this one.
  ///
  /// - Parameter multiple: what both sides are to be multiples of.
  public func inProportions(of picture: PixelSize, multiple: Int) -> PixelSize {
    guard picture.width > 0, picture.height > 0, multiple > 0 else { return self }
    let factor = (Double(width) * Double(height) / Double(picture.width) / Double(picture.height)).squareRoot()
    func side(_ pixels: Int) -> Int { max(1, Int(min(Double(pixels) * factor / Double(multiple), 1e15).rounded())) * multiple }
    return PixelSize(width: side(picture.width), height: side(picture.height))
  }
}
