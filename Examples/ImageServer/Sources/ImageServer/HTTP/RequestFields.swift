import Foundation

/// The fields of a request, by their names. They are taken one by one; what is left over was not understood.
///
/// A value of another type, or beyond its range, is an error that names the field. Forms have only texts, so their numbers are read from texts.
struct RequestFields: Sendable {
  private let values: [String: JSONValue]
  /// Whether numbers and truth values may be texts, as in forms.
  private let readsTexts: Bool
  /// What stands before the names in errors: `loras[0].`.
  private let path: String
  private var taken: Set<String> = []
  /// Of a body: as many as a prompt may have, too.
  private static let mostCommas = 20_000
  /// In the mean of a text, at most.
  private static let bytesOfLetter = 8

  init(_ values: [String: JSONValue], readsTexts: Bool = false, path: String = "") {
    (self.values, self.readsTexts, self.path) = (values, readsTexts, path)
  }

  /// - Parameter body: JSON, an object.
  /// - Throws: `ServerError`.
  init(json body: Data) throws(ServerError) {
    // No request has many values, and each takes its time to read. Base64 has no commas.
    guard body.count(where: { $0 == UInt8(ascii: ",") }) <= Self.mostCommas else {
      throw ServerError(.badRequest, "The body has more than \(Self.mostCommas) values.")
    }
    guard let value = try? JSONDecoder().decode(JSONValue.self, from: body) else {
      throw ServerError(.badRequest, "The body is no JSON, or has a number that is out of all range.")
    }
    guard case .object(let object) = value else { throw ServerError(.badRequest, "The body must be a JSON object, not \(value.kind).") }
    self.init(object)
  }

  /// The names of those that nothing has asked for, in order.
  var left: [String] { values.keys.filter { !taken.contains($0) && values[$0] != .null }.sorted().map { path + $0 } }

  /// All of them.
  var sent: [String: JSONValue] { values }

  /// The whole path of a field.
  func name(_ name: String) -> String { path + name }

  /// Any value; nil where there is none, or null.
  mutating func value(_ name: String) -> JSONValue? {
    taken.insert(name)
    guard let value = values[name], value != .null else { return nil }
    return value
  }

  mutating func text(_ name: String, most length: Int = .max) throws(ServerError) -> String? {
    guard let value = value(name) else { return nil }
    guard case .text(let text) = value else { throw wrong(name, value, "a text") }
    // A letter with its marks can have any number of bytes, which would be kept and listed with a job.
    guard text.utf8.count <= length || (text.utf8.count / Self.bytesOfLetter <= length && text.count <= length) else {
      throw .field(path + name, "\(path)\(name) is too long; give at most \(length) letters, of \(Self.bytesOfLetter) bytes in the mean.")
    }
    return text
  }

  mutating func flag(_ name: String) throws(ServerError) -> Bool? {
    guard let value = value(name) else { return nil }
    switch value {
    case .flag(let flag): return flag
    case .text("true") where readsTexts, .text("1") where readsTexts: return true
    case .text("false") where readsTexts, .text("0") where readsTexts: return false
    default: throw wrong(name, value, "true or false")
    }
  }

  mutating func number(_ name: String, in range: ClosedRange<Double>) throws(ServerError) -> Double? {
    guard let value = value(name) else { return nil }
    let number: Double? =
      switch value {
      case .whole(let whole): Double(whole)
      case .number(let number): number
      case .text(let text) where readsTexts: Double(text)
      default: nil
      }
    guard let number else { throw wrong(name, value, "a number") }
    guard range.contains(number) else {
      throw .field(path + name, "\(path)\(name) is \(number); it must be from \(range.lowerBound) to \(range.upperBound).")
    }
    return number
  }

  mutating func integer(_ name: String, in range: ClosedRange<Int>) throws(ServerError) -> Int? {
    guard let number = try number(name, in: -1e18...1e18) else { return nil }
    guard let whole = Int(exactly: number) else { throw .field(path + name, "\(path)\(name) must be a whole number, not \(number).") }
    guard range.contains(whole) else {
      throw .field(path + name, "\(path)\(name) is \(whole); it must be from \(range.lowerBound) to \(range.upperBound).")
    }
    return whole
  }

  /// A seed; nil where there is none, or -1.
  mutating func seed(_ name: String) throws(ServerError) -> UInt64? {
    switch value(name) {
    case nil, .number(-1),
      .text("-1") where readsTexts:
      return nil
    case .whole(let seed): return seed
    case .text(let text) where readsTexts && UInt64(text) != nil: return UInt64(text)
    case .some(let value): throw wrong(name, value, "a whole number from 0 to \(UInt64.max), or -1 for a random one")
    }
  }

  mutating func choice(_ name: String, among words: [String]) throws(ServerError) -> String? {
    guard let text = try text(name, most: 200) else { return nil }
    guard words.contains(text) else {
      throw .field(path + name, "\(path)\(name) is \"\(text)\"; it must be one of \(words.joined(separator: ", ")).")
    }
    return text
  }

  mutating func object(_ name: String) throws(ServerError) -> RequestFields? {
    guard let value = value(name) else { return nil }
    guard case .object(let object) = value else { throw wrong(name, value, "an object") }
    return RequestFields(object, path: path + name + ".")
  }

  mutating func objects(_ name: String, most count: Int) throws(ServerError) -> [RequestFields]? {
    guard let list = try list(name, most: count) else { return nil }
    var objects: [RequestFields] = []
    for (index, value) in list.enumerated() {
      guard case .object(let object) = value else { throw wrong("\(name)[\(index)]", value, "an object") }
      objects.append(RequestFields(object, path: "\(path)\(name)[\(index)]."))
    }
    return objects
  }

  mutating func list(_ name: String, most count: Int) throws(ServerError) -> [JSONValue]? {
    guard let value = value(name) else { return nil }
    guard case .list(let list) = value else { throw wrong(name, value, "a list") }
    guard list.count <= count else { throw .field(path + name, "\(path)\(name) has \(list.count) entries; give at most \(count).") }
    return list
  }

  /// A file's bytes: base64, also behind `data:image/png;base64,`.
  mutating func file(_ name: String) throws(ServerError) -> Data? {
    guard let value = value(name) else { return nil }
    guard case .text(let text) = value else { throw wrong(name, value, "a picture in base64") }
    return text.isEmpty ? nil : try Self.bytes(of: text, path + name)
  }

  /// - Parameter text: base64, also behind `data:image/png;base64,`.
  /// - Throws: `ServerError`.
  static func bytes(of text: String, _ name: String) throws(ServerError) -> Data {
    let start = text.hasPrefix("data:") ? text.firstIndex(of: ",").map { text.index(after: $0) } ?? text.startIndex : text.startIndex
    guard let data = Data(base64Encoded: String(text[start...]), options: .ignoreUnknownCharacters), !data.isEmpty else {
      throw .field(name, "\(name) is not base64.")
    }
    return data
  }

  private func wrong(_ name: String, _ value: JSONValue, _ needed: String) -> ServerError {
    .field(path + name, "\(path)\(name) must be \(needed), not \(value.kind).")
  }
}
