import Foundation
import HTTPTypes
import Hummingbird
import ImageFiles

/// OpenAI's interface for images: `/v1/images/generations`, `/v1/images/edits`, `/v1/models`.
///
/// Source: platform.openai.com/docs/api-reference/images, whose fields are here by their names, and beside them some of this server's own.
struct OpenAIRoutes: Sendable {
  let queue: JobQueue
  let shelf: ModelShelf
  let reader: BodyReader

  init(queue: JobQueue, shelf: ModelShelf, reader: BodyReader) { (self.queue, self.shelf, self.reader) = (queue, shelf, reader) }

  func add(to router: Router<BasicRequestContext>) {
    router.get("/v1/models") { _, _ in Response.json(ModelList(data: shelf.models.map { Model(id: $0.name) })) }
    router.get("/v1/models/:id") { _, context in
      let id = try context.parameters.require("id")
      guard shelf.models.contains(where: { $0.name == id }) else {
        throw ServerError(.notFound, "There is no model \(id.prefix(100)).", field: "model")
      }
      return Response.json(Model(id: id))
    }
    router.post("/v1/images/generations") { request, _ in try await draw(request, edits: false) }
    router.post("/v1/images/edits") { request, _ in try await draw(request, edits: true) }
  }

  private func draw(_ request: Request, edits: Bool) async throws -> Response {
    var request = request
    let (fields, files) = try await reader.fields(of: &request, allowsForms: edits)
    let asked = try await OpenAIRequest(fields, files, edits: edits, reader.limits, shelf)
    // A refusal has a status of its own, so it comes before a stream begins.
    let attended = try await queue.attend(asked.picture, asked.files, keeps: asked.wantsURL)
    return asked.stream ? stream(attended, asked, request) : try await answer(attended, asked, request)
  }

  private func answer(_ attended: AttendedJob, _ asked: OpenAIRequest, _ request: Request) async throws -> Response {
    let base = request.head.authority.map { "http://\($0)" } ?? ""
    return try await request.whileConnected {
      let (job, pictures) = try await attended.outcome()
      let kept = Dictionary(job.pictures.map { ($0.seed, $0.name) }) { first, _ in first }
      let data = try pictures.map { picture in
        guard asked.wantsURL else { return ImageData(b64Json: picture.data.base64EncodedString(), url: nil, seed: picture.seed) }
        guard let name = kept[picture.seed] else {
          throw ServerError(.init(code: 507, reasonPhrase: "Insufficient Storage"), job.warnings.last ?? "The picture cannot be kept.")
        }
        return ImageData(b64Json: nil, url: "\(base)/api/pictures/\(name)", seed: picture.seed)
      }
      return Response.json(
        ImagesResponse(
          created: Int(job.created.timeIntervalSince1970), data: data, background: "opaque",
          outputFormat: asked.picture.format.name.rawValue,
          quality: asked.quality, size: pictures.first.map { "\($0.width)x\($0.height)" }, warnings: asked.warnings + job.warnings))
    }
  }

  private func stream(_ attended: AttendedJob, _ asked: OpenAIRequest, _ request: Request) -> Response {
    let count = asked.partialImages, format = asked.picture.format
    return Response.events(request) { send in
      let sent = PartialImages(most: count)
      @Sendable func event(_ kind: String, _ data: Data, _ size: String, partial: Int? = nil, index: Int? = nil, seed: UInt64? = nil) {
        let name = "\(asked.edits ? "image_edit" : "image_generation").\(kind)"
        send(
          ServerSentEvent(
            name,
            ImageEvent(
              type: name, b64Json: data.base64EncodedString(), createdAt: Int(Date().timeIntervalSince1970), size: size,
              quality: asked.quality,
              background: "opaque", outputFormat: format.name.rawValue, partialImageIndex: partial, index: index, seed: seed)))
      }
      do {
        _ = try await attended.outcome { happened in
          switch happened {
          case .progress(let progress): await sent.begin(progress)
          case .preview(_, let preview):
            guard let index = await sent.next() else { break }
            let scale = max(1, 256 / max(preview.width, preview.height))
            let shown =
              asked.size.map { preview.resized(width: $0.width, height: $0.height) }
              ?? preview.resized(width: preview.width * scale, height: preview.height * scale)
            event("partial_image", try format.data(of: shown, parameters: nil), "\(shown.width)x\(shown.height)", partial: index)
          case .picture(let picture):
            event("completed", picture.data, "\(picture.width)x\(picture.height)", index: picture.index, seed: picture.seed)
          case .job, .over: break
          }
        }
      } catch {
        send(ServerSentEvent("error", StreamError(ErrorStyle.serverError(error))))
      }
    }
  }
}

/// Which previews of a job become partial images: at most so many of each picture.
private actor PartialImages {
  private let most: Int
  private var picture = 0
  private var count = 0

  init(most: Int) { self.most = most }

  func begin(_ progress: JobProgress) { if progress.picture != picture { (picture, count) = (progress.picture, 0) } }

  /// The index of the next one; nil where there are enough.
  func next() -> Int? {
    guard count < most else { return nil }
    count += 1
    return count - 1
  }
}

private struct Model: Encodable {
  let id: String
  let object = "model"
  let created = 0
  let ownedBy = "local"
}

private struct ModelList: Encodable {
  let object = "list"
  let data: [Model]
}

private struct ImageData: Encodable {
  let b64Json: String?
  let url: String?
  let seed: UInt64
}

private struct ImagesResponse: Encodable {
  let created: Int
  let data: [ImageData]
  let background: String
  let outputFormat: String
  let quality: String
  let size: String?
  let warnings: [String]
}

private struct ImageEvent: Encodable {
  let type: String
  let b64Json: String
  let createdAt: Int
  let size: String
  let quality: String
  let background: String
  let outputFormat: String
  let partialImageIndex: Int?
  let index: Int?
  let seed: UInt64?
}

private struct StreamError: Encodable {
  struct Body: Encodable {
    let message: String
    let param: String?
    let type: String
    let code: String?
  }

  let type = "error"
  let error: Body

  init(_ error: ServerError) { self.error = Body(message: error.message, param: error.field, type: ErrorStyle.type(of: error), code: nil) }
}
