import Foundation
import LatentDiffusionImageEncoder
import LatentDiffusionWeights
import Tensor

/// Where CLIP's image tower is: in its own folder or a model's, or in a single file under transformers' or OpenCLIP's names.
struct CLIPImageEncoderFiles {
  private let source: Source
  /// A `preprocessor_config.json`; nil: transformers' defaults.
  private let processor: Data?

  private enum Source {
    case folder(ModelFiles, name: String)
    case file(CLIPVisionFile)
  }

  /// - Throws: `ModelFilesError`, `SafetensorsError`.
  init(_ url: URL) throws {
    let folder: URL
    if (try? url.resourceValues(forKeys: [.isRegularFileKey]))?.isRegularFile == true {
      source = .file(try CLIPVisionFile(url))
      folder = url.deletingLastPathComponent()
    } else {
      let files = try ModelFiles.open(part: url, registry: .standard)
      source = .folder(files, name: try files.component(of: CLIPVisionModelWithProjection.classNames))
      folder = files.layout == .diffusers ? url.appending(path: "feature_extractor") : url
    }
    processor = try Self.contents(of: folder.appending(path: "preprocessor_config.json"))
  }

  /// A configuration; nil where there is none.
  static func contents(of url: URL) throws(ModelFilesError) -> Data? {
    let path = url.path(percentEncoded: false)
    guard FileManager.default.fileExists(atPath: path) else { return nil }
    do { return try Data(contentsOf: url) } catch {
      throw .unreadable(path: path, reason: "it is no ordinary file, or its permissions forbid it")
    }
  }

  /// The form of a folder's weights, as `form` says; nil for a single file, whose weights are held as they are.
  func form(_ form: (ModelFiles, String) throws -> WeightForm?) rethrows -> WeightForm? {
    if case .folder(let files, let name) = source { try form(files, name) } else { nil }
  }

  /// - Parameter form: of a folder's weights; nil: as the files have them.
  func weights(as form: WeightForm?, in context: ExecutionContext) throws -> any WeightSource {
    switch source {
    case .folder(let files, let name): try files.weights(of: name, as: form, in: context)
    case .file(let file): file.table
    }
  }

  /// The same without values, for plans.
  func extents(as form: WeightForm?) throws -> [TensorExtent] {
    switch source {
    case .folder(let files, let name): try files.extents(of: name, as: form)
    case .file(let file): file.table.extents(as: nil, by: .none)
    }
  }

  /// - Throws: `ConfigurationError`, `WeightErrors`, `CancellationError`.
  func encoder(
    of weights: any WeightSource, residency: WeightResidency = .packed, in context: ExecutionContext
  ) throws -> (encoder: CLIPImageEncoder, report: LoadReport) {
    let configuration =
      switch source {
      case .folder(let files, let name): try files.requiredConfiguration(of: name)
      case .file(let file): file.configuration
      }
    let (model, report) = try LoadReport.load(from: weights, residency: residency, in: context) {
      try CLIPVisionModelWithProjection(configuration: configuration, weights: $0)
    }
    return (try CLIPImageEncoder(model, processor: CLIPImageProcessor(json: processor, imageSize: model.configuration.imageSize)), report)
  }
}

extension CLIPImageEncoder {
  /// CLIP's image tower from its own folder or a model's, or from a single file under transformers' or OpenCLIP's names, with the
  /// `preprocessor_config.json` that is beside it, or transformers' defaults in its size.
  ///
  /// - Parameters:
  ///   - url: the folder or the file.
  ///   - weights: the form in which the weights of a folder are held; nil: as the files have them, and small ones as float32.
  ///   - plan: of the model that it is used with: its form and what of the weights is kept in memory are taken, if it was planned for.
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `ConfigurationError`, `WeightErrors`, `CancellationError`.
  public static func load(
    from url: URL, weights: WeightForm? = nil, plan: MemoryPlan? = nil, in context: ExecutionContext = ExecutionContext()
  ) throws -> CLIPImageEncoder {
    let files = try CLIPImageEncoderFiles(url)
    let form = try plan?.isBeside(url) == true ? plan?.form(of: url.networkName) : files.form { try weights ?? $0.usualForm(of: $1) }
    return try files.encoder(
      of: files.weights(as: form, in: context), residency: plan?.residency(of: url.networkName) ?? .packed, in: context
    ).encoder
  }
}
