import LatentDiffusionTestSupport
import LatentDiffusionTraining
import Tensor
import Testing

/// Averages against diffusers' `EMAModel`, clipping against PyTorch's `clip_grad_norm_`, and the accumulation of gradients.
@Suite struct AverageTests {
  private struct Case: Decodable {
    let settings: Settings?
    let decays: [Double]?
    let norm, found: Double?
  }

  private struct Settings: Decodable {
    let use_ema_warmup: Bool?
    let inv_gamma, power, decay, min_decay: Double?
    let update_after_step: Int?

    var decaying: ExponentialMovingAverage.Decay {
      var result = ExponentialMovingAverage.Decay()
      result.largest = decay ?? result.largest
      result.smallest = min_decay ?? result.smallest
      result.skippedSteps = update_after_step ?? result.skippedSteps
      if use_ema_warmup ?? false {
        var warmup = ExponentialMovingAverage.Decay.Warmup()
        (warmup.inverseGamma, warmup.power) = (inv_gamma ?? warmup.inverseGamma, power ?? warmup.power)
        result.warmup = warmup
      }
      return result
    }
  }

  private let context = ExecutionContext(threads: 2)

  @Test func averagesAreTheReferences() throws {
    var count = 0
    for item in try ReferenceCases<Case>("training/averages.safetensors") {
      guard let settings = item.parameters.settings, let decays = item.parameters.decays else { continue }
      func parameters(_ step: String) throws -> [Tensor] { try ["a", "b"].map { try item["\(step).\($0)"] } }
      var average = try ExponentialMovingAverage(of: parameters("start"), decay: settings.decaying)
      for (step, decay) in decays.enumerated() {
        #expect(abs(average.decay(after: step + 1) - decay) < 1e-12, "\(item.name), step \(step)")
        try average.update(with: parameters("step\(step)"), in: context)
      }
      for (found, expected) in zip(average.parameters, try parameters("average")) {
        expectClose(found, expected, tolerance: 1e-6, item.name)
      }
      count += 1
    }
    #expect(count == 4)
  }

  @Test func anAverageIsSavedAndGoesOn() throws {
    var numbers = Numbers(seed: 4)
    let steps = (0..<6).map { _ in [numbers.tensor([30, 500])] }
    var whole = try ExponentialMovingAverage(of: steps[0])
    for step in steps { try whole.update(with: step, in: context) }
    var first = try ExponentialMovingAverage(of: steps[0])
    for step in steps[..<3] { try first.update(with: step, in: context) }
    var second = try ExponentialMovingAverage(of: first.parameters, decay: first.decay, steps: first.steps)
    for step in steps[3...] { try second.update(with: step, in: ExecutionContext(threads: 1)) }
    expectClose(second.parameters[0], whole.parameters[0], tolerance: 0)
    #expect(second.steps == 6 && compare(first.parameters[0].elements, whole.parameters[0].elements).largest > 0)
  }

  @Test func impossibleAveragesAreRefused() throws {
    for wrong in [1, -0.1, .nan] {
      var decay = ExponentialMovingAverage.Decay()
      decay.largest = wrong
      #expect(throws: TrainingError.self) { try ExponentialMovingAverage(of: [], decay: decay) }
    }
    var average = try ExponentialMovingAverage(of: [Tensor([1, 2])])
    #expect(throws: TrainingError.wrongCount(of: "averages", expected: 2, found: 1)) {
      try average.update(with: [Tensor([1, 2]), Tensor([1])], in: context)
    }
    #expect(throws: TrainingError.wrongShape(of: "Parameter 0", expected: [2], found: [1])) {
      try average.update(with: [Tensor([1])], in: context)
    }
    #expect(average.steps == 0)
  }

  @Test func clippingIsTheReferences() throws {
    var count = 0
    for item in try ReferenceCases<Case>("training/averages.safetensors") {
      guard let norm = item.parameters.norm, let expected = item.parameters.found else { continue }
      var gradients = try ["a", "b"].map { try item["before.\($0)"] }
      let found = try GradientClipping(norm: norm)(&gradients, in: context)
      #expect(abs(found - expected) <= 1e-6 * expected)
      for (gradient, name) in zip(gradients, ["a", "b"]) { expectClose(gradient, try item["after.\(name)"], tolerance: 1e-6, item.name) }
      count += 1
    }
    #expect(count == 2)
  }

  @Test func whatIsNoNumberIsNotClipped() throws {
    for wrong in [Float.nan, .infinity] {
      var gradients = [Tensor([1, 2]), Tensor([3, wrong, 4])]
      #expect(throws: TrainingError.gradientNotFinite(parameter: 1)) { try GradientClipping()(&gradients, in: context) }
      #expect(gradients[0].elements == [1, 2])
    }
    for wrong in [0, -1, .nan] { #expect(throws: TrainingError.self) { try GradientClipping(norm: wrong) } }
  }

  /// The sum of squares has the same bits for any number of threads, also over tensors of several runs.
  @Test func normsDoNotDependOnThreads() throws {
    var numbers = Numbers(seed: 8)
    let gradients = [numbers.tensor([300, 100]), numbers.tensor([7]), numbers.tensor([20_000])]
    let norms = try [1, 2, 5].map { threads in
      var own = gradients
      return try GradientClipping(norm: 1e9)(&own, in: ExecutionContext(threads: threads))
    }
    #expect(norms[0] == norms[1] && norms[1] == norms[2])
    let exact = gradients.flatMap(\.elements).reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
    #expect(abs(norms[0] - exact) < 1e-9 * exact)
  }

  @Test func accumulationIsTheMean() throws {
    var numbers = Numbers(seed: 9)
    let batches = (0..<6).map { _ in [numbers.tensor([3, 5]), numbers.tensor([9000])] }
    var accumulation = try GradientAccumulation(batches: 3)
    for step in 0..<2 {
      let parts = batches[step * 3..<step * 3 + 3].map { $0 }
      #expect(try accumulation(parts[0], in: context) == nil && accumulation(parts[1], in: context) == nil)
      let mean = try #require(try accumulation(parts[2], in: context))
      for place in 0..<2 {
        expectClose(mean[place], (parts[0][place] + parts[1][place] + parts[2][place]) / 3, tolerance: 1e-6, "step \(step)")
      }
    }
    var single = try GradientAccumulation(batches: 1)
    #expect(try single(batches[0], in: context)?[0].isIdentical(to: batches[0][0]) == true)
    #expect(throws: TrainingError.self) { try GradientAccumulation(batches: 0) }
    _ = try accumulation(batches[0], in: context)
    #expect(throws: TrainingError.wrongShape(of: "Gradient 1", expected: [9000], found: [1])) {
      try accumulation([batches[0][0], Tensor([1])], in: context)
    }
    #expect(throws: TrainingError.wrongCount(of: "gradients", expected: 2, found: 1)) { try accumulation([batches[0][0]], in: context) }
  }
}
