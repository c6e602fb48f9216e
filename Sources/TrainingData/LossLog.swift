import Foundation
import LatentDiffusionFiles

/// Numbers of a training, as comma-separated values: a line for each step that is logged, its number first.
///
/// Each line is added when it comes, so a run that is killed leaves all lines but perhaps a part of the last one.
public struct LossLog: Sendable {
  /// A line.
  public struct Row: Sendable, Equatable {
    /// Of the training, from 1 on.
    public let step: Int
    /// One for each column after the step; nil where there is none.
    public let values: [Double?]

    /// A line of these.
    public init(step: Int, values: [Double?]) { (self.step, self.values) = (step, values) }
  }

  /// Where the file is.
  public let url: URL
  /// The names of the columns after `step`: `loss`, `learning_rate`, ….
  public let columns: [String]

  /// Begins a file, or goes on with one.
  ///
  /// - Parameters:
  ///   - url: an existing file is replaced by a new run.
  ///   - columns: after `step`.
  ///   - step: of the state that a run goes on from; lines after it are dropped, since they come again. 0: a new run.
  /// - Throws: `TrainingDataError.noLog` for a file with other columns where a run goes on, and `FileWriteError`.
  public init(at url: URL, columns: [String], after step: Int = 0) throws {
    (self.url, self.columns) = (url, columns)
    var kept: [Row] = []
    if step > 0, FileManager.default.fileExists(atPath: url.path(percentEncoded: false)) {
      let log = try Self.read(url)
      guard log.columns == columns else {
        let path = url.path(percentEncoded: false)
        throw TrainingDataError.noLog(path: path, reason: "its columns are step, " + log.columns.joined(separator: ", "))
      }
      kept = log.rows.filter { $0.step <= step }
    }
    let text = CSV.line(["step"] + columns) + kept.map(Self.line).joined()
    try Data(text.utf8).writeBesideThenRename(to: url)
  }

  /// Adds a line.
  ///
  /// - Parameters:
  ///   - step: of the training.
  ///   - values: one for each column.
  /// - Precondition: there is a value, or nil, for each column.
  /// - Throws: `FileWriteError.failed`.
  public func append(step: Int, _ values: [Double?]) throws(FileWriteError) {
    precondition(values.count == columns.count, "\(values.count) values for \(columns.count) columns.")
    do {
      let file = try FileHandle(forWritingTo: url)
      defer { try? file.close() }
      try file.seekToEnd()
      try file.write(contentsOf: Data(Self.line(Row(step: step, values: values)).utf8))
    } catch {
      throw .failed(path: url.path(percentEncoded: false), reason: "the log cannot be continued: its disk is full, or it is gone")
    }
  }

  private static func line(_ row: Row) -> String { CSV.line(["\(row.step)"] + row.values.map { $0.map { "\($0)" } ?? "" }) }

  /// What a file holds. A last line that was not written to its end is left out.
  ///
  /// - Throws: `TrainingDataError.unreadable`, and `noLog` for a file that is none.
  public static func read(_ url: URL) throws(TrainingDataError) -> (columns: [String], rows: [Row]) {
    let path = url.path(percentEncoded: false)
    let data = try fileData(at: url, limit: 1 << 30)
    let whole = data.lastIndex(of: UInt8(ascii: "\n")).map { data[...$0] } ?? Data()
    let records = CSV.records(Array(whole))
    guard let header = records.first?.fields, header.first == "step" else {
      throw .noLog(path: path, reason: "its first column is not step")
    }
    var rows: [Row] = []
    for record in records.dropFirst() {
      guard let fields = record.fields, fields.count == header.count, let step = Int(fields[0]),
        fields.dropFirst().allSatisfy({ $0.isEmpty || Double($0) != nil })
      else { throw .noLog(path: path, reason: "its line \(record.line) has not a number for each column") }
      rows.append(Row(step: step, values: fields.dropFirst().map { Double($0) }))
    }
    return (Array(header.dropFirst()), rows)
  }
}
