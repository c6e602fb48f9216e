/// A token's spelling in UTF-8. (Swift's `String` treats canonically equivalent spellings as equal.)
typealias Spelling = [UInt8]

/// The printable characters that stand for the 256 bytes in a byte-level vocabulary (GPT-2, `bytes_to_unicode`).
enum ByteAlphabet {
  static let endOfWord = Spelling("</w>".utf8)

  /// The bytes in the order in which CLIP's vocabulary begins: printable Latin-1 first.
  static let order: [UInt8] = printable + (0...255).filter { !printable.contains($0) }

  /// The character of each byte.
  static let characters: [Unicode.Scalar] = {
    var characters = [Unicode.Scalar](repeating: " ", count: 256)
    for (index, byte) in order.enumerated() {
      let value = index < printable.count ? UInt32(byte) : UInt32(256 + index - printable.count)
      characters[Int(byte)] = Unicode.Scalar(value) ?? " "
    }
    return characters
  }()

  private static let printable = [UInt8](0x21...0x7E) + [UInt8](0xA1...0xAC) + [UInt8](0xAE...0xFF)
  private static let bytes = Dictionary(uniqueKeysWithValues: zip(characters, UInt8.min...UInt8.max))

  static func spelling(of byte: UInt8) -> Spelling {
    Spelling(String(characters[Int(byte)]).utf8)
  }

  /// The bytes that a token stands for; the bytes of its spelling if that has a character outside of the alphabet.
  static func bytes(of token: Spelling) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(token.count)
    for scalar in String(decoding: token, as: UTF8.self).unicodeScalars {
      guard let byte = bytes[scalar] else { return token }
      result.append(byte)
    }
    return result
  }
}
