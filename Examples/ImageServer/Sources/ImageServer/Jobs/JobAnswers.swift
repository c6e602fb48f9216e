import Foundation
import LatentDiffusion

/// A job as clients see it.
struct JobAnswer: Encodable {
  let id: String
  let state: Job.State
  let position: Int?
  let request: RequestAnswer
  let progress: ProgressAnswer?
  let pictures: [PictureAnswer]
  let warnings: [String]
  let error: String?
  let created: Double
  let seconds: Double?

  init(_ found: (job: Job, position: Int?, progress: JobProgress?)) {
    let job = found.job
    (id, state, position, warnings, error, seconds) = (job.id, job.state, found.position, job.warnings, job.error, job.seconds)
    (request, progress) = (RequestAnswer(job.request), found.progress.map(ProgressAnswer.init))
    (pictures, created) = (job.pictures.map { PictureAnswer($0, nil) }, job.created.timeIntervalSince1970)
  }
}

/// What was asked for, without pictures: the fields that can be sent again.
struct RequestAnswer: Encodable {
  let prompt: String
  let negativePrompt: String
  let model: String
  let loras: [LoraUse]
  let width: Int?
  let height: Int?
  let steps: Int?
  let guidance: Double?
  let seed: UInt64
  let scheduler: String?
  let spacing: String?
  let count: Int
  let strength: Double?
  let keepUnmasked: Bool
  let extend: Borders?
  let profile: PromptProfile
  /// What the picture was made from.
  let task: String

  init(_ request: PictureRequest) {
    (prompt, negativePrompt, model, loras) = (request.prompt, request.negativePrompt, request.model, request.loras)
    (width, height, steps, guidance, seed) = (request.width, request.height, request.steps, request.guidance, request.seed)
    (scheduler, spacing, count, strength) = (request.scheduler, request.spacing, request.count, request.strength)
    (keepUnmasked, extend, profile) = (request.keepUnmasked, request.extend, request.profile)
    task = request.extend != nil ? "outpainting" : request.hasMask ? "inpainting" : request.hasImage ? "image-to-image" : "text-to-image"
  }
}

struct ProgressAnswer: Encodable {
  let phase: JobProgress.Phase
  let step: Int
  let steps: Int
  let picture: Int
  let pictures: Int
  let fraction: Double
  let secondsLeft: Double?

  init(_ progress: JobProgress) {
    (phase, step, steps, picture, pictures) = (progress.phase, progress.step, progress.steps, progress.picture + 1, progress.pictures)
    (fraction, secondsLeft) = (progress.fraction, progress.secondsLeft)
  }
}

struct PreviewAnswer: Encodable {
  let step: Int
  /// A PNG file in base64.
  let image: String
}

/// A picture of the gallery.
struct PictureAnswer: Encodable {
  let name: String
  let url: String
  let width: Int
  let height: Int
  let seed: UInt64
  let parameters: String
  let created: Double?
  let request: RequestAnswer?

  init(_ picture: KeptPicture, _ job: Job?) {
    (name, url, width, height) = (picture.name, "/api/pictures/\(picture.name)", picture.width, picture.height)
    (seed, parameters, created) = (picture.seed, picture.parameters, job?.created.timeIntervalSince1970)
    request = job.map { RequestAnswer($0.request) }
  }
}

struct GalleryAnswer: Encodable {
  let pictures: [PictureAnswer]
  /// What `before` is for those that follow; nil: there are no more.
  let next: String?

  init(_ found: [(picture: KeptPicture, job: Job)], most: Int) {
    pictures = found.prefix(most).map { PictureAnswer($0.picture, $0.job) }
    next = found.count > most ? pictures.last?.name : nil
  }
}

struct ModelAnswer: Encodable {
  let name: String
  let loaded: Bool
  let width: Int?
  let height: Int?
  let steps: Int?
  let guidance: Double?
  let scheduler: String?
  let tasks: [String]?
  /// Captions that it learned; nil: nothing says which.
  let vocabulary: [String]?

  init(_ entry: ModelShelf.Entry) {
    let facts = entry.facts
    (name, loaded, vocabulary) = (entry.name, entry.isLoaded, entry.captions)
    (width, height, steps, guidance) = (facts?.width, facts?.height, facts?.steps, facts?.guidance)
    (scheduler, tasks) = (facts?.scheduler, facts?.tasks)
  }
}

struct SchedulersAnswer: Encodable {
  struct Entry: Encodable {
    let name: String
    let label: String
    let purpose: String
    let spacings: [String]
  }

  let schedulers = SchedulerKind.allCases.filter(\.leadsToPictures).map {
    Entry(name: $0.rawValue, label: $0.label, purpose: $0.purpose, spacings: $0.sigmaSpacings.map(\.rawValue))
  }
  let spacings = SigmaSpacing.allCases.map(\.rawValue)
}

struct About: Encodable {
  struct Limits: Encodable {
    let promptCharacters: Int
    let pixels: Int
    let side: Int
    let steps: Int
    let count: Int
    let bodyBytes: Int
    let queue: Int
  }

  let name = "LatentDiffusion"
  let version: String
  let limits: Limits
  let defaultModel: String

  init(limits: ServerLimits, version: String, defaultModel: String) {
    (self.version, self.defaultModel) = (version, defaultModel)
    self.limits = Limits(
      promptCharacters: limits.promptCharacters, pixels: limits.pixels, side: limits.side, steps: limits.steps, count: limits.count,
      bodyBytes: limits.bodyBytes, queue: limits.queue)
  }
}
