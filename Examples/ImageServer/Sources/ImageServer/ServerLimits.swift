/// What a client may ask for at most.
public struct ServerLimits: Sendable, Equatable {
  /// Pixels of a picture's longer side.
  public var side = 2048
  /// Pixels of a picture.
  public var pixels = 1 << 20
  /// Pixels of a picture that is sent.
  public var sentPixels = 1 << 24
  /// Steps of the scheduler.
  public var steps = 200
  /// Letters of a prompt.
  public var promptCharacters = 10_000
  /// Pictures of a job.
  public var count = 10
  /// Bytes of a request's body.
  public var bodyBytes = 32 << 20
  /// Seconds in which a request's body must be there.
  public var bodySeconds = 60.0
  /// Jobs that wait, beside the one that is drawn.
  public var queue = 64
  /// Finished jobs that are remembered, with their pictures.
  public var kept = 1000
  /// Connections at once; those beyond wait until one is free.
  public var connections = 512

  /// The limits that are usual.
  public init() {}

  /// Whether a picture of so many pixels may be sent.
  func allowsSent(_ size: (width: Int, height: Int)) -> Bool {
    let (pixels, isTooMany) = size.width.multipliedReportingOverflow(by: size.height)
    return !isTooMany && pixels <= sentPixels
  }
}
