import HTTPTypes
import Hummingbird
import HummingbirdCore
import NIOCore
import NIOHTTPTypes

extension HTTPServerBuilder {
  /// HTTP/1.1 for clients that ask before they send a body, and for those that never end one.
  ///
  /// A client that says `Expect: 100-continue` waits until it is told to go on (RFC 9110, 10.1.1): curl does so for a second, with bodies above 1 MB. It is
  /// told so at once, but not for a body that is too long, which is refused unsent.
  static func http1(_ limits: ServerLimits, idleTimeout: TimeAmount) -> HTTPServerBuilder {
    HTTPServerBuilder { respond in
      HTTP1Channel(
        responder: { (request, writer: consuming ResponseWriter, channel) in
          if request.asksBeforeBody(of: limits.bodyBytes) { try await writer.writeInformationalHead(HTTPResponse(status: .continue)) }
          try await respond(request, writer, channel)
        },
        configuration: .init(additionalChannelHandlers: [BodyWatch(seconds: limits.bodySeconds + 5)], idleTimeout: idleTimeout))
    }
  }
}

extension Request {
  /// Whether a client waits for leave to send a body of at most so many bytes.
  fileprivate func asksBeforeBody(of most: Int) -> Bool {
    guard headers[.expect]?.lowercased() == "100-continue" else { return false }
    let stated = headers[.contentLength].map { Int($0) ?? .max } ?? 0
    return stated <= most
  }
}

/// Closes a connection whose client does not come to the end of a body in time. Those that are read have the same limit, and an answer that says so; this
/// is for those that nobody reads, such as a body that was refused: a client could send it byte by byte for ever.
private final class BodyWatch: ChannelInboundHandler, RemovableChannelHandler {
  typealias InboundIn = HTTPRequestPart
  typealias InboundOut = HTTPRequestPart

  private let limit: TimeAmount
  private var end: Scheduled<Void>?

  init(seconds: Double) { limit = .milliseconds(Int64(seconds * 1000)) }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head:
      let channel = context.channel
      end = context.eventLoop.scheduleTask(in: limit) { channel.close(mode: .all, promise: nil) }
    case .body: break
    case .end: cancel()
    }
    context.fireChannelRead(data)
  }

  func channelInactive(context: ChannelHandlerContext) {
    cancel()
    context.fireChannelInactive()
  }

  func handlerRemoved(context: ChannelHandlerContext) { cancel() }

  private func cancel() {
    end?.cancel()
    end = nil
  }
}
