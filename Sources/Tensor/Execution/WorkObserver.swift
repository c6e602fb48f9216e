/// Told of work that takes time, and of warnings: for logs, measurements and traces of the program that uses the library.
///
/// A context carries it to all that is loaded and drawn in that context.
///
/// ```swift
/// struct Printing: WorkObserver {
///   func ended(_ work: Work, after duration: Duration, error: (any Error)?) { print(work, duration) }
/// }
/// var context = ExecutionContext()
/// context.workObserver = Printing()
/// let model = try await StableDiffusion.loaded(from: folder, in: context)
/// let images = try await model.pipeline.images(for: request, in: context)
/// ```
///
/// The work waits until an observer returns, on a thread of the engine as a rule. What follows nothing needs no implementation.
public protocol WorkObserver: Sendable {
  /// Something begins.
  func began(_ work: Work)
  /// Something is over.
  /// - Parameters:
  ///   - duration: since it began.
  ///   - error: why it came to no end, `CancellationError` included; nil where it did.
  func ended(_ work: Work, after duration: Duration, error: (any Error)?)
  /// Something may matter to the person for whom the work is done.
  /// - Parameter message: one sentence.
  func warned(_ message: String)
}

extension WorkObserver {
  public func began(_ work: Work) {}
  public func ended(_ work: Work, after duration: Duration, error: (any Error)?) {}
  public func warned(_ message: String) {}
}

/// What a `WorkObserver` is told of.
public struct Work: Sendable, Hashable, CustomStringConvertible {
  /// What is done.
  public enum Kind: String, Sendable, CaseIterable {
    /// A model is loaded, with all of its components.
    case loadingModel = "loading_model"
    /// A component is loaded.
    case loadingComponent = "loading_component"
    /// Pictures are drawn: from the first step that is asked for to the last picture. A generation of which nobody asks for more does not end.
    case generation
    /// A picture goes through the encoder.
    case encodingPicture = "encoding_picture"
    /// The prompts go through the text encoder.
    case encodingPrompts = "encoding_prompts"
    /// A step of the denoising.
    case step
    /// Latents become pictures.
    case decoding
  }

  /// What is done.
  public let kind: Kind
  /// What it is done to: the name of a model's file or of a component; nil where nothing has a name.
  public let name: String?
  /// Which one it is of several, from 0: a step, a picture or a frame.
  public let index: Int
  /// How many there are.
  public let count: Int

  /// Work on the `index`-th of `count`.
  package init(_ kind: Kind, _ name: String? = nil, index: Int = 0, of count: Int = 1) {
    (self.kind, self.name, self.index, self.count) = (kind, name, index, count)
  }

  public var description: String {
    let words = kind.rawValue.replacing("_", with: " ") + (name.map { " \($0)" } ?? "")
    return kind == .generation || count == 1 ? words : "\(words) \(index + 1) of \(count)"
  }
}

extension ExecutionContext {
  /// Does some work, and tells the observer of it.
  package func observed<Result>(_ work: @autoclosure () -> Work, _ body: () throws -> Result) rethrows -> Result {
    guard let workObserver else { return try body() }
    let (work, start) = (work(), ContinuousClock.now)
    workObserver.began(work)
    do {
      let result = try body()
      workObserver.ended(work, after: .now - start, error: nil)
      return result
    } catch {
      workObserver.ended(work, after: .now - start, error: error)
      throw error
    }
  }
}
