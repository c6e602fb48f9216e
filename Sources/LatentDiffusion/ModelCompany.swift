import Foundation
import LatentDiffusionComponents
import LatentDiffusionWeights

/// Networks in files of their own that are used beside a model: a plan for memory counts their weights and follows their passes.
///
/// ```swift
/// var company = ModelCompany(controls: [URL(filePath: "control_v11p_sd15_canny")])
/// let plan = try MemoryPlan(for: url, beside: company, limit: 1_600_000_000)
/// let net = try ControlNetModel.load(from: company.controls[0], plan: plan)
/// ```
public struct ModelCompany: Sendable {
  /// ControlNets and T2I-Adapters, one for each control of a request.
  public var controls: [URL]
  /// Pictures as prompts; nil: none.
  public var ipAdapters: IPAdapters?

  /// IP-Adapters with their image encoder.
  public struct IPAdapters: Sendable {
    /// Their files, in the order in which the model gets them.
    public var files: [URL]
    /// The image encoder of all of them.
    public var encoder: URL
    /// Pictures for each of them.
    public var pictures: Int

    /// - Parameters:
    ///   - files: in the order in which the model gets them.
    ///   - encoder: the image encoder of all of them.
    ///   - pictures: for each of them.
    public init(_ files: [URL], encoder: URL, pictures: Int = 1) { (self.files, self.encoder, self.pictures) = (files, encoder, pictures) }
  }

  /// Without arguments: none.
  public init(controls: [URL] = [], ipAdapters: IPAdapters? = nil) { (self.controls, self.ipAdapters) = (controls, ipAdapters) }
}

extension URL {
  /// What a plan calls a network that is beside the model: no component of a model has such a name.
  var networkName: String { path(percentEncoded: false) }
}

extension ModelFiles {
  /// The network at a place that steers a model, and its name in its files.
  ///
  /// - Throws: `ModelFilesError.noSuchComponent` where there is none, and what opening the files throws.
  static func control(at url: URL, registry: ModelRegistry) throws -> (files: ModelFiles, name: String) {
    let files = try ModelFiles.open(part: url, registry: registry)
    guard let name = files.components.first(where: { registry.components[files.className(of: $0)] is any ControlModel.Type }) else {
      throw ModelFilesError.noSuchComponent(name: "ControlNet or T2I-Adapter", model: url.networkName)
    }
    return (files, name)
  }
}
