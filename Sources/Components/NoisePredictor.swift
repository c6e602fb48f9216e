import Tensor

/// The network that guesses the noise (or the velocity, or the picture) in a noisy latent: a U-Net, a ControlNet-guided one, a toy.
public protocol NoisePredictor: Sendable {
  /// Channels of the input: 4 for text-to-image, 9 for inpainting, 8 for instruction editing.
  var inputChannels: Int { get }
  /// Channels of the prediction, those of the latents.
  var outputChannels: Int { get }
  /// Every side of the latents must be a multiple of this.
  var sideMultiple: Int { get }
  /// The side of the latents it was trained on, where its configuration says so; the longer one where they are no squares.
  var sampleSize: Int? { get }
  /// Both sides of the latents it was trained on. Without an implementation: squares of `sampleSize`.
  var sampleSides: (height: Int, width: Int)? { get }
  /// True where a guidance scale is an input of the network (LCM), given in `Conditioning.guidance`.
  var embedsGuidance: Bool { get }

  /// One pass.
  ///
  /// - Parameters:
  ///   - latents: `[N, h, w, inputChannels]`.
  ///   - timestep: on the training scale, 0..<1000 as a rule.
  ///   - conditioning: N rows.
  /// - Returns: `[N, h, w, outputChannels]`.
  /// - Throws: `CancellationError`; `ComponentError` where shapes do not fit.
  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor

  /// Says before a generation begins whether its passes can take these short cuts. Without an implementation, none can be taken.
  /// - Throws: `ComponentError` where they cannot.
  func check(_ shortcuts: Shortcuts) throws

  /// One pass of a generation, by the short cuts that its memory names. Without any, and without an implementation, the plain pass.
  ///
  /// - Parameters:
  ///   - latents: `[N, h, w, inputChannels]`, the same shape in all passes of a memory.
  ///   - timestep: on the training scale.
  ///   - conditioning: N rows.
  ///   - memory: what the passes before this one left; short cuts that `check` lets pass.
  /// - Returns: `[N, h, w, outputChannels]`.
  /// - Throws: `CancellationError`; `ComponentError` where shapes do not fit.
  func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> Tensor
}

extension NoisePredictor {
  public var sideMultiple: Int { 1 }
  public var sampleSize: Int? { nil }
  public var sampleSides: (height: Int, width: Int)? { sampleSize.map { ($0, $0) } }
  public var embedsGuidance: Bool { false }

  public func check(_ shortcuts: Shortcuts) throws {
    if shortcuts.stepCaching != nil { throw ComponentError.unsupported(component: "This noise predictor", option: "step caching") }
    if shortcuts.tokenMerging != nil { throw ComponentError.unsupported(component: "This noise predictor", option: "token merging") }
  }

  public func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> Tensor {
    let prediction = try predict(latents, timestep: timestep, conditioning: conditioning, in: context)
    memory.endPass()
    return prediction
  }
}
