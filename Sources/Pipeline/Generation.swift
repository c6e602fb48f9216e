import LatentDiffusionComponents
import Tensor

/// A generation under way: first its steps, then its pictures.
///
/// It is pulled: one `next()` runs one step or decodes one picture, on the engine's threads. It stops when nothing more is asked
/// for. Cancelling the task ends the step that is running, within milliseconds, with `CancellationError`.
public struct Generation: AsyncSequence, Sendable {
  let plan: Plan
  /// Where it begins; nil: before the first step.
  let start: Checkpoint?
  let context: ExecutionContext

  /// Begins the generation anew: a generation can be run several times, each with the same result.
  public func makeAsyncIterator() -> Iterator { Iterator(stage: .planned(plan, start), context: context) }

  /// Where one run of the generation is. A value: a copy goes on from the same step.
  public struct Iterator: AsyncIteratorProtocol {
    fileprivate var stage: Stage
    fileprivate let context: ExecutionContext
    /// When the first event was asked for, where somebody wants to know.
    private var start: ContinuousClock.Instant?

    fileprivate init(stage: Stage, context: ExecutionContext) { (self.stage, self.context, start) = (stage, context, nil) }

    /// Where the generation is between two steps; nil before the first and after the last.
    /// - Throws: `EncodingError` where a scheduler, generator or guidance cannot be encoded.
    public var checkpoint: Checkpoint? {
      get throws { if case .denoising(let loop, let plan, _) = stage { try Checkpoint(loop, of: plan) } else { nil } }
    }

    /// - Throws: `CancellationError`, `GenerationError`, and what the components throw. Nothing comes after an error.
    public mutating func next() async throws -> GenerationEvent? {
      let current = stage
      stage = .finished
      if case .planned(let plan, _) = current { begin(plan) }
      do {
        let (event, following) = try await context.run { try current.next(in: $0) }
        stage = following
        if case .finished = following { end(current.plan) }
        return event
      } catch {
        end(current.plan, with: error)
        throw error
      }
    }

    private mutating func begin(_ plan: Plan) {
      guard let observer = context.workObserver else { return }
      start = .now
      observer.began(plan.work)
      for truncation in plan.truncations { observer.warned("\(truncation)") }
    }

    private func end(_ plan: Plan?, with error: (any Error)? = nil) {
      guard let start, let plan else { return }
      context.workObserver?.ended(plan.work, after: .now - start, error: error)
    }
  }

  /// Where a generation is. Each stage gives its event and the stage that follows.
  fileprivate enum Stage: Sendable {
    case planned(Plan, Checkpoint?)
    case denoising(DenoisingLoop, Plan, DiffusionPipeline.Previewer?)
    /// With the pictures that are decoded already; the index is that of the next one.
    case decoding(Tensor, Plan, index: Int, ready: ArraySlice<GeneratedImage>)
    case finished

    var plan: Plan? {
      switch self {
      case .planned(let plan, _), .denoising(_, let plan, _), .decoding(_, let plan, _, _): plan
      case .finished: nil
      }
    }

    func next(in context: ExecutionContext) throws -> (GenerationEvent?, Stage) {
      switch self {
      case .planned(let plan, let start):
        let preview = try plan.request.previewInterval.map { _ in try plan.pipeline.previewer(in: context) }
        try start?.check(plan)
        let fresh = try plan.loop(in: context)
        let loop = try start?.applied(to: fresh) ?? fresh
        plan.phase(.denoising)
        return try Stage.denoising(loop, plan, preview).next(in: context)
      case .denoising(var loop, let plan, let preview):
        let step = try loop.step(plan: plan, preview: preview, in: context)
        guard loop.isFinished else { return (.step(step), .denoising(loop, plan, preview)) }
        return (.step(step), .decoding(loop.latents, plan, index: 0, ready: []))
      case .decoding(let latents, let plan, let index, var ready):
        if ready.isEmpty {
          // The decoder's buffers are far larger than the loop's, so nothing is gained by keeping those; nor those of another picture, which
          // would stand beside what a decoding gives back on its way.
          BufferPool.releaseIdle()
          ready = try plan.images(from: index, of: latents, in: context)[...]
        }
        guard let image = ready.popFirst() else { return (nil, .finished) }
        return (.image(image), index + 1 < plan.pictures ? .decoding(latents, plan, index: index + 1, ready: ready) : .finished)
      case .finished:
        return (nil, .finished)
      }
    }
  }
}

extension Plan {
  /// The whole generation.
  fileprivate var work: Work { Work(.generation, of: pictures) }
}

extension DenoisingLoop {
  fileprivate mutating func step(plan: Plan, preview: DiffusionPipeline.Previewer?, in context: ExecutionContext) throws -> GenerationStep {
    let (index, timestep) = (step - firstStep, scheduler.timesteps[step])
    let predictedOriginal = try context.observed(Work(.step, index: index, of: endStep - firstStep)) { try advance(in: context) }
    let isDue = plan.request.previewInterval.map { (index + 1).isMultiple(of: $0) } ?? false
    return GenerationStep(
      index: index, count: endStep - firstStep, timestep: timestep, latents: latents, predictedOriginal: predictedOriginal,
      preview: isDue ? try preview?.image(of: predictedOriginal ?? latents, in: context) : nil, truncations: plan.truncations)
  }
}

/// What a generation has to tell.
public enum GenerationEvent: Sendable {
  /// A step has been run.
  case step(GenerationStep)
  /// A picture has been decoded, or a frame of a clip; those of a request come in the order of their indices and frames.
  case image(GeneratedImage)
}

/// A step that has been run.
public struct GenerationStep: Sendable {
  /// From 0.
  public let index: Int
  /// Steps of the generation. Schedulers can take more predictions than the steps that were asked for (Heun, PNDM).
  public let count: Int
  /// On the training scale.
  public let timestep: Float
  /// `[N, h, w, C]`, of clips `[N, F, h, w, C]`, after the step. After the last one these are what is decoded; whoever wants only latents stops there.
  public let latents: Tensor
  /// What the step takes the picture for, in the shape of the latents (x̂₀): whoever stops early decodes this. Nil where the scheduler does not say it.
  public let predictedOriginal: Tensor?
  /// `[N, h, w, 3]`, of clips `[N, F, h, w, 3]`, 0…1: a rough picture at the latents' size, where one was asked for.
  public let preview: Tensor?
  /// What the text encoder did not read of the prompts and the negative prompts: empty where it read all.
  public let truncations: [PromptTruncation]
}

/// What a generation is at. Reading files and loading are over when it begins.
public enum GenerationPhase: Sendable, Equatable {
  /// The picture that the task starts from goes through the encoder; `done` of `count` tiles are over.
  case encodingPicture(done: Int, count: Int)
  /// The prompts go through the text encoder.
  case encodingPrompts
  /// The steps, each of which is an event of its own.
  case denoising
  /// Latents become pictures; `done` of `count` tiles of all pictures are over.
  case decoding(done: Int, count: Int)
}

/// A picture and what it was made of.
public struct GeneratedImage: Sendable {
  /// Among the pictures or clips of the request: those of the first prompt come first.
  public let index: Int
  /// Of the clip that it belongs to, from 0; 0 for pictures.
  public let frame: Int
  /// What was drawn.
  public let prompt: Prompt
  /// `[1, H, W, 3]`, 0…1.
  public let image: Tensor
  /// `[1, h, w, C]`, as they were before decoding (scaled).
  public let latents: Tensor
  /// What the text encoder did not read of the prompts and the negative prompts of the request: empty where it read all.
  public let truncations: [PromptTruncation]
}
