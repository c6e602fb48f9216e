import Foundation
import LatentDiffusionTestSupport
import LatentDiffusionTraining
import Testing

/// Against diffusers' `get_scheduler`.
@Suite struct LearningRateTests {
  private struct Case: Decodable {
    let name: String
    let rate: Double
    let warmup, steps: Int
    let num_cycles: Int?
    let power: Double?
    let rates: [Double]

    var decay: LearningRateSchedule.Decay {
      get throws {
        switch name {
        case "constant", "constant_with_warmup": .constant
        case "linear": .linear
        case "cosine": .cosine
        case "cosine_with_restarts": .cosineWithRestarts(cycles: try #require(num_cycles))
        default: .polynomial(power: try #require(power))
        }
      }
    }
  }

  @Test func ratesAreTheReferences() throws {
    let cases = try JSONDecoder().decode([Case].self, from: Data(contentsOf: fixtures.appending(path: "training/schedules.json")))
    for item in cases {
      let schedule = try LearningRateSchedule(item.decay, rate: Float(item.rate), warmupSteps: item.warmup, steps: item.steps)
      for (step, expected) in item.rates.enumerated() {
        let rate = Double(schedule.rate(at: step))
        #expect(abs(rate - expected) <= 2e-7 * item.rate, "\(item.name), step \(step): \(rate) for \(expected)")
      }
      #expect(schedule.rate(at: item.steps + 100) == schedule.rate(at: item.steps))
    }
    #expect(cases.count == 11)
  }

  @Test func impossibleSchedulesAreRefused() throws {
    for rate: Float in [0, -1e-4, 1e9, .infinity] {
      #expect(throws: TrainingError.unusableLearningRate(rate)) { try LearningRateSchedule(rate: rate, steps: 10) }
    }
    #expect(throws: TrainingError.self) { try LearningRateSchedule(rate: .nan, steps: 10) }
    #expect(throws: TrainingError.self) { try LearningRateSchedule(rate: 1e-4, steps: 0) }
    #expect(throws: TrainingError.self) { try LearningRateSchedule(rate: 1e-4, warmupSteps: -1, steps: 10) }
    #expect(throws: TrainingError.self) { try LearningRateSchedule(.linear, rate: 1e-4, warmupSteps: 10, steps: 10) }
    #expect(throws: TrainingError.self) { try LearningRateSchedule(.cosineWithRestarts(cycles: 0), rate: 1e-4, steps: 10) }
    #expect(throws: TrainingError.self) { try LearningRateSchedule(.polynomial(power: 0), rate: 1e-4, steps: 10) }
    #expect(throws: TrainingError.self) { try LearningRateSchedule(.polynomial(power: 1), rate: 1e-8, steps: 10) }
    #expect(try LearningRateSchedule(rate: 1e-4, warmupSteps: 20, steps: 10).rate(at: 10) == 5e-5)
  }
}
