import LatentDiffusion
import Metrics

/// Tells swift-metrics how long what is loaded and drawn takes.
///
/// ```swift
/// var context = ExecutionContext()
/// context.workObserver = MetricsObserver()
/// ```
///
/// There are a timer `latent_diffusion_work` for what ended well and a counter `latent_diffusion_failures` for what did not, both with the dimension `work`
/// (`Work.Kind`), counters `latent_diffusion_cancellations`, with the same, and `latent_diffusion_warnings`, and `latent_diffusion_images`, the pictures and
/// frames of generations that ended well.
public struct MetricsObserver: WorkObserver {
  private let timers: [Work.Kind: Metrics.Timer]
  private let failures: [Work.Kind: Counter]
  private let cancellations: [Work.Kind: Counter]
  private let warnings: Counter
  private let images: Counter

  /// - Parameter factory: of the metrics; nil: the one that the program has chosen.
  public init(factory: (any MetricsFactory)? = nil) {
    let factory = factory ?? MetricsSystem.factory
    func each<Metric>(_ make: (_ dimensions: [(String, String)]) -> Metric) -> [Work.Kind: Metric] {
      Dictionary(uniqueKeysWithValues: Work.Kind.allCases.map { ($0, make([("work", $0.rawValue)])) })
    }
    timers = each { Metrics.Timer(label: "latent_diffusion_work", dimensions: $0, factory: factory) }
    failures = each { Counter(label: "latent_diffusion_failures", dimensions: $0, factory: factory) }
    cancellations = each { Counter(label: "latent_diffusion_cancellations", dimensions: $0, factory: factory) }
    warnings = Counter(label: "latent_diffusion_warnings", factory: factory)
    images = Counter(label: "latent_diffusion_images", factory: factory)
  }

  public func ended(_ work: Work, after duration: Duration, error: (any Error)?) {
    switch error {
    case nil:
      timers[work.kind]?.record(duration: duration)
      if work.kind == .generation { images.increment(by: work.count) }
    case is CancellationError: cancellations[work.kind]?.increment()
    default: failures[work.kind]?.increment()
    }
  }

  public func warned(_ message: String) { warnings.increment() }
}
