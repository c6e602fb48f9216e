import Foundation
import LatentDiffusionComponents
import LatentDiffusionFiles
import Tensor

extension Generation {
  /// Where a generation is between two steps: it can be written to a file, and a generation of the same request on the same model goes on from it,
  /// in this process or another, to the same picture. What adapters add to one request alone (`GenerationRequest.adaptation`) is not compared.
  ///
  /// ```swift
  /// var steps = try pipeline.generate(request).makeAsyncIterator()
  /// _ = try await steps.next()
  /// try steps.checkpoint?.write(to: file)
  /// …
  /// let checkpoint = try Generation.Checkpoint(contentsOf: file)
  /// for try await event in try pipeline.generate(request, from: checkpoint) { … }
  /// ```
  public struct Checkpoint: Sendable, Codable {
    /// `[N, h, w, C]`, of clips `[N, F, h, w, C]`.
    public package(set) var latents: Tensor
    /// The next step, an index into the scheduler's timesteps.
    public let step: Int
    /// What was asked for: a hash of each part of the request.
    private let asked: [String: ContentHash]
    /// What the model was made of; nil: nobody knows.
    private let model: ContentHash?
    private let timesteps: [Float]
    /// The scheduler with its history, the generator of random numbers and the guidance, each as its own type encodes itself.
    private let scheduler: Data
    private let noise: Data
    private let guidance: Data
    private let seed: UInt64
    /// How often each pass was run, and what it left.
    private let passes: [Int]
    package var kept: [[String: Tensor]]

    init(_ loop: DenoisingLoop, of plan: Plan) throws {
      (latents, step, timesteps) = (loop.latents, loop.step, loop.scheduler.timesteps)
      (passes, kept) = (loop.memories.map(\.passes), loop.memories.map(\.kept))
      seed = loop.memories.first?.seed ?? 0
      (asked, model) = (plan.request.contents, plan.pipeline.content)
      scheduler = try Self.encoded(loop.scheduler)
      noise = try Self.encoded(loop.noise)
      guidance = try Self.encoded(loop.guidance)
    }

    private static func encoded(_ value: any Encodable) throws -> Data { try JSONEncoder().encode(value) }

    /// A value of the type that the loop has.
    private static func decoded<Value: Decodable>(_ data: Data, like value: Value) throws -> Value {
      try JSONDecoder().decode(Value.self, from: data)
    }

    /// Says before anything is computed whether it belongs to a request.
    /// - Throws: `GenerationError.checkpointDoesNotFit`.
    func check(_ plan: Plan) throws(GenerationError) {
      let asked = plan.request.contents, parts = Set(asked.keys).union(self.asked.keys)
      if let other = parts.sorted().first(where: { asked[$0] != self.asked[$0] }) {
        throw .checkpointDoesNotFit(reason: "it was saved with \(other) other than the request's")
      }
      if let model, let content = plan.pipeline.content, model != content {
        throw .checkpointDoesNotFit(
          reason:
            "the model's files or adapters are others than when it was saved, or are held in another form; begin anew, or put them back")
      }
    }

    /// The loop of the same request, at this place.
    /// - Throws: `GenerationError.checkpointDoesNotFit`.
    func applied(to fresh: DenoisingLoop) throws(GenerationError) -> DenoisingLoop {
      var loop = fresh
      guard latents.shape == loop.latents.shape else {
        throw .checkpointDoesNotFit(reason: "its latents are \(latents.shape), and the request's are \(loop.latents.shape)")
      }
      guard loop.memories.allSatisfy({ $0.seed == seed }) else {
        throw .checkpointDoesNotFit(reason: "its seed is another than the request's")
      }
      guard latents.isFinite, timesteps == loop.scheduler.timesteps, passes.allSatisfy((0...1 << 32).contains),
        (loop.firstStep..<loop.endStep).contains(step), kept.count == loop.memories.count, passes.count == kept.count
      else {
        throw .checkpointDoesNotFit(reason: "its steps are others than the request's")
      }
      do {
        loop.scheduler = try Self.decoded(scheduler, like: loop.scheduler)
        loop.noise = try Self.decoded(noise, like: loop.noise)
        loop.guidance = try Self.decoded(guidance, like: loop.guidance)
      } catch {
        throw .checkpointDoesNotFit(reason: "it was saved with another scheduler, generator or guidance, or is damaged")
      }
      guard fresh.asksTheSame(as: loop.guidance, from: step) else {
        throw .checkpointDoesNotFit(reason: "its guidance is another than the request's")
      }
      guard loop.scheduler.timesteps == timesteps else {
        throw .checkpointDoesNotFit(reason: "its scheduler has other steps than the request's")
      }
      loop.memories = loop.memories.indices.map {
        PassMemory(loop.memories[$0].shortcuts, seed: loop.memories[$0].seed, passes: passes[$0], kept: kept[$0])
      }
      (loop.latents, loop.step) = (latents, step)
      return loop
    }
  }
}
