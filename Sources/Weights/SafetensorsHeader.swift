/// The header of a safetensors file: a JSON object of `{"dtype": …, "shape": […], "data_offsets": [begin, end]}` for each name.
///
/// What the reference implementation accepts is accepted, except duplicate names: the format forbids them, but the reference does not refuse them.
struct SafetensorsHeader {
  struct Entry {
    let name: String
    let elementType: String
    let shape: [Int]
    /// Where the tensor's bytes are, counted from the end of the header.
    let begin: Int
    let end: Int
  }

  typealias Problem = JSONScanner.Problem

  /// No module is nested so deeply that its name is longer, and the limit protects the code that looks names up.
  private static let longestName = 4096

  private(set) var metadata: [String: String] = [:]
  private(set) var entries: [Entry] = []

  init(_ bytes: [UInt8]) throws(Problem) {
    var scanner = JSONScanner(bytes)
    var names: Set<String> = []
    guard scanner.beginsObject else { throw Problem(reason: "it is no JSON object") }
    try scanner.object { scanner, name throws(Problem) in
      guard name.utf8.count <= Self.longestName else { throw Problem(reason: "a name is longer than \(Self.longestName) bytes") }
      guard names.insert(name).inserted else { throw Problem(reason: "the name \(name) occurs twice") }
      if name == "__metadata__" {
        metadata = try Self.metadata(&scanner)
      } else {
        entries.append(try Self.entry(name, &scanner))
      }
    }
    guard scanner.isAtEnd else { throw Problem(reason: "something follows its JSON object") }
  }

  private static func metadata(_ scanner: inout JSONScanner) throws(Problem) -> [String: String] {
    var metadata: [String: String] = [:]
    guard try !scanner.skipsNull() else { return metadata }
    // If a key occurs twice, the last value counts.
    try scanner.object { scanner, key throws(Problem) in metadata[key] = try scanner.string() }
    return metadata
  }

  private static func entry(_ name: String, _ scanner: inout JSONScanner) throws(Problem) -> Entry {
    var type: String?
    var shape: [Int]?
    var offsets: [Int]?
    try scanner.object { scanner, key throws(Problem) in
      let isFirst: Bool
      switch key {
      case "dtype": (isFirst, type) = (type == nil, try scanner.string())
      case "shape": (isFirst, shape) = (shape == nil, try scanner.numbers())
      case "data_offsets": (isFirst, offsets) = (offsets == nil, try scanner.numbers())
      default:
        isFirst = true
        try scanner.skipValue()
      }
      guard isFirst else { throw Problem(reason: "\(key) occurs twice for the tensor \(name)") }
    }
    guard let type, let shape, let offsets, offsets.count == 2 else {
      throw Problem(reason: "the tensor \(name) lacks its dtype, its shape or its two data_offsets")
    }
    return Entry(name: name, elementType: type, shape: shape, begin: offsets[0], end: offsets[1])
  }
}
