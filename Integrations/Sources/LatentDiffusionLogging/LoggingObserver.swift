import LatentDiffusion
import Logging

/// Tells swift-log what is loaded and drawn.
///
/// ```swift
/// var context = ExecutionContext()
/// context.workObserver = LoggingObserver(Logger(label: "pictures"))
/// ```
///
/// A model or a generation that ends is logged at `level`, a part of one (a component, a step, an encoding, a decoding) at `partLevel`, and what begins at
/// `trace`. What fails is an `error`, what is cancelled a `notice`, and what may matter a `warning`. Metadata are `work`, `name`, `index` and `count`, as
/// `Work` has them, `seconds`, and `error`.
public struct LoggingObserver: WorkObserver {
  private let logger: Logger
  private let level: Logger.Level
  private let partLevel: Logger.Level

  /// - Parameters:
  ///   - logger: where to.
  ///   - level: of models and generations.
  ///   - partLevel: of their parts.
  public init(_ logger: Logger, level: Logger.Level = .info, partLevel: Logger.Level = .debug) {
    (self.logger, self.level, self.partLevel) = (logger, level, partLevel)
  }

  public func began(_ work: Work) { logger.trace("\(work) begins", metadata: metadata(of: work)) }

  public func ended(_ work: Work, after duration: Duration, error: (any Error)?) {
    let seconds = duration / .seconds(1)
    var metadata = metadata(of: work)
    metadata["seconds"] = "\(seconds)"
    switch error {
    case nil:
      let isWhole = work.kind == .loadingModel || work.kind == .generation
      logger.log(level: isWhole ? level : partLevel, "\(work) took \(duration)", metadata: metadata)
    case is CancellationError:
      logger.notice("\(work) was cancelled", metadata: metadata)
    case let error?:
      metadata["error"] = "\(error)"
      logger.error("\(work) failed", metadata: metadata)
    }
  }

  public func warned(_ message: String) { logger.warning("\(message)") }

  private func metadata(of work: Work) -> Logger.Metadata {
    var metadata: Logger.Metadata = ["work": "\(work.kind.rawValue)", "index": "\(work.index)", "count": "\(work.count)"]
    if let name = work.name { metadata["name"] = "\(name)" }
    return metadata
  }
}
