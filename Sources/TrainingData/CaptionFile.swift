import Foundation

/// A file that gives captions to the pictures of a folder, as Hugging Face's `imagefolder` has them: JSON lines with `file_name` and `text`, or
/// comma-separated values with these columns.
struct CaptionFile {
  struct Entry {
    /// The path of the picture, from the folder of the file on.
    let fileName: String
    let text: String
    /// For people: the file and its line.
    let source: String
  }

  /// Names that are looked for in a folder; the first one counts.
  static let names = ["metadata.jsonl", "metadata.csv"]

  private(set) var entries: [Entry] = []
  private(set) var problems: [DataProblem] = []

  /// - Parameters:
  ///   - data: the file's bytes. One that begins with a brace has JSON lines.
  ///   - name: the name in problems.
  init(_ data: Data, name: String) {
    let text = data.starts(with: byteOrderMark) ? data.dropFirst(3) : data
    if text.first(where: { !" \r\n\t".utf8.contains($0) }) == UInt8(ascii: "{") {
      readJSONLines(text, name: name)
    } else {
      readCSV(Array(text), name: name)
    }
  }

  private mutating func readJSONLines(_ data: Data, name: String) {
    var others: Set<String> = []
    for (index, line) in data.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).enumerated()
    where !line.allSatisfy({ " \r\t".utf8.contains($0) }) {
      let source = "Line \(index + 1) of \(name)"
      do {
        let line = try JSONDecoder().decode(JSONLine.self, from: Data(line))
        entries.append(Entry(fileName: line.fileName, text: line.text, source: source))
        others.formUnion(line.others)
      } catch {
        problems.append(.unreadableCaption(source: source, reason: "it is no JSON object with the texts file_name and text"))
      }
    }
    if !others.isEmpty { problems.append(.unusedColumns(source: name, names: others.sorted())) }
  }

  private struct JSONLine: Decodable {
    let fileName: String
    let text: String
    let others: [String]

    private struct Key: CodingKey {
      let stringValue: String
      var intValue: Int? { nil }
      init(stringValue: String) { self.stringValue = stringValue }
      init?(intValue: Int) { nil }
    }

    init(from decoder: any Decoder) throws {
      let values = try decoder.container(keyedBy: Key.self)
      fileName = try values.decode(String.self, forKey: Key(stringValue: "file_name"))
      text = try values.decode(String.self, forKey: Key(stringValue: "text"))
      others = values.allKeys.map(\.stringValue).filter { !["file_name", "text"].contains($0) }
    }
  }

  private mutating func readCSV(_ bytes: [UInt8], name: String) {
    let records = CSV.records(bytes)
    guard let header = records.first?.fields, let nameColumn = header.firstIndex(of: "file_name"),
      let textColumn = header.firstIndex(of: "text")
    else {
      problems.append(.unreadableCaption(source: name, reason: "its first line does not name the columns file_name and text"))
      return
    }
    for record in records.dropFirst() {
      let source = "Line \(record.line) of \(name)"
      if let fields = record.fields, fields.count == header.count {
        entries.append(Entry(fileName: fields[nameColumn], text: fields[textColumn], source: source))
      } else {
        let reason = record.fields.map { "it has \($0.count) values for \(header.count) columns" }
        problems.append(.unreadableCaption(source: source, reason: reason ?? "its quotation marks do not match, or it is no UTF-8"))
      }
    }
    let others = header.indices.filter { $0 != nameColumn && $0 != textColumn }.map { header[$0] }
    if !others.isEmpty { problems.append(.unusedColumns(source: name, names: others)) }
  }
}
