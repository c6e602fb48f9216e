import LatentDiffusionComponents
import Tensor

extension HeunDiscreteScheduler {
  /// Heun's method that goes back to more noise by fresh noise, and down once more: the errors of the first way are forgotten in the noise.
  ///
  /// With fewer than 20 steps nothing is restarted. From 20 up, σ fall by Karras' spacing to the one nearest to 0.1, and from there 9 steps are made
  /// again from the one nearest to 2; from 36 up a quarter of the steps is made again twice. As many steps are made in all as are asked for.
  ///
  /// Source: Xu, Deng, Cheng et al., "Restart sampling for improving generative processes", arXiv 2306.14878; stable-diffusion-webui's `restart_sampler`
  /// without a list.
  /// - Parameters:
  ///   - configuration: `scheduler_config.json`; absent keys take `EulerDiscreteScheduler`'s defaults.
  ///   - steps: at most `num_train_timesteps`. All but the last take two predictions.
  /// - Throws: `SchedulerError`.
  public init(restart configuration: SchedulerConfiguration, steps: Int) throws(SchedulerError) {
    let table = try NoiseTable(kDiffusion: configuration, steps: steps, scheduler: .restart)
    let spacing: SigmaSpacing? = try SigmaSpacing(configuration) == .karras ? .karras : nil
    let single = try NoiseSchedule(karras: configuration, steps: steps, table: table, options: KarrasOptions(spacing: spacing))
    let way = Self.restarted(single.levels.map(\.sigma))
    let (sigmas, trained) = (way.flatMap { [$0.start, $0.end] }, SigmaTable(table))
    let schedule = NoiseSchedule(
      timesteps: sigmas.dropLast().map { Float(trained.timestep(at: Double($0))) }, levels: sigmas.map { NoiseLevel(karras: $0) },
      initialNoiseScale: single.initialNoiseScale)
    self.init(schedule, prediction: try PredictionType(configuration))
  }

  private typealias Way = [(start: Float, end: Float)]

  /// The steps, from σ to σ.
  /// - Parameter sigmas: of a way that is gone once, and 0.
  private static func restarted(_ sigmas: [Float]) -> Way {
    let steps = sigmas.count - 1
    guard steps >= 20 else { return Array(zip(sigmas, sigmas.dropFirst())) }
    let (length, times) = steps < 36 ? (9, 1) : (steps / 4, 2)
    let main = karras(from: sigmas[0], to: sigmas[steps - 1], count: steps - length * times)
    func nearest(_ sigma: Float) -> Int { main.indices.min { abs(main[$0] - sigma) < abs(main[$1] - sigma) } ?? 0 }
    let (top, bottom) = (nearest(2), nearest(0.1))
    var way: Way = Array(zip(main, main.dropFirst() + [0]))
    guard top < bottom else { return way }
    // Its ends are the main way's to the last bit, so that noise is fresh in one place alone.
    let again = [main[top]] + karras(from: main[top], to: main[bottom], count: length + 1).dropFirst().dropLast() + [main[bottom]]
    let part: Way = Array(zip(again, again.dropFirst()))
    way.insert(contentsOf: repeatElement(part, count: times).joined(), at: bottom)
    return way
  }

  private static func karras(from largest: Float, to smallest: Float, count: Int) -> [Float] {
    SigmaSpacing.karras.sigmas(from: Double(largest), to: Double(smallest), count: count).map { Float($0) }
  }
}
