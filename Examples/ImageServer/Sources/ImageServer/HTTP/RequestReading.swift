import Foundation
import HTTPTypes
import Hummingbird
import NIOCore
import Synchronization

/// Reads the bodies of requests within the limits.
///
/// All bodies that are under way together have a limit, too, so that many clients cannot fill the memory.
final class BodyReader: Sendable {
  let limits: ServerLimits
  private let metrics: ServerMetrics
  private let underWay = Mutex(0)
  /// How many bodies of the longest kind may come at once.
  private static let mostAtOnce = 6

  init(limits: ServerLimits, metrics: ServerMetrics) { (self.limits, self.metrics) = (limits, metrics) }

  /// The body as fields and files, from JSON or a form.
  ///
  /// - Throws: `ServerError` for another type, a body that is too long or comes too slowly, and what is no JSON and no form.
  func fields(of request: inout Request, allowsForms: Bool = false) async throws -> (fields: RequestFields, files: [String: [Data]]) {
    let type = request.headers[.contentType] ?? ""
    let media = type.prefix { $0 != ";" }.trimmingCharacters(in: .whitespaces).lowercased()
    if allowsForms, media == "multipart/form-data" { return try MultipartForm(await bytes(of: &request), contentType: type).fields() }
    // A page of another site can send other types without a preflight request, but not this one.
    guard media == "application/json" else {
      let forms = allowsForms ? " or multipart/form-data" : ""
      throw ServerError(.unsupportedMediaType, "The body must be application/json\(forms).")
    }
    return (try RequestFields(json: await bytes(of: &request)), [:])
  }

  private func bytes(of request: inout Request) async throws -> Data {
    let stated = request.headers[.contentLength].flatMap { Int($0) }
    guard (0...limits.bodyBytes).contains(stated ?? 0) else { throw tooLong }
    let body = request.body, seconds = limits.bodySeconds
    let buffer = try await withThrowingTaskGroup(of: ByteBuffer.self) { group in
      group.addTask { try await self.collected(body) }
      group.addTask {
        try await Task.sleep(for: .seconds(seconds))
        throw ServerError(.requestTimeout, "The body did not come within \(Int(seconds)) s.")
      }
      defer { group.cancelAll() }
      return try await group.next() ?? ByteBuffer()
    }
    request.body = RequestBody(buffer: buffer)
    return Data(buffer.readableBytesView)
  }

  /// Only what has come counts among the bodies under way: a client that announces a long one and sends nothing keeps nobody out.
  private func collected(_ body: RequestBody) async throws -> ByteBuffer {
    var buffer = ByteBuffer()
    defer { underWay.withLock { $0 -= buffer.readableBytes } }
    for try await part in body {
      let count = part.readableBytes
      guard buffer.readableBytes + count <= limits.bodyBytes else { throw tooLong }
      let hasRoom = underWay.withLock { bytes in
        guard bytes + count <= Self.mostAtOnce * limits.bodyBytes else { return false }
        bytes += count
        return true
      }
      guard hasRoom else {
        metrics.count(refused: "bodies")
        throw ServerError(.serviceUnavailable, "Too many long requests come at once; ask again.", retryAfter: 5)
      }
      buffer.writeImmutableBuffer(part)
    }
    return buffer
  }

  private var tooLong: ServerError { ServerError(.contentTooLarge, "The body is longer than \(limits.bodyBytes) bytes.") }
}

extension Request {
  /// Runs an operation that is cancelled when the client goes away. The connection is not used again afterwards.
  func whileConnected(_ operation: @Sendable () async throws -> Response) async throws -> Response {
    var response = try await body.consumeWithCancellationOnInboundClose { _ in try await operation() }
    response.headers[.connection] = "close"
    return response
  }

  /// The parameters of the query, which are texts.
  var query: RequestFields {
    var values: [String: JSONValue] = [:]
    for (name, value) in uri.queryParameters { values[String(name)] = .text(String(value)) }
    return RequestFields(values, readsTexts: true)
  }
}
