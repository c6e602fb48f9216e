import Foundation
import Tensor

/// A way in which a single file holds a whole model, under names of its own.
public protocol CheckpointLayout: Sendable {
  /// What such files have, for the message about a file that has it not: "tensors below model.diffusion_model".
  var marks: String { get }
  /// The model in a file; nil where the file is laid out in another way.
  /// - Throws: `ModelFilesError` where it is this layout, but a part cannot be made out.
  func checkpoint(of file: any TensorFile) throws -> Checkpoint?
}

/// A model in a single file, as its layout has made it out.
public struct Checkpoint: Sendable {
  /// One of its components.
  public struct Component: Sendable {
    /// In diffusers or transformers.
    public let className: String
    /// The JSON of a `config.json` that follows from the tensors' shapes.
    public let configuration: Data
    /// Under the names of diffusers and transformers; nil for what has no parameters.
    public let table: WeightTable?

    /// - Parameters:
    ///   - className: in diffusers or transformers.
    ///   - configuration: the JSON of a `config.json`.
    ///   - table: its tensors; nil for what has none.
    public init(className: String, configuration: Data, table: WeightTable?) {
      (self.className, self.configuration, self.table) = (className, configuration, table)
    }
  }

  /// The file.
  public let file: any TensorFile
  /// The pipeline's class in diffusers.
  public let className: String?
  /// By name.
  public let components: [String: Component]
  /// The component of each of the file's tensors; those that belong to none are not in it.
  public let owners: [String: String]
  /// Tensors that belong to no component and are nothing known, sorted.
  public let leftOver: [String]

  /// - Parameters:
  ///   - owners: the component of each of the file's tensors.
  ///   - leftOver: tensors that belong to no component and are nothing known.
  public init(
    file: any TensorFile, className: String?, components: [String: Component], owners: [String: String], leftOver: [String]
  ) {
    (self.file, self.className, self.components) = (file, className, components)
    (self.owners, self.leftOver) = (owners, leftOver.sorted())
  }

  func component(_ name: String) throws(ModelFilesError) -> Component {
    guard let component = components[name] else { throw .noSuchComponent(name: name, model: file.url.path(percentEncoded: false)) }
    return component
  }
}
