import LatentDiffusionWeights

/// Why a training state cannot be read or written. Files that are no sound safetensors files throw `SafetensorsError`.
public enum TrainingStateError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The file holds tensors, but no training state.
  case noState(path: String)
  /// A newer version of the library wrote the file.
  case newerVersion(path: String, found: String)
  /// The file contradicts itself, as no version of the library wrote it.
  case damaged(path: String, reason: String)
  /// The state belongs to another run: another model, another rank, other parameters.
  case otherRun(path: String, reason: String)
  /// Something to be saved is infinite or not a number.
  case notFinite(path: String, name: String)

  public var description: String {
    switch self {
    case .noState(let path):
      "\(path) holds no training state; give a file that training has saved."
    case .newerVersion(let path, let found):
      "\(path) was saved by a newer version of this library, in form \(printable(found)); use that version."
    case .damaged(let path, let reason):
      "\(path) is damaged: \(printable(reason))."
    case .otherRun(let path, let reason):
      "\(path) is the state of another run: \(printable(reason))."
    case .notFinite(let path, let name):
      "\(path) is not written because \(printable(name)) has grown beyond all numbers; the state before is kept, so go on from it with a lower learning rate."
    }
  }
}
