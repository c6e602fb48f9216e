import LatentDiffusionComponents
import Tensor

/// A predictor of clips that goes through a clip window by window. What its passes predict for a frame is averaged.
///
/// The number of the step decides where windows begin, and belongs to a generation's place.
struct WindowedPredictor: NoisePredictor {
  let base: any NoisePredictor
  let windows: FrameWindows

  var inputChannels: Int { base.inputChannels }
  var outputChannels: Int { base.outputChannels }
  var sideMultiple: Int { base.sideMultiple }
  var sampleSize: Int? { base.sampleSize }
  var sampleSides: (height: Int, width: Int)? { base.sampleSides }
  var clip: ClipLength? { base.clip }
  var embedsGuidance: Bool { base.embedsGuidance }
  var declaredInputs: [PredictorInput] { base.declaredInputs }

  /// Windows begin elsewhere in each step, so the features of an earlier step do not fit.
  func check(_ shortcuts: Shortcuts) throws {
    guard shortcuts.stepCaching == nil else {
      throw ComponentError.unsupported(component: "A clip that is drawn in windows", option: "step caching")
    }
    try base.check(shortcuts)
  }

  func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
    var memory = PassMemory()
    return try predict(latents, timestep: timestep, conditioning: conditioning, memory: &memory, in: context)
  }

  func predict(
    _ latents: Tensor, timestep: Float, conditioning: Conditioning, memory: inout PassMemory, in context: ExecutionContext
  ) throws -> Tensor {
    let frames = latents.shape[1]
    let shape = Shape([conditioning.rows] + latents.shape.dimensions.dropFirst().dropLast() + [outputChannels])
    var prediction = Tensor.zeros(shape, like: latents)
    for window in windows.windows(of: frames, pass: memory.step) {
      var part = try conditioning.frames(window, in: context)
      part.residuals = try conditioning.residuals?.map { residual in
        // Residuals have a row for each frame.
        let frame = Array(residual.shape.dimensions.dropFirst()), clips = residual.shape[0] / frames
        return try residual.reshaped(Shape([clips, frames] + frame)).frames(window, in: context)
          .reshaped(Shape([clips * window.frames.count] + frame))
      }
      var pass = PassMemory(memory.shortcuts, seed: memory.passSeed)
      pass.cache = memory.cache
      let predicted = try base.predict(
        latents.frames(window, in: context), timestep: timestep, conditioning: part, memory: &pass, in: context)
      memory.cache = pass.cache
      try prediction.addFrames(predicted, of: window, in: context)
    }
    memory.endPass()
    return prediction
  }
}

extension NoisePredictor {
  /// The same predictor, which draws clips in windows.
  /// - Throws: `ComponentError` where it has no such windows.
  package func drawing(in windows: FrameWindows) throws -> any NoisePredictor {
    switch windows.method {
    case .freeNoise: try changed(by: .windows(windows))
    case .passes, .loopedPasses: WindowedPredictor(base: self, windows: windows)
    }
  }
}
