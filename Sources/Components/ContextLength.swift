import Tensor

/// Texts of different lengths: prompts that are read in chunks have contexts of as many tokens as all their chunks.
extension Conditioning {
  /// Tokens of the text context; 0 where there is none.
  public var length: Int { contexts.first.map { $0.shape.dimensions.dropLast().last ?? 0 } ?? 0 }

  /// How many times the longest text a length may be that several texts have in common.
  private static let mostRepetitions = 16

  /// The length that texts of these lengths are brought to where they go through a predictor together.
  ///
  /// - Parameter profile: in the webui the shorter ones repeat their last state. compel's have empty texts behind them already
  ///   (`ConditioningRequest.length`). Otherwise whole texts are repeated until they are equally long, as in ComfyUI:
  ///   what attends to a text twice sees the same as in one that stands there once.
  /// - Throws: `ComponentError.differentConditionings` where repeating would make the texts far longer.
  public static func commonLength(_ lengths: [Int], profile: PromptProfile) throws(ComponentError) -> Int {
    let longest = lengths.max() ?? 0
    guard profile != .webui, profile != .compel, !lengths.contains(0) else { return longest }
    var common = 1
    for length in lengths {
      common = common / greatestCommonDivisor(common, length) * length
      guard common <= mostRepetitions * longest else {
        throw .differentConditionings(
          "their texts have \(Set(lengths).sorted().map(String.init).joined(separator: ", ")) tokens; draw them one by one")
      }
    }
    return common
  }

  private static func greatestCommonDivisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : greatestCommonDivisor(b, a % b) }

  /// The same conditionings, whose texts have one length.
  /// - Throws: what `commonLength` throws.
  public static func ofOneLength(_ parts: [Conditioning], profile: PromptProfile) throws(ComponentError) -> [Conditioning] {
    let lengths = parts.map(\.length)
    guard Set(lengths).count > 1 else { return parts }
    let common = try commonLength(lengths, profile: profile)
    return parts.map { $0.lengthened(to: common, repeatsLast: profile == .webui) }
  }

  /// A text of frames stays as it is.
  private func lengthened(to length: Int, repeatsLast: Bool) -> Conditioning {
    guard let text = contexts.first, text.shape.rank == 3, text.shape[1] > 0, text.shape[1] < length else { return self }
    let own = text.shape[1], tokens = text.reshaped([rows * own, text.shape[2]])
    let places = (0..<rows).flatMap { row in (0..<length).map { row * own + (repeatsLast ? min($0, own - 1) : $0 % own) } }
    var result = self
    result.contexts[0] = tokens.rows(at: places).reshaped([rows, length, text.shape[2]])
    return result
  }
}
