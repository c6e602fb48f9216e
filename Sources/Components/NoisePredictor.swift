import Tensor

/// The network that guesses the noise (or the velocity, or the picture) in noisy latents: a U-Net, a ControlNet-guided one, a toy.
public protocol NoisePredictor: Sendable {
  /// Channels of the input: 4 for text-to-image, 9 for inpainting, 8 for instruction editing.
  var inputChannels: Int { get }
  /// Channels of the prediction: those of the latents, or twice as many with their variance.
  var outputChannels: Int { get }
  /// Every side of the latents must be a multiple of this.
  var sideMultiple: Int { get }
  /// The side of the latents it was trained on, where its configuration says so; the longer one where they are no squares.
  var sampleSize: Int? { get }
  /// Both sides of the latents it was trained on. Without an implementation: squares of `sampleSize`.
  var sampleSides: (height: Int, width: Int)? { get }
  /// How many frames its clips have; nil, without an implementation, where it draws pictures. Latents of clips are `[N, F, h, w, C]`.
  var clip: ClipLength? { get }
  /// True where a guidance scale is an input of the network (LCM), given in `Conditioning.guidance`.
  var embedsGuidance: Bool { get }
  /// What it takes of `Conditioning.inputs`; without an implementation, nothing.
  var declaredInputs: [PredictorInput] { get }

  /// One pass.
  ///
  /// - Parameters:
  ///   - latents: `[N, h, w, inputChannels]`, of clips `[N, F, h, w, inputChannels]`.
  ///   - timestep: on the training scale, 0..<1000 as a rule.
  ///   - conditioning: k · N rows, of which row j · N + i belongs to latent i.
  /// - Returns: `[k · N, h, w, outputChannels]`, of clips `[k · N, F, h, w, outputChannels]`.
  /// - Throws: `CancellationError`; `ComponentError` where shapes do not fit.
  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor

  /// The same predictor with a change. What is not concerned stays as it is, so changes add up.
  /// - Throws: `ComponentError` where it has nothing to change, as without an implementation.
  func changed(by change: PredictorChange) throws -> any NoisePredictor

  /// Says before a generation begins whether its passes can take these short cuts. Without an implementation, none can be taken.
  /// - Throws: `ComponentError` where they cannot.
  func check(_ shortcuts: Shortcuts) throws

  /// One pass of a generation, by the short cuts that its memory names. Without any, and without an implementation, the plain pass.
  ///
  /// - Parameters:
  ///   - latents: `[N, h, w, inputChannels]`, the same shape in all passes of a memory.
  ///   - timestep: on the training scale.
  ///   - conditioning: k · N rows.
  ///   - memory: what the passes before this one left; short cuts that `check` lets pass.
  /// - Returns: `[k · N, h, w, outputChannels]`.
  /// - Throws: `CancellationError`; `ComponentError` where shapes do not fit.
  func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> Tensor
}

/// How many frames the clips of a predictor have.
public struct ClipLength: Sendable, Hashable {
  /// Where nobody says how many.
  public let usual: Int
  /// In one pass.
  public let most: Int
  /// Whether a scheduler takes the frames for so many pictures, as in diffusers' `TextToVideoSDPipeline`: then numbers that are drawn on the way are drawn
  /// frame by frame, and so are those of the latents of a video, however many frames it has.
  public let stepsByFrame: Bool

  /// - Parameters:
  ///   - usual: where nobody says how many.
  ///   - most: in one pass.
  ///   - stepsByFrame: whether a scheduler takes the frames for so many pictures.
  public init(usual: Int, most: Int, stepsByFrame: Bool = false) {
    (self.usual, self.most, self.stepsByFrame) = (usual, most, stepsByFrame)
  }
}

/// A further input of a predictor, given in `Conditioning.inputs`.
public struct PredictorInput: Sendable, Hashable {
  /// In diffusers: `time_ids`.
  public let name: String
  /// Of one row; an extent of 0 stands for any.
  public let shape: [Int]
  /// Whether a pass without it is an error.
  public let isRequired: Bool

  /// - Parameters:
  ///   - name: in diffusers.
  ///   - shape: of one row; an extent of 0 stands for any.
  ///   - isRequired: whether a pass without it is an error.
  public init(_ name: String, shape: [Int], isRequired: Bool = true) {
    (self.name, self.shape, self.isRequired) = (name, shape, isRequired)
  }
}

extension NoisePredictor {
  public var sideMultiple: Int { 1 }
  public var sampleSize: Int? { nil }
  public var sampleSides: (height: Int, width: Int)? { sampleSize.map { ($0, $0) } }
  public var clip: ClipLength? { nil }
  public var embedsGuidance: Bool { false }
  public var declaredInputs: [PredictorInput] { [] }

  public func changed(by change: PredictorChange) throws -> any NoisePredictor {
    throw ComponentError.unsupported(component: "This noise predictor", option: change.option)
  }

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

  /// Compares a conditioning with what is declared and with the number of latents.
  ///
  /// - Parameter latents: N.
  /// - Throws: `ComponentError` for rows that are no multiple of N, inputs that are not declared or missing, and inputs of other shapes.
  public func check(_ conditioning: Conditioning, latents: Int) throws(ComponentError) {
    let component = "The noise predictor", rows = conditioning.rows
    try conditioning.check()
    guard latents > 0, rows > 0, rows.isMultiple(of: latents) else {
      throw .unexpectedRows(component: component, rows: rows, latents: latents)
    }
    for name in conditioning.inputs.keys.sorted() where !declaredInputs.contains(where: { $0.name == name }) {
      throw .undeclaredInput(component: component, name: name, declared: declaredInputs.map(\.name))
    }
    for input in declaredInputs {
      let expected = Shape([rows] + input.shape)
      guard let tensor = conditioning.inputs[input.name] else {
        guard input.isRequired else { continue }
        throw .missingInput(component: component, argument: input.name)
      }
      let fits = zip(expected.dimensions, tensor.shape.dimensions).allSatisfy { $0 == 0 || $0 == $1 }
      guard tensor.shape.rank == expected.rank, fits else {
        throw .unexpectedShape(component: component, argument: input.name, expected: expected.description, found: tensor.shape)
      }
    }
  }
}
