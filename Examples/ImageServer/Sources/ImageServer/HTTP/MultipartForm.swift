import Foundation

/// A form with files, `multipart/form-data` (RFC 7578).
struct MultipartForm: Sendable {
  /// A field that is a file, or may be one.
  struct Part: Sendable {
    let name: String
    /// Whether the client gave it a file's name.
    let isFile: Bool
    let bytes: Data
  }

  let parts: [Part]
  private static let mostParts = 64

  /// - Parameter contentType: the header, which says what separates the parts.
  /// - Throws: `ServerError`.
  init(_ body: Data, contentType: String) throws(ServerError) {
    guard let boundary = Self.parameter("boundary", of: contentType), (1...70).contains(boundary.utf8.count) else {
      throw Self.malformed("its Content-Type names no boundary")
    }
    let mark = Data("--\(boundary)".utf8), line = Data("\r\n".utf8)
    guard var place = body.range(of: mark)?.upperBound else { throw Self.malformed("its boundary is not in it") }
    var parts: [Part] = []
    while true {
      if body[place...].starts(with: Data("--".utf8)) { break }
      guard let start = body.range(of: line, in: place..<body.endIndex)?.upperBound,
        let end = body.range(of: line + mark, in: start..<body.endIndex)
      else { throw Self.malformed("it ends in the middle of a part") }
      guard parts.count < Self.mostParts else { throw Self.malformed("it has more than \(Self.mostParts) parts") }
      parts.append(try Self.part(body[start..<end.lowerBound]))
      place = end.upperBound
    }
    self.parts = parts
  }

  /// The fields that are texts, and the files by their names; `image[]` is `image`.
  func fields() throws(ServerError) -> (fields: RequestFields, files: [String: [Data]]) {
    var values: [String: JSONValue] = [:], files: [String: [Data]] = [:]
    for part in parts {
      let name = part.name.hasSuffix("[]") ? String(part.name.dropLast(2)) : part.name
      if part.isFile {
        files[name, default: []].append(part.bytes)
      } else {
        guard let text = String(data: part.bytes, encoding: .utf8) else { throw .field(name, "\(name) is no UTF-8 text.") }
        values[name] = .text(text)
      }
    }
    return (RequestFields(values, readsTexts: true), files)
  }

  private static func part(_ bytes: Data) throws(ServerError) -> Part {
    guard let head = bytes.range(of: Data("\r\n\r\n".utf8)) else { throw malformed("a part has no headers") }
    let headers = String(decoding: bytes[..<head.lowerBound], as: UTF8.self).split(separator: "\r\n")
    let disposition = headers.first { $0.lowercased().hasPrefix("content-disposition:") }.map(String.init) ?? ""
    guard let name = parameter("name", of: disposition), !name.isEmpty, name.utf8.count <= 200 else {
      throw malformed("a part has no name")
    }
    return Part(name: name, isFile: parameter("filename", of: disposition) != nil, bytes: Data(bytes[head.upperBound...]))
  }

  /// A parameter of a header, with quotes or without.
  private static func parameter(_ name: String, of header: String) -> String? {
    for piece in header.split(separator: ";").dropFirst() {
      let words = piece.trimmingCharacters(in: .whitespaces)
      guard words.lowercased().hasPrefix(name + "=") else { continue }
      let value = words.dropFirst(name.count + 1)
      return value.hasPrefix("\"") ? value.dropFirst().prefix { $0 != "\"" }.description : String(value)
    }
    return nil
  }

  private static func malformed(_ reason: String) -> ServerError { ServerError(.badRequest, "The form cannot be read: \(reason).") }
}
