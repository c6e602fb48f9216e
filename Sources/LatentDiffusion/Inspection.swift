import Foundation
import Tensor
import TextEncoder
import LatentDiffusionWeights

extension DiffusionModel {
  /// The CLIP tokenizer of a model, without the rest of it.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `ConfigurationError`, `TokenizerError`.
  public static func tokenizer(from url: URL, replacing parts: [String: URL] = [:]) throws -> CLIPTokenizer {
    let files = try ModelFiles.open(url, replacing: parts)
    // SDXL's refiner has the second one alone.
    let isSecond = !files.components.contains("tokenizer") && files.components.contains("tokenizer_2")
    return try CLIPTokenizer(of: files, named: isSecond ? "tokenizer_2" : "tokenizer")
  }

  /// The family of a model, without the rest of it.
  ///
  /// - Parameter parts: components from other files, by their names, as `ModelFiles.open` takes them.
  /// - Throws: `ModelFilesError`, `SafetensorsError` where there is no model of a known family.
  public static func family(
    of url: URL, replacing parts: [String: URL] = [:], registry: ModelRegistry = .standard
  ) throws -> any ModelFamily {
    try registry.family(of: ModelFiles.open(url, replacing: parts, registry: registry))
  }

  /// What a model is and what of it cannot be used. Each component is loaded for itself, and let go again: what one lacks does not
  /// hide what another lacks.
  ///
  /// - Parameter parts: components from other files, by their names, as `ModelFiles.open` takes them.
  /// - Throws: `ModelFilesError`, `SafetensorsError` where there is no model, and `CancellationError`.
  public static func inspect(
    _ url: URL, replacing parts: [String: URL] = [:], registry: ModelRegistry = .standard, in context: ExecutionContext = ExecutionContext()
  ) throws -> InspectReport {
    let files = try ModelFiles.open(url, replacing: parts, registry: registry)
    var family: (any ModelFamily)?, problem: String?
    do {
      family = try registry.family(of: files)
    } catch {
      // The folder of one component is no model at all.
      guard files.layout != .component else { throw error }
      problem = "\(error)"
    }
    // Even of a model that is refused it may be said what its parts are.
    var report = InspectReport(files, family: (family ?? registry.families.first)?.description(of: files) ?? family?.name ?? "unknown")
    report.problem = problem
    for index in report.components.indices where report.components[index].problem == nil {
      try report.components[index].load(from: files, in: context)
      BufferPool.releaseIdle()
    }
    return report
  }

  /// Writes a model with its weights in another form, as `ModelFiles.convert` does, after looking whether the model can be loaded: what is converted of
  /// one that cannot would be as useless.
  ///
  /// - Throws: as `load` and `ModelFiles.convert`; nothing is at `target` then.
  @discardableResult
  public static func convert(
    _ url: URL, to form: WeightForm, as format: WeightFileFormat? = nil, at target: URL, registry: ModelRegistry = .standard,
    in context: ExecutionContext, progress: (_ component: String) -> Void = { _ in }
  ) throws -> ModelConversion {
    let files = try ModelFiles.open(url, registry: registry)
    for part in try registry.family(of: files).parts(of: files) where part.role != .accessory {
      _ = try files.make(part.name, as: nil, in: context)
      BufferPool.releaseIdle()
    }
    return try files.convert(to: form, as: format, at: target, in: context, progress: progress)
  }
}

extension InspectReport.Component {
  /// Notes what the component's class misses and does not use. A class that nobody registered is only listed.
  fileprivate mutating func load(from files: ModelFiles, in context: ExecutionContext) throws {
    guard files.registry[className] != nil else { return }
    do {
      unused = try files.make(name, as: nil, in: context).report.unused
      missing = []
    } catch let error as WeightErrors {
      missing = error.problems.compactMap { if case .missing(let name, _) = $0 { name } else { nil } }
      problem = "\(error)"
    } catch let error as CancellationError {
      throw error
    } catch {
      problem = "\(error)"
    }
  }
}
