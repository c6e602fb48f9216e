import LatentDiffusionComponents
import Tensor

/// CLIP's image tower with what prepares pictures for it.
public struct CLIPImageEncoder: Sendable {
  /// The tower.
  public let model: CLIPVisionModelWithProjection
  /// Prepares pictures.
  public let processor: CLIPImageProcessor

  /// - Parameters:
  ///   - model: the tower.
  ///   - processor: nil: transformers' defaults in the tower's size, as diffusers' `load_ip_adapter` makes it.
  /// - Throws: `ConfigurationError`.
  public init(_ model: CLIPVisionModelWithProjection, processor: CLIPImageProcessor? = nil) throws {
    (self.model, self.processor) = (model, try processor ?? CLIPImageProcessor(imageSize: model.configuration.imageSize))
  }

  /// - Parameter pictures: `[1, H, W, 3]` each, 0…1, of any sizes.
  /// - Throws: `ComponentError`, `CancellationError`.
  public func callAsFunction(_ pictures: [Tensor], in context: ExecutionContext) throws -> CLIPVisionModelWithProjection.Output {
    let prepared = try pictures.map(processor.callAsFunction)
    guard let first = prepared.first, prepared.allSatisfy({ $0.shape == first.shape }) else {
      throw ComponentError.unexpectedShape(
        component: "The image encoder", argument: "prepared pictures", expected: "one size", found: prepared.last?.shape ?? [0])
    }
    return try model(.concatenated(prepared, axis: 0), in: context)
  }
}
