import Foundation
import HTTPTypes
import ImageFiles
import LatentDiffusion

/// A picture that a job has drawn and that is kept.
struct KeptPicture: Sendable, Equatable, Codable {
  /// The file's name, `ID-1.png`, which is also its name for clients.
  let name: String
  let width: Int
  let height: Int
  let seed: UInt64
  /// How it was made, as stable-diffusion-webui writes it.
  let parameters: String
}

/// A job as it is remembered.
struct Job: Sendable, Equatable, Codable {
  enum State: String, Sendable, Codable {
    case waiting, drawing, done, failed, cancelled

    var isOver: Bool { self != .waiting && self != .drawing }
  }

  /// Letters and digits that grow with time.
  let id: String
  var request: PictureRequest
  var state = State.waiting
  var pictures: [KeptPicture] = []
  var warnings: [String] = []
  /// One sentence; nil where nothing failed.
  var error: String?
  /// The status of an answer that tells the error.
  var errorStatus: Int?
  let created: Date
  /// From its turn to its end.
  var seconds: Double?

  init(_ request: PictureRequest) {
    (self.request, created) = (request, Date())
    let time = String(UInt64(max(0, created.timeIntervalSince1970 * 1000)), radix: 36)
    let random = String(UInt64.random(in: 0..<36 * 36 * 36 * 36 * 36), radix: 36)
    id = time + String(repeating: "0", count: 5 - min(5, random.count)) + random
  }

  /// The id of the job that a file belongs to, `ID-1.png` or `ID.safetensors`; nil: none.
  static func id(ofFile name: String) -> String? {
    let id = name.prefix { $0 != "-" && $0 != "." }
    let isOne = id.count == 13 && id.count < name.count && id.utf8.allSatisfy { (48...57).contains($0) || (97...122).contains($0) }
    return isOne ? String(id) : nil
  }
}

extension Job {
  /// Ends it with an error.
  /// - Parameter said: the error in a sentence.
  mutating func fail(with failure: any Error, _ said: String) {
    (state, error) = (.failed, said)
    errorStatus =
      switch failure {
      case let failure as ServerError: failure.status.code
      // What was asked for does not go with the model, which nobody knew before it was loaded.
      case is GenerationError, is SchedulerError, is ComponentError, is LoraTagError, is AdapterError, is ImageFileError,
        is MemoryPlanError, is CLIPTextError:
        400
      default: 500
      }
  }

  /// What a client that waited is told.
  var failure: ServerError? {
    switch state {
    case .failed: ServerError(.init(code: errorStatus ?? 500), error ?? "The job failed.")
    case .cancelled: ServerError(.init(code: 499, reasonPhrase: "Client Closed Request"), "The job was cancelled.")
    default: nil
    }
  }
}

/// Where a job is.
struct JobProgress: Sendable, Equatable, Codable {
  enum Phase: String, Sendable, Codable { case loading, encoding, denoising, decoding }

  var phase = Phase.loading
  /// Of the picture that is drawn now.
  var step = 0
  var steps = 0
  /// The picture that is drawn now, from 0, and how many there are.
  var picture = 0
  var pictures = 1
  /// Nil while nothing is known of it.
  var secondsLeft: Double?

  /// 0…1, of all pictures.
  var fraction: Double {
    let inPicture = phase == .decoding ? 1 : steps > 0 ? Double(step) / Double(steps) : 0
    return (Double(picture) + min(inPicture, 1)) / Double(max(pictures, 1))
  }
}

/// A picture as it comes from a job.
struct DrawnPicture: Sendable {
  let index: Int
  let data: Data
  let width: Int
  let height: Int
  let seed: UInt64
  let parameters: String
  let facts: DrawnFacts
}

/// What was left open and is known now.
struct DrawnFacts: Sendable, Equatable {
  let steps: Int
  let guidance: Double
  let sampler: String
}

/// What happens to a job.
enum JobEvent: Sendable {
  /// Its state, its place in the queue or its pictures changed.
  case job(Job, position: Int?)
  case progress(JobProgress)
  case preview(step: Int, Picture)
  case picture(DrawnPicture)
  /// The last one.
  case over(Job)
}
