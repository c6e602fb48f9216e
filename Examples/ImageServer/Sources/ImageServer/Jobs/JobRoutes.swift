import Foundation
import HTTPTypes
import Hummingbird
import ImageFiles
import LatentDiffusion

/// The server's own interface: jobs that outlive the connection, their events, and the gallery.
struct JobRoutes: Sendable {
  let queue: JobQueue
  let shelf: ModelShelf
  let reader: BodyReader
  let version: String
  private var limits: ServerLimits { reader.limits }

  init(queue: JobQueue, shelf: ModelShelf, reader: BodyReader, version: String) {
    (self.queue, self.shelf, self.reader, self.version) = (queue, shelf, reader, version)
  }

  func add(to router: Router<BasicRequestContext>) {
    router.get("/api/about") { _, _ in Response.json(About(limits: limits, version: version, defaultModel: shelf.defaultModel)) }
    router.get("/api/models") { _, _ in Response.json(["models": await shelf.entries.map(ModelAnswer.init)]) }
    router.get("/api/schedulers") { _, _ in Response.json(SchedulersAnswer()) }
    router.get("/api/loras") { _, _ in Response.json(["loras": shelf.loras.map { ["name": $0.name] }]) }
    router.post("/api/jobs") { request, _ in try await submit(request) }
    router.get("/api/jobs") { _, _ in Response.json(["jobs": await queue.jobs(most: 100).map(JobAnswer.init)]) }
    router.get("/api/jobs/:id") { _, context in Response.json(try await answer(id(context))) }
    router.delete("/api/jobs/:id") { _, context in
      let id = try id(context)
      _ = try await answer(id)
      await queue.cancel(id)
      return Response.json(try await answer(id))
    }
    router.get("/api/jobs/:id/events") { request, context in try await events(of: id(context), request) }
    router.get("/api/pictures") { request, _ in try await gallery(request) }
    router.get("/api/pictures/:name") { request, context in try await picture(context, request) }
    router.delete("/api/pictures/:name") { _, context in
      let name = try context.parameters.require("name")
      guard try await queue.forget(picture: name) else { throw ServerError(.notFound, "There is no picture of this name.") }
      return Response(status: .noContent)
    }
  }

  private func id(_ context: BasicRequestContext) throws -> String { try context.parameters.require("id") }

  private func answer(_ id: String) async throws -> JobAnswer {
    guard let found = await queue.job(id) else { throw ServerError(.notFound, "There is no job of this id.") }
    return JobAnswer(found)
  }

  // MARK: - Jobs

  private func submit(_ request: Request) async throws -> Response {
    var request = request
    var (fields, _) = try await reader.fields(of: &request)
    let (asked, files) = try await pictureRequest(&fields)
    if let unknown = fields.left.first { throw ServerError.field(unknown, "There is no field \(unknown.prefix(100)).") }
    let job = try await queue.accept(asked, files)
    return Response.json(try await answer(job.id), status: .accepted, headers: [.location: "/api/jobs/\(job.id)"])
  }

  private func pictureRequest(_ fields: inout RequestFields) async throws -> (PictureRequest, RequestFiles) {
    guard let prompt = try fields.text("prompt", most: limits.promptCharacters) else {
      throw ServerError.field("prompt", "A prompt says what to draw; send prompt (it may be empty).")
    }
    var asked = PictureRequest(
      prompt: prompt, model: try fields.text("model") ?? shelf.defaultModel,
      seed: try fields.seed("seed") ?? .random(in: 0...UInt64(UInt32.max)))
    asked.negativePrompt = try fields.text("negative_prompt", most: limits.promptCharacters) ?? ""
    for var lora in try fields.objects("loras", most: 16) ?? [] {
      guard let name = try lora.text("name") else { throw ServerError.field(lora.name("name"), "\(lora.name("name")) is missing.") }
      asked.loras.append(LoraUse(name: name, strength: try lora.number("strength", in: -10...10) ?? 1))
      if let unknown = lora.left.first { throw ServerError.field(unknown, "There is no field \(unknown.prefix(100)).") }
    }
    try asked.takeCommonFields(&fields, limits)
    asked.count = try fields.integer("count", in: 1...limits.count) ?? 1
    asked.strength = try fields.number("strength", in: 0...1)
    asked.keepUnmasked = try fields.flag("keep_unmasked") ?? true
    if var extend = try fields.object("extend") {
      let sides = 0...limits.side
      asked.extend = Borders(
        left: try extend.integer("left", in: sides) ?? 0, right: try extend.integer("right", in: sides) ?? 0,
        top: try extend.integer("top", in: sides) ?? 0, bottom: try extend.integer("bottom", in: sides) ?? 0)
      if let unknown = extend.left.first { throw ServerError.field(unknown, "There is no field \(unknown.prefix(100)).") }
      if asked.extend == Borders() { asked.extend = nil }
    }
    asked.resizeMode = try fields.choice("resize_mode", among: ResizeMode.allCases.map(\.rawValue)).flatMap(ResizeMode.init)
    asked.profile = try fields.choice("profile", among: PromptProfile.allCases.map(\.rawValue)).flatMap(PromptProfile.init) ?? .diffusers
    asked.previewEvery = try fields.integer("preview_every", in: 1...1000)
    let files = RequestFiles(image: try fields.file("image"), mask: try fields.file("mask"))
    (asked.hasImage, asked.hasMask) = (files.image != nil, files.mask != nil)
    try asked.check(limits, shelf)
    try asked.checkCanvas(around: await files.check(limits), limits)
    return (asked, files)
  }

  private func events(of id: String, _ request: Request) async throws -> Response {
    var query = request.query
    let wantsPreviews = try query.flag("previews") ?? true
    guard let events = await queue.events(of: id, buffered: 32) else { throw ServerError(.notFound, "There is no job of this id.") }
    return Response.events(request) { send in
      for await event in events {
        switch event {
        case .job(let job, let position): send(ServerSentEvent("job", JobAnswer((job, position, nil))))
        case .progress(let progress): send(ServerSentEvent("progress", ProgressAnswer(progress)))
        case .preview(let step, let picture):
          guard wantsPreviews, let data = try? picture.pngData() else { break }
          send(ServerSentEvent("preview", PreviewAnswer(step: step, image: data.base64EncodedString())))
        case .picture: break
        case .over(let job): send(ServerSentEvent(job.state.rawValue, JobAnswer((job, nil, nil))))
        }
      }
    }
  }

  // MARK: - Pictures

  private func gallery(_ request: Request) async throws -> Response {
    var query = request.query
    let most = try query.integer("limit", in: 1...200) ?? 50
    let found = await queue.pictures(before: try query.text("before"), most: most + 1)
    return Response.json(GalleryAnswer(found, most: most))
  }

  private func picture(_ context: BasicRequestContext, _ request: Request) async throws -> Response {
    let name = try context.parameters.require("name")
    guard let url = await queue.picture(name), let data = try? Data(contentsOf: url) else {
      throw ServerError(.notFound, "There is no picture of this name.")
    }
    let form = PictureForm.Name.allCases.first { PictureForm(name: $0).fileExtension == url.pathExtension } ?? .png
    var headers: HTTPFields = [.cacheControl: "private, max-age=31536000, immutable"]
    var query = request.query
    if query.value("download") != nil { headers[.contentDisposition] = "attachment; filename=\"\(url.lastPathComponent)\"" }
    return Response.bytes(data, type: PictureForm(name: form).mediaType, headers: headers)
  }
}

extension PictureRequest {
  /// The fields that the server's own interface and its additions to OpenAI's share.
  /// - Throws: `ServerError`.
  mutating func takeCommonFields(_ fields: inout RequestFields, _ limits: ServerLimits) throws(ServerError) {
    width = try fields.integer("width", in: 1...limits.side) ?? width
    height = try fields.integer("height", in: 1...limits.side) ?? height
    steps = try fields.integer("steps", in: 1...limits.steps)
    guidance = try fields.number("guidance", in: 0...1000)
    scheduler = try fields.text("scheduler", most: 100)
    spacing = try fields.text("spacing", most: 100)
  }
}
