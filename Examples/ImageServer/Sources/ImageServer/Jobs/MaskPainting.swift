/// How a mask is used where the webui's way is asked for, with a soft edge; diffusers has a sharp one.
///
/// Lengths are pixels of the mask as it is sent.
struct MaskPainting: Sendable, Equatable, Codable {
  /// Whether black is painted anew, and not white.
  var isInverted = false
  /// The standard deviation of the edge's blur along rows.
  var blurX = 0.0
  /// The same along columns.
  var blurY = 0.0
  /// Whether what is below the mask is filled from around it before it is drawn over.
  var fills = false
  /// Draws only the part around the mask, with so many pixels around it, at the size that is asked for; nil: the whole picture.
  var padding: Int?

  /// As the webui writes them into a picture.
  var parameters: [(name: String, value: String?)] {
    let blur = blurX == blurY ? Self.text(blurX) : "\(Self.text(blurX)), \(Self.text(blurY))"
    return [
      ("Mask mode", isInverted ? "Inpaint not masked" : nil), ("Mask blur", max(blurX, blurY) > 0 ? blur : nil),
      ("Inpaint area", padding == nil ? nil : "Only masked"), ("Masked area padding", padding.map { "\($0)" }),
      ("Masked content", fills ? "fill" : nil),
    ]
  }

  private static func text(_ number: Double) -> String { "\(number)".hasSuffix(".0") ? String("\(number)".dropLast(2)) : "\(number)" }
}
