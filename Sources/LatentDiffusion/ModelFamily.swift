import LatentDiffusionComponents
import Foundation
import Pipeline
import Schedulers
import Tensor
import LatentDiffusionWeights

/// A kind of model: which components it has and how they play together. Another package brings its own in a `ModelRegistry`.
public protocol ModelFamily: Sendable {
  /// In words: "Stable Diffusion 1.x and 2.x".
  var name: String { get }
  /// The classes of diffusers' pipelines whose folders are of this family.
  var pipelineClasses: Set<String> { get }
  /// The components that are loaded.
  var parts: [ModelPart] { get }
  /// Components that nothing here runs, on purpose; others are told as warnings.
  var ignoredParts: Set<String> { get }
  /// How a single file holds such a model; nil: not at all.
  var checkpointLayout: (any CheckpointLayout)? { get }

  /// What a model is, in words: its version and what it was made for. What cannot be read is as if it were not there. Nil, without an implementation:
  /// the family's name will do.
  func description(of files: ModelFiles) -> String?

  /// What has no weights, such as a tokenizer, by the names of its parts: read before the weights are. Nothing, without an implementation.
  /// - Throws: what reading throws.
  func accessories(of files: ModelFiles) throws -> [String: any Sendable]

  /// Names that adapters have for a component's modules beside the names of its parameters, such as those of the original code, with the modules' names.
  /// None, without an implementation.
  /// - Parameter parameters: the names of the component's parameters.
  func otherNames(of component: String, parameters: Set<String>) -> [String: String]

  /// The components as the pipeline sees them.
  ///
  /// - Parameter parts: those with weights and the accessories. For a plan, networks are made of extents alone, and there are no accessories.
  /// - Throws: what a component throws; `ConfigurationError` where components do not fit one another.
  func assembled(_ parts: ModelParts) throws -> ModelAssembly

  /// What a request leaves open: the defaults of the family's pipelines in diffusers. Without an implementation, those of the task.
  func usualSettings(for task: any GenerationTask, predictor: any NoisePredictor) -> GenerationSettings

  /// The schedule of a generation. Without an implementation, what the scheduler's configuration says.
  /// - Throws: `SchedulerError`.
  func schedule(_ choice: SchedulerChoice, steps: Int, for task: any GenerationTask, predictor: any NoisePredictor) throws -> Schedule
}

extension ModelFamily {
  public var ignoredParts: Set<String> { [] }
  public var checkpointLayout: (any CheckpointLayout)? { nil }
  public func description(of files: ModelFiles) -> String? { nil }
  public func accessories(of files: ModelFiles) throws -> [String: any Sendable] { [:] }
  public func otherNames(of component: String, parameters: Set<String>) -> [String: String] { [:] }

  public func usualSettings(for task: any GenerationTask, predictor: any NoisePredictor) -> GenerationSettings {
    task.usualSettings(ofConsistencyModel: predictor.embedsGuidance)
  }

  /// The parts that a model has: all but the optional ones that it lacks.
  func parts(of files: ModelFiles) -> [ModelPart] { parts.filter { !$0.isOptional || files.components.contains($0.name) } }

  public func schedule(
    _ choice: SchedulerChoice, steps: Int, for task: any GenerationTask, predictor: any NoisePredictor
  ) throws -> Schedule {
    Schedule(try choice.kind.make(configuration: choice.configuration, steps: steps), steps: steps, strength: task.strength)
  }
}

/// A component of a family.
public struct ModelPart: Sendable {
  /// What it does in a pipeline. A plan for memory decides for each role where weights are.
  public enum Role: Sendable, CaseIterable {
    /// Makes conditioning of prompts.
    case conditioner
    /// Predicts noise.
    case predictor
    /// Takes pictures into latent space and back.
    case autoencoder
    /// Has no weights: a tokenizer, a scheduler.
    case accessory
  }
  /// In `model_index.json`.
  public let name: String
  /// What it does.
  public let role: Role
  /// What messages call it, without an article.
  public let words: String
  /// The classes that it may have; empty: any.
  public let classNames: [String]
  /// Whether some models of the family lack it.
  public let isOptional: Bool

  /// - Parameters:
  ///   - name: in `model_index.json`.
  ///   - role: what it does.
  ///   - words: what messages call it.
  ///   - classNames: that it may have; empty: any.
  ///   - isOptional: whether some models of the family lack it.
  public init(_ name: String, _ role: Role, words: String, classNames: [String] = [], isOptional: Bool = false) {
    (self.name, self.role, self.words, self.classNames, self.isOptional) = (name, role, words, classNames, isOptional)
  }
}

/// A model's components with weights and its accessories, by name.
public struct ModelParts: Sendable {
  private let parts: [String: any Sendable]
  /// Whether networks are made of extents alone, for a plan: then there are no accessories.
  public let areExtents: Bool

  init(_ parts: [String: any Sendable], areExtents: Bool = false) { (self.parts, self.areExtents) = (parts, areExtents) }

  /// - Throws: `ComponentError.missingInput` where there is no such part of this type.
  public func part<Part>(_ name: String, as type: Part.Type = Part.self) throws(ComponentError) -> Part {
    guard let part = parts[name] as? Part else {
      throw .missingInput(component: "The model's family", argument: "a \(name) that is a \(type)")
    }
    return part
  }

  /// A part that some models lack; nil where there is none of this type.
  public func optionalPart<Part>(_ name: String, as type: Part.Type = Part.self) -> Part? { parts[name] as? Part }
}

/// Components that play together.
public struct ModelAssembly: Sendable {
  /// Predicts noise.
  public var predictor: any NoisePredictor
  /// Takes pictures into latent space and back.
  public var autoencoder: any LatentAutoencoder
  /// Makes conditioning of prompts.
  public var conditioner: any TextConditioner
  /// What makes conditioning of a request's pictures, in their order.
  public var imageConditioners: [any ImageConditioner]
  /// The noise of pictures beside the latents: `DiffusionPipeline.pictureNoise`.
  public var pictureNoise: [NoiseLevel] = []
  /// Whether the latents of a picture that is to be edited are scaled: `DiffusionPipeline.scalesPictures`.
  public var scalesPictures = false
  /// Bytes that these hold beside weights, such as a tokenizer's tables: for plans.
  public var otherBytes: Int

  /// - Parameters:
  ///   - imageConditioners: what makes conditioning of a request's pictures.
  ///   - otherBytes: that these hold beside weights.
  public init(
    predictor: any NoisePredictor, autoencoder: any LatentAutoencoder, conditioner: any TextConditioner,
    imageConditioners: [any ImageConditioner] = [], otherBytes: Int = 0
  ) {
    (self.predictor, self.autoencoder, self.conditioner) = (predictor, autoencoder, conditioner)
    (self.imageConditioners, self.otherBytes) = (imageConditioners, otherBytes)
  }
}

/// The scheduler in use, and what its configuration says.
public struct SchedulerChoice: Sendable {
  /// Which.
  public let kind: SchedulerKind
  /// The model's, which may be another scheduler's.
  public internal(set) var configuration: SchedulerConfiguration
  /// Whether it takes the place of the one that the configuration is for.
  public let isExchanged: Bool
}
