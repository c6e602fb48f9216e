import LatentDiffusionComponents
import LatentDiffusionWeights
import Tensor

/// A model's networks made of the extents of their tensors, for a plan of a training: what a step takes is counted before there are weights.
package struct ModelExtents: Sendable {
  /// The model's files.
  package let files: ModelFiles
  private let parts: MemoryParts

  /// - Parameter weights: the form that is asked for.
  package init(_ files: ModelFiles, weights: WeightForm?, registry: ModelRegistry) throws {
    self.files = files
    parts = try MemoryParts(
      files, of: registry.family(of: files), beside: ModelCompany(), weights: weights, .none, registry: registry
    ) { try $2 ?? $0.usualForm(of: $1) }
  }

  /// The components that play together.
  package var assembly: ModelAssembly { parts.assembly }

  /// The parameters of a component; none of one that the model lacks.
  package func parameters(of component: String) -> [ParameterLabel] { parts.reports[component]?.parameters ?? [] }

  /// The weights of a component, without values.
  package func weights(of component: String) throws -> any WeightSource { ExtentSource(try files.extents(of: component, as: .float32)) }

  /// What pictures of a size take in the encoder.
  package func encoderPeak(_ size: PixelSize, threads: Int) throws -> Int {
    let engine = CountingEngine(WorkCounter(), threads: threads)
    let tiled = TiledAutoencoder(assembly.autoencoder), scale = tiled.spatialScale
    let tiles = tiled.tiling.tiles(height: size.height / scale, width: size.width / scale, scale: scale)
    try assembly.followEncoder(
      height: min(size.height, (tiles?.latentSide ?? .max / scale) * scale),
      width: min(size.width, (tiles?.latentSide ?? .max / scale) * scale),
      engine)
    return Int(MemoryModel.waste.pictures * Double(engine.counter.peakBytes))
  }

  /// Bytes that the process has resident at most, given those of buffers at once and of what is trained, with all that belongs to it.
  package func peakBytes(buffers: Int, trained: Int, encoder: Int) -> Int {
    let kept = parts.parts.reduce(0) { $0 + $1.kept(.packed, usesAll: true) }
    let steps = Int(MemoryModel.waste.buffers * Double(buffers)) + Int(MemoryModel.waste.pictures * Double(trained))
    return MemoryModel.programBytes + assembly.otherBytes + Int(MemoryModel.waste.kept * Double(kept)) + max(steps, encoder)
  }

  /// What a conditioner makes of so many prompts, followed in a context that may record.
  package func conditioning(_ prompts: Int, size: PixelSize, in context: ExecutionContext) throws -> Conditioning {
    try assembly.conditioner.condition(ConditioningRequest(Array(repeating: "", count: prompts), size: size), in: context)
  }
}
