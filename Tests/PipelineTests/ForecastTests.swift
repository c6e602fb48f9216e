import LatentDiffusionComponents
import Pipeline
import Synchronization
import Tensor
import Testing

/// Predictions that are polynomials of the timestep alone, and a list of the steps that were asked for.
private struct PolynomialPredictor: NoisePredictor {
  let degree: Int
  var inputChannels: Int { 4 }
  var outputChannels: Int { 4 }
  var sampleSize: Int? { 5 }
  let log = Log()

  final class Log: Sendable { let timesteps = Mutex<[Float]>([]) }

  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    log.timesteps.withLock { $0.append(timestep) }
    let time = timestep / 1000,
      value = (0...degree).reduce(Float(0)) { sum, power in
        sum + (0..<power).reduce(Float(1 + power)) { product, _ in product * time }
      }
    return Tensor(repeating: value, shape: Shape([conditioning.rows] + latents.shape.dimensions.dropFirst()))
  }
}

/// Steps that ask the predictor nothing.
@Suite struct ForecastTests {
  private func run(_ forecast: PredictionForecast?, degree: Int = 1, steps: Int, guidance: Double = 3) async throws -> (
    asked: [Int], latents: [Float]
  ) {
    let predictor = PolynomialPredictor(degree: degree)
    var pipeline = toyPipeline(), request = toyRequest("a", steps: steps)
    pipeline.predictor = predictor
    (request.forecast, request.guidance) = (forecast, guidance)
    let images = try await pipeline.images(for: request)
    return (predictor.log.timesteps.withLock { $0.map { Int((1000 - $0) / 10) } }, images[0].latents.elements)
  }

  @Test func theFirstStepsAndTheLastOneAreAsked() async throws {
    #expect(try await run(nil, steps: 4).asked == [0, 1, 2, 3])
    #expect(try await run(PredictionForecast(interval: 1), steps: 6).asked == [0, 1, 2, 3, 4, 5])
    #expect(try await run(PredictionForecast(interval: 2), steps: 10).asked == [0, 1, 2, 4, 6, 8, 9])
    #expect(try await run(PredictionForecast(interval: 3, warmUp: 1), steps: 9).asked == [0, 3, 6, 8])
    #expect(try await run(PredictionForecast(interval: 100, order: 3, warmUp: 0), steps: 4).asked == [0, 3])
    #expect(try await run(PredictionForecast(), steps: 1).asked == [0])
  }

  /// What is a polynomial of that degree is forecast as it is.
  @Test(arguments: [0, 1, 2]) func polynomialsAreExact(_ degree: Int) async throws {
    let whole = try await run(nil, degree: degree, steps: 12).latents
    for order in degree...3 {
      let found = try await run(PredictionForecast(interval: 3, order: order, warmUp: 3), degree: degree, steps: 12).latents
      #expect(difference(found, whole).value < 2e-4, "order \(order): \(difference(found, whole))")
    }
    guard degree > 0 else { return }
    let poorer = try await run(PredictionForecast(interval: 3, order: degree - 1, warmUp: 3), degree: degree, steps: 12).latents
    #expect(difference(poorer, whole).value > 5e-4)
  }

  @Test func placesGoOn() async throws {
    var request = toyRequest("a", steps: 9)
    (request.forecast, request.guidance) = (PredictionForecast(order: 2), 3)
    let whole = try await toyPipeline().images(for: request)[0].latents.elements
    for stop in [2, 5, 6] {
      var steps = try toyPipeline().generate(request).makeAsyncIterator()
      for _ in 0..<stop { _ = try await steps.next() }
      var latents: [Float] = []
      for try await event in try toyPipeline().generate(request, from: steps.checkpoint) {
        if case .step(let step) = event { latents = step.latents.elements }
      }
      #expect(latents == whole, "after \(stop) steps")
    }
  }

  @Test func whatCannotBeIsRefused() throws {
    for forecast in [
      PredictionForecast(interval: 0), PredictionForecast(interval: .min), PredictionForecast(order: -1), PredictionForecast(order: .max),
      PredictionForecast(warmUp: -1),
    ] {
      var request = toyRequest("a")
      request.forecast = forecast
      #expect(throws: GenerationError.self, "\(forecast)") { try toyPipeline().generate(request) }
    }
  }
}
