import Foundation
import ImageFiles

/// What `txt2img` and `img2img` answer.
struct WebUIResult: Encodable {
  let images: [String]
  let parameters: JSONValue
  /// JSON in a text, as the webui has it.
  let info: String

  /// - Throws: `EncodingError`.
  init(_ asked: WebUIRequest, _ job: Job, _ pictures: [DrawnPicture]) throws {
    images = asked.sends ? pictures.map { $0.data.base64EncodedString() } : []
    parameters = asked.parameters
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
    info = String(decoding: try encoder.encode(WebUIInfo(asked, job, pictures)), as: UTF8.self)
  }
}

/// How the pictures were made.
private struct WebUIInfo: Encodable {
  let prompt: String
  let allPrompts: [String]
  let negativePrompt: String
  let allNegativePrompts: [String]
  let seed: UInt64
  let allSeeds: [UInt64]
  let subseed: UInt64
  let allSubseeds: [UInt64]
  let subseedStrength = 0
  let width: Int
  let height: Int
  let samplerName: String
  let cfgScale: Double
  let steps: Int
  let batchSize: Int
  let restoreFaces = false
  let sdModelName: String
  let sdModelHash = ""
  let seedResizeFromW = 0
  let seedResizeFromH = 0
  /// Null where it means nothing, as the webui has it.
  let denoisingStrength: JSONValue
  let extraGenerationParams: [String: String] = [:]
  let faceRestorationModel = JSONValue.null
  let sdVaeName = JSONValue.null
  let sdVaeHash = JSONValue.null
  let version = ImageServer.version
  let indexOfFirstImage = 0
  let infotexts: [String]
  let styles: [String] = []
  let jobTimestamp: String
  let clipSkip: Int
  let isUsingInpaintingConditioning = false
  let warnings: [String]

  init(_ asked: WebUIRequest, _ job: Job, _ pictures: [DrawnPicture]) {
    let request = asked.picture, first = pictures.first
    (prompt, negativePrompt) = (request.prompt, request.negativePrompt)
    allPrompts = pictures.map { _ in request.prompt }
    allNegativePrompts = pictures.map { _ in request.negativePrompt }
    (seed, allSeeds, subseed, allSubseeds) = (request.seed, pictures.map(\.seed), request.seed, pictures.map(\.seed))
    (width, height) = (first?.width ?? 0, first?.height ?? 0)
    (samplerName, cfgScale, steps) = (first?.facts.sampler ?? "", first?.facts.guidance ?? 0, first?.facts.steps ?? 0)
    (batchSize, sdModelName, denoisingStrength) = (asked.batchSize, request.model, request.strength.map(JSONValue.number) ?? .null)
    (infotexts, clipSkip) = (pictures.map(\.parameters), request.clipSkip)
    jobTimestamp = webUITimestamp(job.created)
    warnings = asked.warnings + job.warnings
  }
}

/// How far the picture is that is drawn.
struct WebUIProgress: Encodable {
  struct State: Encodable {
    var skipped = false
    var interrupted = false
    var stoppingGeneration = false
    var job = ""
    var jobCount = 0
    var jobTimestamp = "0"
    var jobNo = 0
    var samplingStep = 0
    var samplingSteps = 0
  }

  let progress: Double
  let etaRelative: Double
  let state: State
  let currentImage: JSONValue
  let textinfo: JSONValue

  static let idle = WebUIProgress(progress: 0, etaRelative: 0, state: State(), currentImage: nil, textinfo: nil)

  private init(progress: Double, etaRelative: Double, state: State, currentImage: String?, textinfo: String?) {
    (self.progress, self.etaRelative, self.state) = (progress, etaRelative, state)
    (self.currentImage, self.textinfo) = (currentImage.map(JSONValue.text) ?? .null, textinfo.map(JSONValue.text) ?? .null)
  }

  /// - Throws: `ImageFileError`.
  init(_ job: Job, _ progress: JobProgress, _ preview: Picture?, waiting: Int) throws {
    self.init(
      progress: progress.fraction, etaRelative: progress.secondsLeft ?? 0,
      state: State(
        job: job.id, jobCount: progress.pictures, jobTimestamp: webUITimestamp(job.created), jobNo: progress.picture,
        samplingStep: progress.step, samplingSteps: progress.steps),
      currentImage: try preview?.pngData().base64EncodedString(), textinfo: waiting > 0 ? "\(waiting) jobs wait." : nil)
  }
}

/// What a picture says of itself.
struct WebUIPictureInfo: Encodable {
  let info: String
  let items: [String: String]
  let parameters: [String: String]

  /// - Parameter found: nil: it says nothing.
  init(_ found: GenerationParameters?) {
    info = found?.text ?? ""
    items = found.map { ["parameters": $0.text] } ?? [:]
    var settings = Dictionary((found?.settings ?? []).map { ($0.name, $0.value) }) { $1 }
    if let found { (settings["Prompt"], settings["Negative prompt"]) = (found.prompt, found.negativePrompt) }
    parameters = settings
  }
}

/// `20261128193000`, in the machine's time.
private func webUITimestamp(_ date: Date) -> String {
  let parts = Calendar(identifier: .gregorian).dateComponents([.year, .month, .day, .hour, .minute, .second], from: date)
  func padded(_ number: Int?, _ digits: Int) -> String {
    let text = "\(number ?? 0)"
    return String(repeating: "0", count: max(0, digits - text.count)) + text
  }
  return padded(parts.year, 4) + [parts.month, parts.day, parts.hour, parts.minute, parts.second].map { padded($0, 2) }.joined()
}
