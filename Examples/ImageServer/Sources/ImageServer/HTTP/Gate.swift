import Foundation
import HTTPTypes
import Hummingbird

/// Who may ask: clients with the key, and pages of other sites only where they were allowed to.
///
/// A server on a loopback address can be reached by every page that a browser on the machine shows. So a request with an `Origin` of another site is refused
/// unless it is allowed. A request whose `Host` is no name of this server is refused, too: another site could let a name of its own resolve to this machine.
struct Gate: RouterMiddleware {
  typealias Context = BasicRequestContext

  /// Nil: everybody may ask.
  let key: String?
  let allowedOrigins: [String]
  /// Names that a `Host` may have beside addresses, in small letters; nil: any.
  let hosts: Set<String>?
  /// The paths that are open without the key; all others are not.
  let openPaths: Set<String>
  let metrics: ServerMetrics
  let description: InterfaceDescription

  func handle(_ request: Request, context: Context, next: (Request, Context) async throws -> Response) async throws -> Response {
    // The router ignores empty parts of a path, so the checks below must ignore them, too.
    let path = "/" + request.uri.path.split(separator: "/").joined(separator: "/")
    let style = ErrorStyle(of: path)
    var response: Response
    do {
      try checkHost(request)
      try checkOrigin(request)
      // A browser's preflight request carries no key.
      if request.method == .options, request.headers[.accessControlRequestMethod] != nil {
        response = Response(status: .noContent)
      } else {
        if !openPaths.contains(path) { try checkKey(request) }
        do {
          response = try await next(request, context)
        } catch let error as HTTPError where error.status == .notFound {
          let methods = description.methods(of: request.uri.path)
          guard !methods.isEmpty else { throw error }
          throw ServerError(.methodNotAllowed, "\(request.method.rawValue) does nothing here.", allowed: methods)
        }
      }
    } catch {
      response = style.response(to: error)
      if response.status.code >= 500 { context.logger.error("\(error)", metadata: ["path": "\(request.uri.path)"]) }
    }
    metrics.count(answer: response.status.code, of: context.endpointPath ?? "other")
    response.headers[.xContentTypeOptions] = "nosniff"
    if let origin = request.headers[.origin], !allowedOrigins.isEmpty { allow(origin, in: &response) }
    return response
  }

  /// What lets a browser hand the answer to a page of another site.
  private func allow(_ origin: String, in response: inout Response) {
    response.headers[.vary] = "Origin"
    guard allowedOrigins.contains(origin) || allowedOrigins.contains("*") else { return }
    response.headers[.accessControlAllowOrigin] = origin
    response.headers[.accessControlAllowMethods] = "GET, POST, DELETE"
    response.headers[.accessControlAllowHeaders] = "Authorization, Content-Type"
    response.headers[.accessControlExposeHeaders] = "Retry-After, Location"
    response.headers[.accessControlMaxAge] = "600"
  }

  private func checkHost(_ request: Request) throws(ServerError) {
    guard let hosts, let host = request.head.authority else { return }
    let name = Self.name(ofHost: host)
    guard hosts.contains(name) || Self.isAddress(name) else {
      throw ServerError(
        .init(code: 421, reasonPhrase: "Misdirected Request"),
        "This server does not answer for \(host.prefix(100)); allow it with --host-name.")
    }
  }

  private func checkOrigin(_ request: Request) throws(ServerError) {
    guard let origin = request.headers[.origin] else { return }
    let own = request.head.authority.map { origin == "http://\($0)" || origin == "https://\($0)" } ?? false
    guard own || allowedOrigins.contains(origin) || allowedOrigins.contains("*") else {
      throw ServerError(.forbidden, "Pages of \(origin.prefix(100)) may not use this server; allow them with --cors-origin.")
    }
  }

  private func checkKey(_ request: Request) throws(ServerError) {
    guard let key else { return }
    let header = request.headers[.authorization] ?? ""
    let words = header.split(separator: " ", maxSplits: 1).map(String.init)
    let given =
      switch words.first?.lowercased() {
      case "bearer": words.last ?? ""
      // Clients of the webui send a name and a password, which is the key then.
      case "basic":
        Data(base64Encoded: words.last ?? "").map { String(decoding: $0, as: UTF8.self) }?.split(separator: ":", maxSplits: 1).last.map(
          String.init) ?? ""
      default: ""
      }
    guard Self.areEqual(given, key) else {
      throw ServerError(.unauthorized, "The server wants its key: Authorization: Bearer KEY.")
    }
  }

  /// Takes as long for a key that is wrong in its first letter as for one that is wrong in its last.
  static func areEqual(_ given: String, _ key: String) -> Bool {
    let (given, key) = (Array(given.utf8), Array(key.utf8))
    var difference = UInt64(given.count ^ key.count)
    for index in given.indices { difference |= UInt64(given[index] ^ (key.isEmpty ? 1 : key[index % key.count])) }
    return difference == 0
  }

  /// Whether a name is an address, which no other site's name can be.
  private static func isAddress(_ name: String) -> Bool {
    name.contains(":") || (!name.isEmpty && name.allSatisfy { $0.isNumber || $0 == "." })
  }

  /// Without the port.
  static func name(ofHost host: String) -> String {
    if host.hasPrefix("["), let end = host.firstIndex(of: "]") { return host[host.index(after: host.startIndex)..<end].lowercased() }
    return String(host.prefix { $0 != ":" }).lowercased()
  }
}

/// How the three interfaces write errors.
enum ErrorStyle: Sendable {
  case own, openAI, webUI

  init(of path: String) { self = path.hasPrefix("/v1/") ? .openAI : path.hasPrefix("/sdapi/") ? .webUI : .own }

  func response(to error: any Error) -> Response {
    let error = Self.serverError(error)
    var response = Response.json(body(error), status: error.status)
    if let seconds = error.retryAfter { response.headers[.retryAfter] = "\(seconds)" }
    if !error.allowed.isEmpty { response.headers[.allow] = error.allowed.joined(separator: ", ") }
    if error.status == .unauthorized { response.headers[.wwwAuthenticate] = "Bearer" }
    if [.contentTooLarge, .requestTimeout].contains(error.status) { response.headers[.connection] = "close" }
    return response
  }

  private func body(_ error: ServerError) -> JSONValue {
    let message = JSONValue.text(error.message), field = error.field.map(JSONValue.text) ?? .null
    let type = Self.type(of: error)
    switch self {
    case .own, .openAI:
      return .object([
        "error": .object([
          "message": message, "param": field, "type": .text(type), "code": error.status == .unauthorized ? .text("invalid_api_key") : .null,
        ])
      ])
    case .webUI:
      return .object(["error": .text(type), "detail": message, "body": field == .null ? .text("") : field, "errors": message])
    }
  }

  /// OpenAI's name for a kind of error.
  static func type(of error: ServerError) -> String {
    error.status.code >= 500 ? "server_error" : error.status == .tooManyRequests ? "rate_limit_error" : "invalid_request_error"
  }

  /// What of an error a client may know.
  static func serverError(_ error: any Error) -> ServerError {
    switch error {
    case let error as ServerError: error
    case let error as HTTPError where error.status == .notFound: ServerError(.notFound, "There is nothing here; see /openapi.json.")
    case let error as HTTPError: ServerError(error.status, error.body ?? "The request cannot be read.")
    case is CancellationError: ServerError(.init(code: 499, reasonPhrase: "Client Closed Request"), "The job was cancelled.")
    default: ServerError(.internalServerError, reason(error))
    }
  }
}

extension Response {
  /// JSON. What cannot be encoded is an empty object, which no value here is.
  static func json(_ value: some Encodable, status: HTTPResponse.Status = .ok, headers: HTTPFields = [:]) -> Response {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.withoutEscapingSlashes, .sortedKeys]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    let data = (try? encoder.encode(value)) ?? Data("{}".utf8)
    var headers = headers
    headers[.contentType] = "application/json"
    headers[.cacheControl] = "no-store"
    return Response(status: status, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(bytes: data)))
  }

  static func bytes(_ data: Data, type: String, headers: HTTPFields = [:]) -> Response {
    var headers = headers
    headers[.contentType] = type
    return Response(status: .ok, headers: headers, body: ResponseBody(byteBuffer: ByteBuffer(bytes: data)))
  }
}
