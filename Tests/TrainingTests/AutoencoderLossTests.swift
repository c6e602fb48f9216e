import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionTraining
import Tensor
import Testing

/// Against PyTorch's losses and gradients, and diffusers' `DiagonalGaussianDistribution`.
@Suite struct AutoencoderLossTests {
  private struct Case: Decodable {
    let scales: Int?
    let edges, l1, l2, divergence: Double?
  }

  private let context = ExecutionContext(threads: 2)

  @Test func pictureLossesAreTheReferences() throws {
    var count = 0
    for item in try ReferenceCases<Case>("training/autoencoder.safetensors") {
      guard let scales = item.parameters.scales else { continue }
      let (answer, target) = (try item["answer"].asPictures, try item["target"].asPictures)
      for (name, expected, loss) in [
        ("edges", item.parameters.edges, try MultiscaleGradientLoss(scales: scales)(answer, target, in: context)),
        ("l1", item.parameters.l1, try ElementLoss.meanAbsolute(answer, target, in: context)),
        ("l2", item.parameters.l2, try ElementLoss.meanSquared(answer, target, in: context)),
      ] {
        let expected = try #require(expected)
        #expect(abs(loss.value - expected) < 1e-6 * expected, "\(item.name), \(name): \(loss.value) for \(expected)")
        expectClose(loss.gradient, try item[name].asPictures, tolerance: 1e-5, "\(item.name), \(name)")
        count += 1
      }
    }
    #expect(count == 9)
  }

  @Test func divergencesAreTheReferences() throws {
    var count = 0
    for item in try ReferenceCases<Case>("training/autoencoder.safetensors") {
      guard let expected = item.parameters.divergence else { continue }
      func halves(_ name: String) throws -> (mean: Tensor, logVariance: Tensor) {
        let moments = try item[name].asPictures
        return (moments.channels(0..<4), moments.channels(4..<8))
      }
      let moments = try halves("moments"), gaussian = DiagonalGaussian(mean: moments.mean, logVariance: moments.logVariance)
      let (value, gradient) = try gaussian.divergence(in: context)
      #expect(abs(value - expected) < 1e-6 * expected, "\(item.name): \(value) for \(expected)")
      let sampled = try gaussian.gradient(ofSample: item["slope"].asPictures, noise: item["noise"].asPictures, in: context)
      for (found, name) in [(gradient, "gradient"), (sampled, "sampled")] {
        let halves = try halves(name)
        expectClose(found.mean, halves.mean, tolerance: 1e-5, "\(item.name), \(name) of the mean")
        expectClose(found.logVariance, halves.logVariance, tolerance: 1e-5, "\(item.name), \(name) of the logarithm")
        // The clamped elements exactly: they lie in the first pixel.
        for channel in 0..<4 where abs(moments.logVariance.elements[channel] + 5) > 25 {
          #expect(found.logVariance.elements[channel] == 0 && halves.logVariance.elements[channel] == 0)
        }
      }
      count += 1
    }
    #expect(count == 2)
  }

  @Test func anyNumberOfThreadsGivesTheSameBytes() throws {
    var numbers = Numbers(seed: 6)
    let (answer, target) = (numbers.tensor([3, 40, 50, 3]), numbers.tensor([3, 40, 50, 3]))
    let losses = try [1, 2, 5].map { threads in
      let context = ExecutionContext(threads: threads)
      let loss = try MultiscaleGradientLoss(scales: 4)(answer, target, in: context)
      return try loss.adding(ElementLoss.meanSquared(answer, target, in: context), weight: 0.3, in: context)
    }
    for loss in losses {
      #expect(loss.value == losses[0].value)
      expectClose(loss.gradient, losses[0].gradient, tolerance: 0)
    }
  }

  @Test func impossibleLossesAreRefused() throws {
    for scales in [0, 17, Int.min, Int.max] { #expect(throws: TrainingError.self) { try MultiscaleGradientLoss(scales: scales) } }
    let picture = Tensor(shape: [1, 7, 16, 3]), loss = try MultiscaleGradientLoss(scales: 3)
    #expect(throws: TrainingError.self) { try loss(picture, picture, in: context) }
    #expect(throws: TrainingError.self) { try loss(Tensor([1]), Tensor([1]), in: context) }
    #expect(throws: TrainingError.self) { try loss(picture, Tensor([1]), in: context) }
    #expect(throws: TrainingError.lossNotFinite) {
      try ElementLoss.meanSquared(Tensor([.nan]), Tensor([1]), in: context)
    }
    #expect(throws: TrainingError.lossNotFinite) {
      try DiagonalGaussian(mean: Tensor(repeating: .infinity, shape: [1, 1, 1, 1]), logVariance: Tensor(shape: [1, 1, 1, 1]))
        .divergence(in: context)
    }
  }
}
