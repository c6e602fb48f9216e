import Autoencoder
import Foundation
import Tensor
import TextEncoder
import UNet
import LatentDiffusionWeights

extension StableDiffusion {
  /// The tokenizer of a model, without the rest of it.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `ConfigurationError`, `TokenizerError`.
  public static func tokenizer(from url: URL) throws -> CLIPTokenizer { try tokenizer(of: ModelFiles.open(url)) }

  /// What a model is and what of it cannot be used. Each component is loaded for itself, and let go again: what one lacks does not
  /// hide what another lacks.
  ///
  /// - Throws: `ModelFilesError`, `SafetensorsError` where there is no model, and `CancellationError`.
  public static func inspect(_ url: URL, in context: ExecutionContext = ExecutionContext()) throws -> InspectReport {
    let files = try ModelFiles.open(url)
    var report = InspectReport(files)
    do { try files.checkFamily() } catch { report.problem = "\(error)" }
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
    _ url: URL, to form: WeightForm, at target: URL, in context: ExecutionContext, progress: (_ component: String) -> Void = { _ in }
  ) throws -> ModelConversion {
    let files = try ModelFiles.open(url)
    try files.checkFamily()
    for name in ["text_encoder", "unet", "vae"] {
      _ = try InspectReport.Component.unused(of: name, in: files, context)
      BufferPool.releaseIdle()
    }
    return try files.convert(to: form, at: target, in: context, progress: progress)
  }
}

extension InspectReport.Component {
  /// Loads a component and lets it go again.
  ///
  /// - Returns: the tensors that it does not use.
  /// - Throws: what keeps it from being loaded.
  fileprivate static func unused(of name: String, in files: ModelFiles, _ context: ExecutionContext) throws -> [String]? {
    guard let json = try files.configuration(of: name) else {
      throw ConfigurationError.malformed(component: name, reason: "there is no config.json")
    }
    return try LoadReport.load(from: files.weights(of: name), in: context) { weights in
      switch name {
      case "text_encoder": _ = try CLIPTextModel(CLIPTextShape(json: json), weights: weights)
      case "unet": _ = try UNet2DConditionModel(UNet2DShape(json: json), weights: weights)
      default: _ = try AutoencoderKL(AutoencoderKLShape(json: json), weights: weights)
      }
    }.report.unused
  }

  /// Notes what the component's class misses and does not use.
  fileprivate mutating func load(from files: ModelFiles, in context: ExecutionContext) throws {
    do {
      guard ["text_encoder", "unet", "vae"].contains(name) else { return }
      unused = try Self.unused(of: name, in: files, context)
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
