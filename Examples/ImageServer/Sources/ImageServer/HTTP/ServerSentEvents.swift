import Foundation
import HTTPTypes
import Hummingbird
import NIOCore

/// An event of a stream, as the HTML standard writes it.
struct ServerSentEvent: Sendable {
  let name: String
  /// JSON, on one line.
  let data: String

  init(_ name: String, _ value: some Encodable) {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
    (self.name, data) = (name, (try? encoder.encode(value)).map { String(decoding: $0, as: UTF8.self) } ?? "{}")
  }

  var buffer: ByteBuffer { ByteBuffer(string: "event: \(name)\ndata: \(data)\n\n") }
}

extension Response {
  /// A stream of events. Comments between them keep proxies from closing it, and tell when the client is gone.
  ///
  /// - Parameters:
  ///   - request: of the client.
  ///   - events: ends with the last event. It is cancelled when the client goes away.
  static func events(_ request: Request, _ events: @escaping @Sendable (_ send: @Sendable (ServerSentEvent) -> Void) async throws -> Void)
    -> Response
  {
    let body = ResponseBody { writer in
      let (lines, line) = AsyncStream.makeStream(of: ByteBuffer.self, bufferingPolicy: .bufferingNewest(256))
      let work = Task {
        defer { line.finish() }
        _ = try? await request.body.consumeWithCancellationOnInboundClose { _ in try await events { line.yield($0.buffer) } }
      }
      let pulse = Task {
        while true {
          try await Task.sleep(for: .seconds(15))
          line.yield(ByteBuffer(string: ": still here\n\n"))
        }
      }
      defer {
        work.cancel()
        pulse.cancel()
      }
      for await buffer in lines { try await writer.write(buffer) }
      try await writer.finish(nil)
    }
    var headers: HTTPFields = [.contentType: "text/event-stream", .cacheControl: "no-store", .connection: "close"]
    // nginx would hold events back otherwise.
    if let name = HTTPField.Name("X-Accel-Buffering") { headers[name] = "no" }
    return Response(status: .ok, headers: headers, body: body)
  }
}
