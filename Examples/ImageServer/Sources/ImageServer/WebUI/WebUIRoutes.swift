import Foundation
import HTTPTypes
import Hummingbird
import ImageFiles
import LatentDiffusion

/// stable-diffusion-webui's interface, as far as its clients for pictures need it: `/sdapi/v1/…`.
struct WebUIRoutes: Sendable {
  let queue: JobQueue
  let shelf: ModelShelf
  let reader: BodyReader
  private var limits: ServerLimits { reader.limits }
  private let options: WebUIOptions

  init(queue: JobQueue, shelf: ModelShelf, reader: BodyReader) {
    (self.queue, self.shelf, self.reader, options) = (queue, shelf, reader, WebUIOptions(model: shelf.defaultModel))
  }

  func add(to router: Router<BasicRequestContext>) {
    router.post("/sdapi/v1/txt2img") { request, _ in try await draw(request, fromPicture: false) }
    router.post("/sdapi/v1/img2img") { request, _ in try await draw(request, fromPicture: true) }
    router.get("/sdapi/v1/progress") { request, _ in try await progress(request) }
    for (name, wish) in [("interrupt", StopSign.Wish.interrupt), ("skip", .skip)] {
      router.post("/sdapi/v1/\(name)") { _, _ in
        await queue.stopDrawing(wish)
        return Response.json(JSONValue.object([:]))
      }
    }
    router.get("/sdapi/v1/samplers") { _, _ in Response.json(WebUISampler.all) }
    router.get("/sdapi/v1/schedulers") { _, _ in Response.json(WebUISchedule.all) }
    router.get("/sdapi/v1/sd-models") { _, _ in Response.json(shelf.models.map { WebUIModel(name: $0.name) }) }
    router.get("/sdapi/v1/loras") { _, _ in Response.json(shelf.loras.map { WebUILora(name: $0.name) }) }
    router.get("/sdapi/v1/scripts") { _, _ in Response.json(["txt2img": [String](), "img2img": []]) }
    router.get("/sdapi/v1/options") { _, _ in Response.json(await options.values) }
    router.post("/sdapi/v1/options") { request, _ in
      var request = request
      let (fields, _) = try await reader.fields(of: &request)
      try await options.change(fields, shelf)
      return Response.json(JSONValue.null)
    }
    router.post("/sdapi/v1/png-info") { request, _ in try await pictureInfo(request) }
  }

  private func draw(_ request: Request, fromPicture: Bool) async throws -> Response {
    var request = request
    let (fields, _) = try await reader.fields(of: &request)
    let asked = try await WebUIRequest(fields, fromPicture: fromPicture, options.current, limits, shelf)
    let attended = try await queue.attend(asked.picture, asked.files, keeps: asked.saves)
    return try await request.whileConnected {
      let (job, pictures) = try await attended.outcome()
      return Response.json(try WebUIResult(asked, job, pictures))
    }
  }

  private func progress(_ request: Request) async throws -> Response {
    var query = request.query
    let wantsPicture = try query.flag("skip_current_image") != true
    guard let found = await queue.drawing else { return Response.json(WebUIProgress.idle) }
    let preview = wantsPicture ? await queue.preview : nil
    return Response.json(try WebUIProgress(found.job, found.progress, preview, waiting: await queue.waitingCount))
  }

  private func pictureInfo(_ request: Request) async throws -> Response {
    var request = request
    var (fields, _) = try await reader.fields(of: &request)
    guard let image = try fields.file("image") else { throw ServerError.field("image", "There is no picture; send image.") }
    do {
      return Response.json(WebUIPictureInfo(try GenerationParameters(data: image, name: "The image")))
    } catch {
      throw ServerError.field("image", "\(error)")
    }
  }
}

/// What clients of the webui set for all that follows.
actor WebUIOptions {
  struct Current: Sendable {
    var model: String
    /// As the webui counts it: 1 leaves out no layer.
    var clipSkip = 1
  }

  private(set) var current: Current

  init(model: String) { current = Current(model: model) }

  var values: JSONValue {
    .object([
      "sd_model_checkpoint": .text(current.model), "CLIP_stop_at_last_layers": .whole(UInt64(current.clipSkip)),
      "samples_format": .text("png"),
      "sd_checkpoint_hash": .text(""), "sd_vae": .text("Automatic"),
    ])
  }

  /// - Throws: `ServerError` where an option is not known, or has a value that it cannot have.
  func change(_ fields: RequestFields, _ shelf: ModelShelf) throws(ServerError) { current = try current.changed(by: fields, shelf) }
}

extension WebUIOptions.Current {
  /// - Throws: `ServerError`.
  func changed(by given: RequestFields, _ shelf: ModelShelf) throws(ServerError) -> Self {
    var (result, fields) = (self, given)
    if let name = try fields.text("sd_model_checkpoint") {
      // The webui's clients may send a title, which ends in a hash in brackets there.
      result.model = name
      try shelf.checkModel(name)
    }
    result.clipSkip = try fields.integer("CLIP_stop_at_last_layers", in: 1...12) ?? clipSkip
    _ = try fields.choice("samples_format", among: ["png"])
    for name in ["sd_checkpoint_hash", "sd_vae"] { _ = try fields.text(name, most: 1000) }
    if let unknown = fields.left.first { throw .field(unknown, "This server has no option \(unknown.prefix(100)).") }
    return result
  }
}
