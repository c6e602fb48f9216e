import Autoencoder
import Foundation
import Pipeline
import Tensor
import LatentDiffusionWeights

/// How a generation keeps within an amount of memory: which weights stay packed, which are packed anew at each use, and in what tiles pictures
/// are decoded, with what that is expected to take.
///
/// ```swift
/// let plan = try MemoryPlan(for: url, GenerationExtent(size: PixelSize(width: 512, height: 512)), limit: 1_600_000_000)
/// let model = try StableDiffusion.load(from: url, plan: plan)
/// ```
///
/// Streamed weights change no result. Smaller tiles change pictures a little.
public struct MemoryPlan: Sendable, CustomStringConvertible {
  /// What was planned for; what takes no more is welcome too.
  public let extent: GenerationExtent
  /// Bytes that the process may have resident; nil: as many as it takes.
  public let limit: Int?
  /// Bytes that the process is expected to have resident at most.
  public let predictedPeakBytes: Int
  /// The time that 20 steps and the decoding are expected to take, as a multiple of what they take without a limit.
  public let predictedRelativeTime: Double
  /// Bytes of weights that stay in memory.
  public let keptBytes: Int
  /// Bytes of weights that are packed anew in each step.
  public let streamedBytesPerStep: Int
  /// How pictures go through the autoencoder.
  public let tiling: AutoencoderTiling
  /// The form in which weights were asked for; nil: none.
  public let weights: WeightForm?
  let choice: MemoryChoice
  let model: MemoryModel
  private let cost: MemoryCost

  /// - Parameters:
  ///   - url: a model, as `StableDiffusion.load` takes it.
  ///   - parts: components from other files, by their names, as `StableDiffusion.load` takes them.
  ///   - company: networks that are used beside the model. They are loaded with the plan, too.
  ///   - extent: what is to be generated; nil: one guided picture of the size that the model was trained on.
  ///   - limit: bytes that the process may have resident, all included; nil for the plan that is used without one.
  ///   - weights: the form in which the weights will be held. Weights that are converted cannot be streamed.
  ///   - adapters: that the model will be loaded with. Those of single requests are not planned for.
  ///   - threads: of the context in which it will run; each has buffers of its own.
  ///   - registry: the classes and families that are known.
  /// - Throws: `MemoryPlanError.limitTooSmall` with the smallest limit that would do, `ComponentError` where a control is for another model, and what
  ///   reading the files throws.
  public init(
    for url: URL, replacing parts: [String: URL] = [:], beside company: ModelCompany = ModelCompany(), _ extent: GenerationExtent? = nil,
    limit: Int? = nil, weights: WeightForm? = nil, adapters: [AdapterUse] = [],
    threads: Int = ProcessInfo.processInfo.activeProcessorCount, registry: ModelRegistry = .standard
  ) throws {
    let files = try ModelFiles.open(url, replacing: parts, registry: registry)
    let model = try MemoryModel(
      files, of: registry.family(of: files), beside: company, weights: weights, adapters: adapters, threads: threads, registry: registry)
    guard var extent = extent ?? model.usualExtent else { throw GenerationError.noSize }
    try model.check(extent)
    extent.controls = model.controls
    let passes = MemoryPasses()
    let usual = try model.cost(of: .usual, extent, passes: passes)
    var best = (choice: MemoryChoice.usual, cost: usual)
    if let limit {
      guard let fitting = try model.quickest(within: limit, extent, passes: passes) else {
        let smallest = try model.smallestPeak(extent, passes: passes)
        throw MemoryPlanError.limitTooSmall(limit: limit, smallest: (smallest + 999_999) / 1_000_000 * 1_000_000, extent: extent)
      }
      best = fitting
    }
    (self.extent, self.limit, self.weights, self.model) = (extent, limit, weights, model)
    (choice, tiling, keptBytes, predictedPeakBytes) = (best.choice, best.choice.tiling, best.cost.keptBytes, best.cost.peakBytes)
    streamedBytesPerStep = Int(best.cost.step.packedBytes)
    predictedRelativeTime = best.cost.usualSeconds / usual.usualSeconds
    cost = best.cost
  }

  /// Pixels a side for each latent a side of a model, and the size of pictures that it was made for, where its files say it; no weights are read.
  ///
  /// - Throws: what reading the model's files throws.
  public static func usualSize(
    of url: URL, replacing parts: [String: URL] = [:], registry: ModelRegistry = .standard
  ) throws -> (scale: Int, size: PixelSize?) {
    let files = try ModelFiles.open(url, replacing: parts, registry: registry)
    let model = try MemoryModel(files, of: registry.family(of: files), weights: nil, threads: 1, registry: registry)
    return (model.scale, model.usualExtent?.size)
  }

  /// Whether a network is among those beside the model that were planned for.
  public func isBeside(_ url: URL) -> Bool { model.isBeside(url) }

  /// Where the matrices of a component are between uses.
  public func residency(of component: String) -> WeightResidency { model.residency(of: component, choice) }

  /// The matrices that are packed anew at each use, by component.
  var streamedParameters: [String: Set<String>] { model.streamedParameters(choice) }

  /// The form in which a component is held; nil: as the file has it.
  public func form(of component: String) -> WeightForm? { model.form(of: component, choice) }

  /// Seconds that a generation from a loaded model is expected to take: measures how fast the machine is now, for about a tenth of a second.
  ///
  /// - Parameter steps: that the scheduler makes; those that evaluate the model twice count twice.
  /// - Throws: `CancellationError`.
  public func predictedSeconds(steps: Int, in context: ExecutionContext) throws -> Double {
    cost.seconds(steps: steps, on: try MachineSpeed(of: model.predictorElementType(choice), in: context))
  }

  /// - Throws: `MemoryPlanError.requestTooLarge` where a generation would take more than the limit with what was planned.
  func admit(_ extent: GenerationExtent) throws {
    guard let limit else { return }
    var planned = self.extent.controls
    for name in extent.controls {
      guard let index = planned.firstIndex(of: name) else { throw MemoryPlanError.uncountedControl(name: name) }
      planned.remove(at: index)
    }
    let needed = try model.cost(of: choice, extent).peakBytes
    guard needed <= max(limit, predictedPeakBytes) else {
      throw MemoryPlanError.requestTooLarge(limit: limit, needed: needed, extent: extent)
    }
  }

  public var description: String {
    func megabytes(_ bytes: Int) -> String { "\((bytes + 500_000) / 1_000_000) MB" }
    let tiles =
      switch tiling {
      case .off: "pictures are decoded whole"
      case .automatic: "pictures are decoded whole below 1024×1024 pixels, in tiles of 512 from there on"
      case .tiles(let tiles): "pictures are decoded in tiles of \(tiles.latentSide * model.scale) pixels"
      }
    let streamed = streamedBytesPerStep > 0 ? "\(megabytes(streamedBytesPerStep)) are packed anew in each step" : "nothing is streamed"
    let time = String(format: "%.2f", predictedRelativeTime)
    return """
      \(extent.size.width)×\(extent.size.height) pixels, \(extent.images) at once: \(megabytes(keptBytes)) of weights stay in memory, \
      \(streamed), \(tiles); about \(megabytes(predictedPeakBytes)) of memory and \(time) times the usual time
      """
  }
}

/// Why a generation does not fit into an amount of memory.
public enum MemoryPlanError: Error, Sendable, Equatable, CustomStringConvertible {
  /// No plan keeps within the limit; `smallest` is the least for which there is one.
  case limitTooSmall(limit: Int, smallest: Int, extent: GenerationExtent)
  /// A network that steers a request was not planned for.
  case uncountedControl(name: String)
  /// A request is larger than what the model was loaded for.
  case requestTooLarge(limit: Int, needed: Int, extent: GenerationExtent)

  public var description: String {
    func megabytes(_ bytes: Int) -> String { "\((bytes + 999_999) / 1_000_000) MB" }
    switch self {
    case .limitTooSmall(let limit, let smallest, let extent):
      return """
        \(megabytes(limit)) of memory are too little for \(extent.images) of \(extent.size.width)×\(extent.size.height) pixels with this model; \
        the smallest limit that would do is \(megabytes(smallest)).
        """
    case .uncountedControl(let name):
      return "\(name) was not counted when the model was loaded with a limit on memory; make the plan with all that steers a picture."
    case .requestTooLarge(let limit, let needed, let extent):
      return """
        \(extent.images) of \(extent.size.width)×\(extent.size.height) pixels need about \(megabytes(needed)) of memory as this model was loaded, \
        more than the limit of \(megabytes(limit)); ask for less at once, or load it with a plan for this size.
        """
    }
  }
}
