import LatentDiffusionComponents
import LatentDiffusionFiles
import Foundation

/// Why pictures, captions or what was kept of them cannot be used.
public enum TrainingDataError: Error, Sendable, Equatable, CustomStringConvertible {
  /// There is no folder of this path.
  case noFolder(path: String)
  /// A file or folder that is needed cannot be read.
  case unreadable(path: String, reason: String)
  /// A folder, and all in it, without one picture.
  case noPictures(path: String)
  /// Every picture was left out.
  case nothingLeft(path: String, problems: Int, first: DataProblem)
  /// Something was left out where nothing may be.
  case strict(path: String, problems: Int, first: DataProblem)
  /// A setting that no training can have.
  case outOfRange(setting: String, value: String, allowed: String)
  /// A picture is not any more what it was when the folder was read.
  case changed(name: String, reason: String)
  /// A place in other data, or in another order of them.
  case otherOrder
  /// A file where a cache is to be written is something else.
  case noCache(path: String, reason: String)
  /// Pictures that are cut elsewhere each time cannot be encoded once.
  case randomCrops
  /// The cache was not told to encode this.
  case notEncoded(String)
  /// A file is no log with these columns.
  case noLog(path: String, reason: String)

  public var description: String {
    switch self {
    case .noFolder(let path):
      "There is no folder \(path); give one with pictures and their captions."
    case .unreadable(let path, let reason):
      "\(path) cannot be read: \(reason)."
    case .noPictures(let path):
      "\(path) has no pictures; put PNG, JPEG or WebP files into it, each with its caption in a .txt file of the same name."
    case .nothingLeft(let path, let problems, let first):
      "No picture of \(path) can be used\(Self.others(problems)): \(first.clause)."
    case .strict(let path, let problems, let first):
      "\(path) has \(problems == 1 ? "a fault" : "\(problems) faults"), and none is accepted here; the first: \(first.clause)."
    case .outOfRange(let setting, let value, let allowed):
      "\(setting) must be \(allowed), not \(value)."
    case .changed(let name, let reason):
      "\(name) is not what it was when the data were read (\(reason)); start again, or put the old picture back."
    case .otherOrder:
      "The data, their sizes, the batches or the seed are not those of the run that is to go on; give the same, or begin a new run."
    case .noCache(let path, let reason):
      "\(path) is no cache of encoded pictures and texts (\(reason)); give another name, or delete it."
    case .randomCrops:
      "Pictures that are cropped at random cannot be encoded once and kept; crop them at the center, or do without keeping them."
    case .notEncoded(let what):
      "\(what) is not among what the cache holds; encode it first."
    case .noLog(let path, let reason):
      "\(path) is no log that can be continued (\(reason)); give another name, or delete it."
    }
  }

  private static func others(_ problems: Int) -> String { problems > 1 ? " (\(problems) faults)" : "" }
}

/// A file's bytes, mapped.
/// - Throws: `TrainingDataError.unreadable`, also for a file with more bytes than the limit.
func fileData(at url: URL, limit: Int) throws(TrainingDataError) -> Data {
  let path = url.path(percentEncoded: false)
  let data: Data
  do {
    data = try Data(mapping: url)
  } catch {
    throw .unreadable(path: path, reason: error.reason)
  }
  guard data.count <= limit else { throw .unreadable(path: path, reason: "it has \(data.count) bytes, and at most \(limit) are read") }
  return data
}
