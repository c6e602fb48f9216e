import Foundation
import Tensor

/// A layout in which a single file holds a whole model, under its own tensor names.
public protocol CheckpointLayout: Sendable {
  /// What files of this layout contain, for the error about a file that lacks it: "tensors below model.diffusion_model".
  var marks: String { get }
  /// The model in a file; nil if the file has another layout.
  /// - Throws: `ModelFilesError` if the file has this layout, but a part cannot be identified.
  func checkpoint(of file: any TensorFile) throws -> Checkpoint?
}

/// A model in a single file, as its layout reads it.
public struct Checkpoint: Sendable {
  /// A component of the model.
  public struct Component: Sendable {
    /// The class in diffusers or transformers.
    public let className: String
    /// The JSON of a `config.json`, derived from the tensors' shapes.
    public let configuration: Data
    /// The tensors, under the names of diffusers and transformers; nil for a component without parameters.
    public let table: WeightTable?
    /// What of the configuration the tensors do not tell.
    public let guesses: ConfigurationGuesses

    /// - Parameters:
    ///   - className: the class in diffusers or transformers.
    ///   - configuration: the JSON of a `config.json`.
    ///   - table: the component's tensors; nil if it has none.
    ///   - guesses: what of the configuration the tensors do not tell.
    public init(className: String, configuration: Data, table: WeightTable?, guesses: ConfigurationGuesses = ConfigurationGuesses()) {
      (self.className, self.configuration, self.table, self.guesses) = (className, configuration, table, guesses)
    }
  }

  /// The file.
  public let file: any TensorFile
  /// The pipeline's class in diffusers.
  public let className: String?
  /// The components by name.
  public let components: [String: Component]
  /// The component of each tensor in the file. Tensors that belong to no component are not listed.
  public let owners: [String: String]
  /// Tensors that belong to no component and are not recognised, sorted.
  public let leftOver: [String]
  /// Settings of the pipeline, as `model_index.json` has them.
  public let flags: [String: Bool]

  /// - Parameters:
  ///   - owners: the component of each tensor in the file.
  ///   - leftOver: tensors that belong to no component and are not recognised.
  ///   - flags: settings of the pipeline.
  public init(
    file: any TensorFile, className: String?, components: [String: Component], owners: [String: String], leftOver: [String],
    flags: [String: Bool] = [:]
  ) {
    (self.file, self.className, self.components, self.flags) = (file, className, components, flags)
    (self.owners, self.leftOver) = (owners, leftOver.sorted())
  }

  /// The same file, with another description of a component.
  func replacing(_ name: String, by component: Component) -> Checkpoint {
    Checkpoint(
      file: file, className: className, components: components.merging([name: component]) { $1 }, owners: owners, leftOver: leftOver)
  }

  func component(_ name: String) throws(ModelFilesError) -> Component {
    guard let component = components[name] else { throw .noSuchComponent(name: name, model: file.url.path(percentEncoded: false)) }
    return component
  }
}
