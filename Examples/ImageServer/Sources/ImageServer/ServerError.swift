import HTTPTypes

/// Why a request is not carried out: one sentence for people, and what programs need.
public struct ServerError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The status of the answer.
  public let status: HTTPResponse.Status
  /// One sentence.
  public let message: String
  /// The field of the request that it is about; nil: none.
  public var field: String?
  /// Seconds after which the client may ask again; nil: nothing changes by waiting.
  public var retryAfter: Int?
  /// The methods that a path has, where another one was asked for.
  var allowed: [String] = []

  /// An error with these parts.
  public init(_ status: HTTPResponse.Status, _ message: String, field: String? = nil, retryAfter: Int? = nil) {
    (self.status, self.message, self.field, self.retryAfter) = (status, message, field, retryAfter)
  }

  public var description: String { message }

  init(_ status: HTTPResponse.Status, _ message: String, allowed: [String]) {
    self.init(status, message)
    self.allowed = allowed
  }

  /// A field that has a value which it cannot have.
  static func field(_ name: String, _ message: String) -> ServerError { ServerError(.badRequest, message, field: name) }

  static let stopping = ServerError(.serviceUnavailable, "The server is stopping; ask again when it is back.", retryAfter: 10)
}
