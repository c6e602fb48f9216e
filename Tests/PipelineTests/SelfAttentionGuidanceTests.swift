import LatentDiffusionComponents
import Foundation
import Pipeline
import Synchronization
import Tensor
import Testing

/// Predicts half of what it sees, and says that one pixel of a map of 2 × 2 gets more attention than the others. It writes down what it saw.
private struct AttentivePredictor: NoisePredictor {
  var outputChannels = 4
  /// The pixel of each row.
  var place: @Sendable (_ row: Int) -> Int = { $0 % 4 }
  var tells = false
  let seen = Log()
  var inputChannels: Int { 4 }
  var sampleSize: Int? { 6 }

  final class Log: Sendable { let latents = Mutex<[(Tensor, rows: Int, told: Bool)]>([]) }

  func changed(by change: PredictorChange) throws -> any NoisePredictor {
    guard change == .toldAttention else { throw ComponentError.unsupported(component: "A toy", option: change.option) }
    var result = self
    result.tells = true
    return result
  }

  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    var memory = PassMemory()
    return try predict(latents, timestep: timestep, conditioning: conditioning, memory: &memory, in: context)
  }

  func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> Tensor {
    seen.latents.withLock { $0.append((latents, conditioning.rows, tells)) }
    let rows = conditioning.rows
    if tells {
      let map = (0..<4 * rows).map { $0 % 4 == place($0 / 4) ? Float(1.3) : 0.9 }
      memory.attention = Tensor(map, shape: [rows, 2, 2, 1])
    }
    memory.endPass()
    return 0.5 * latents.repeated(rows / latents.shape[0])
  }
}

/// A scheduler that takes the variance of its noise from the predictor.
private struct VarianceScheduler: Scheduler {
  var base: ToyScheduler
  var schedule: NoiseSchedule { base.schedule }
  var takesVariance: Bool { true }

  mutating func advance(_ sample: Tensor, prediction: Tensor, at step: Int, noise: inout any NoiseSource) throws -> StepResult {
    try base.advance(sample, prediction: prediction.channels(0..<4), at: step, noise: &noise)
  }
}

/// Degraded latents are asked for without those that they are measured from.
private struct Uprooted: Guidance {
  var rows: [GuidanceRow] { [GuidanceRow(.prompt), GuidanceRow(.negativePrompt, isDegraded: true)] }
  func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor { predictions[0] }
}

/// Which latents are degraded, where, and how much; and what is refused.
@Suite struct SelfAttentionGuidanceTests {
  private func pipeline(_ predictor: any NoisePredictor) -> DiffusionPipeline {
    var pipeline = toyPipeline()
    pipeline.predictor = predictor
    return pipeline
  }

  private func request(steps: Int = 1) -> GenerationRequest {
    var request = toyRequest("a", "b", steps: steps)
    (request.guidance, request.selfAttentionScale, request.width, request.height) = (3, 0.5, 24, 24)
    return request
  }

  /// The blur by the formula: 9 × 9 weights, mirrored without the pixels at the ends.
  private func blurred(_ x: Tensor, row: Int, y: Int, x column: Int, channel: Int) -> Float {
    let (height, width) = (x.shape[1], x.shape[2]), elements = x.elements
    func mirrored(_ place: Int, _ length: Int) -> Int { place < 0 ? -place : place >= length ? 2 * (length - 1) - place : place }
    var (sum, whole) = (0.0, 0.0)
    for dy in -4...4 {
      for dx in -4...4 {
        let value = exp(-Double(dy * dy + dx * dx) / 2)
        let place = (row * height + mirrored(y + dy, height)) * width + mirrored(column + dx, width)
        sum += value * Double(elements[place * x.shape[3] + channel])
        whole += value
      }
    }
    return Float(sum / whole)
  }

  /// Two pictures, each of which is blurred in the quarter that its negative row looked at.
  @Test func placesThatGetMoreAttentionAreBlurred() async throws {
    let predictor = AttentivePredictor()
    _ = try await pipeline(predictor).images(for: request())
    let passes = predictor.seen.latents.withLock { $0 }
    #expect(passes.map(\.rows) == [4, 2] && passes.map(\.told) == [true, false])
    let (plain, degraded) = (passes[0].0, passes[1].0), shape = plain.shape
    #expect(degraded.shape == shape && shape[0] == 2)
    // The toy scheduler's x₀ is x − prediction, and its first input divisor and α are 1.
    let original = 0.5 * plain
    // Negative rows come first or last: the map of a row looks at the pixel of its number.
    let quarters = [0, 2].map { first in (0..<2).map { ($0 + first) % 4 } }
    func expected(_ quarters: [Int]) -> [Float] {
      (0..<shape.count).map { index in
        let (channel, pixel) = (index % shape[3], index / shape[3])
        let (row, y, x) = (pixel / (shape[1] * shape[2]), pixel / shape[2] % shape[1], pixel % shape[2])
        let isSeen = y * 2 / shape[1] * 2 + x * 2 / shape[2] == quarters[row]
        let change = isSeen ? blurred(original, row: row, y: y, x: x, channel: channel) - original.elements[index] : 0
        return plain.elements[index] + change
      }
    }
    let errors = quarters.map { difference(degraded.elements, expected($0)).value }
    #expect((errors.min() ?? 1) < 1e-4 && (errors.max() ?? 0) > 0.01, "\(errors)")
  }

  /// Without a negative prompt the prompt's own prediction is the one to go away from.
  @Test func itNeedsNoNegativePrompt() async throws {
    let predictor = AttentivePredictor()
    var request = self.request(steps: 3)
    request.guidance = 1
    _ = try await pipeline(predictor).images(for: request)
    #expect(predictor.seen.latents.withLock { $0.map(\.rows) } == [2, 2, 2, 2, 2, 2])
  }

  @Test func whatCannotBeIsRefused() throws {
    func error(_ pipeline: DiffusionPipeline, _ request: GenerationRequest) -> String {
      let error = #expect(throws: (any Error).self) { try pipeline.generate(request) }
      return error.map { "\($0)" } ?? ""
    }
    #expect(error(toyPipeline(), request()) == "This noise predictor has no self-attention guidance; leave it out.")
    let taking = DiffusionPipeline(
      predictor: AttentivePredictor(outputChannels: 8), autoencoder: ToyAutoencoder(), conditioner: ToyConditioner()
    ) { VarianceScheduler(base: ToyScheduler(steps: $0)) }
    #expect(error(taking, request()) == "A scheduler that takes variances has no self-attention guidance; leave it out.")
    var uprooted = request()
    (uprooted.selfAttentionScale, uprooted.guidanceMethod) = (nil, Uprooted())
    #expect(error(pipeline(AttentivePredictor()), uprooted).contains("needs the row that sees them as they are"))
  }
}
