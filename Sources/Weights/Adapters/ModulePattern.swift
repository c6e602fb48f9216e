/// A pattern of modules' names: a regular expression that must match all of a name, or all that follows one of its dots.
///
/// Source: PEFT's `get_pattern_key`, which asks for `(.*\.)?(pattern)$`.
package struct ModulePattern: Sendable {
  private enum Kind: Sendable {
    /// A name, as nearly all patterns are; nil for a dot, which stands for any character.
    case name([UInt8?])
    /// Compiled for each name: a compiled expression cannot be sent.
    case expression(String)
  }

  private let kind: Kind

  /// - Throws: what is wrong with the expression.
  package init(_ pattern: String) throws {
    guard pattern.utf8.allSatisfy({ Self.isNameByte($0) }) else {
      kind = .expression(pattern)
      _ = try Self.compiled(pattern)
      return
    }
    kind = .name(pattern.utf8.map { $0 == UInt8(ascii: ".") ? nil : $0 })
  }

  private static func isNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): true
    default: [UInt8(ascii: "_"), UInt8(ascii: "."), UInt8(ascii: "-")].contains(byte)
    }
  }

  private static func compiled(_ pattern: String) throws -> Regex<AnyRegexOutput> { try Regex("(.*\\.)?(\(pattern))") }

  package func matches(_ module: String) -> Bool {
    switch kind {
    case .name(let name):
      let bytes = Array(module.utf8), start = bytes.count - name.count
      guard start == 0 || start > 0 && bytes[start - 1] == UInt8(ascii: ".") else { return false }
      return zip(name, bytes[start...]).allSatisfy { $0 == nil || $0 == $1 }
    case .expression(let pattern):
      return (try? Self.compiled(pattern).wholeMatch(in: module)) != nil
    }
  }
}
