import Foundation
import Tensor

/// What a model's files say about it: the report of `ldm inspect`.
public struct InspectReport: Codable, Sendable, Equatable {
  /// One of the model's parts.
  public struct Component: Codable, Sendable, Equatable {
    /// `unet`, `vae`, …
    public var name: String
    /// Its class in diffusers or transformers.
    public var className: String?
    /// How many tensors its files have.
    public var tensors: Int
    /// The number of values in all tensors.
    public var parameters: Int
    /// Bytes of all tensors.
    public var bytes: Int
    /// How many tensors have elements of each type.
    public var elementTypes: [String: Int]
    /// The files' names.
    public var files: [String]
    /// Tensors that the component does not use. Loading the component fills this in.
    public var unused: [String]?
    /// Tensors that the component needs and the files lack. Loading the component fills this in.
    public var missing: [String]?
    /// Why the component's files cannot be used; nil if they can.
    public var problem: String?
  }

  /// Where the model is.
  public var path: String
  /// How its files are laid out.
  public var layout: ModelFiles.Layout
  /// The pipeline's class in diffusers, if the files name it.
  public var className: String?
  /// The probable kind of model, in words.
  public var family: String
  /// `epsilon`, `v_prediction` or `sample`, where the scheduler's configuration says it.
  public var predictionType: String?
  /// All parts, sorted by name.
  public var components: [Component]
  /// The number of values in all tensors of all parts.
  public var parameters: Int
  /// Bytes of all weight files.
  public var bytesOnDisk: Int
  /// How many tensors of a single file belong to no component, such as the averages that training keeps.
  public var ignoredTensors: Int
  /// The names of those tensors that are not recognised and may matter.
  public var leftOver: [String]?
  /// Why the model as a whole cannot be used, even if every component can; nil if it can.
  public var problem: String?

  /// Inspects the files without loading them. Problems of a component are recorded in that component.
  ///
  /// - Parameter family: the probable kind of model, in words.
  public init(_ files: ModelFiles, family: String) {
    var all: Set<URL> = []
    components = files.components.map { Self.component($0, of: files, &all) }
    path = files.url.path(percentEncoded: false)
    layout = files.layout
    className = files.className
    self.family = family
    predictionType = (try? files.configuration(of: "scheduler")).flatMap { json in
      json.flatMap { try? decodeConfiguration(SchedulerFacts.self, component: "scheduler", from: $0) }
    }.map { $0.prediction_type ?? "epsilon" }
    parameters = components.reduce(0) { $0 &+ $1.parameters }
    bytesOnDisk = all.reduce(0) { $0 + ((try? $1.resourceValues(forKeys: [.fileSizeKey]).fileSize) ?? 0) }
    ignoredTensors = files.ignoredTensors
    leftOver = files.leftOver.isEmpty ? nil : files.leftOver
  }

  private static func component(_ name: String, of files: ModelFiles, _ all: inout Set<URL>) -> Component {
    var component = Component(
      name: name, className: files.className(of: name), tensors: 0, parameters: 0, bytes: 0, elementTypes: [:], files: [])
    guard !ComponentRegistry.isWeightless(component.className) else { return component }
    do {
      let (table, sources) = try files.table(of: name)
      for tensor in table.tensors.values {
        component.parameters += tensor.shape.count
        component.bytes += tensor.data.count
        component.elementTypes[tensor.elementType, default: 0] += 1
      }
      component.tensors = table.tensors.count
      component.files = sources.map(\.url.lastPathComponent)
      all.formUnion(sources.map { $0.url.resolvingSymlinksInPath() })
    } catch {
      component.problem = "\(error)"
    }
    return component
  }

  private struct SchedulerFacts: Decodable { var prediction_type: String? }
}
