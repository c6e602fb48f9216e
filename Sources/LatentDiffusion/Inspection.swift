import Autoencoder
import Foundation
import Tensor
import TextEncoder
import UNet
import Weights

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
    for index in report.components.indices where report.components[index].problem == nil {
      try report.components[index].load(from: files, in: context)
      BufferPool.releaseIdle()
    }
    return report
  }
}

extension InspectReport.Component {
  /// Notes what the component's class misses and does not use.
  fileprivate mutating func load(from files: ModelFiles, in context: ExecutionContext) throws {
    do {
      guard ["text_encoder", "unet", "vae"].contains(name), let json = try files.configuration(of: name) else { return }
      let name = name
      unused = try LoadReport.load(from: files.weights(of: name), in: context) { weights in
        switch name {
        case "text_encoder": _ = try CLIPTextModel(CLIPTextShape(json: json), weights: weights)
        case "unet": _ = try UNet2DConditionModel(UNet2DShape(json: json), weights: weights)
        default: _ = try AutoencoderKL(AutoencoderKLShape(json: json), weights: weights)
        }
      }.report.unused
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
