import LatentDiffusionComponents

extension GenerationRequest {
  /// How predictions are combined. Up to 1 there is nothing to guide with, and a network that embeds the guidance is told it instead.
  ///
  /// From the inside out: the method or the task's guidance, perturbed attention, self-attention guidance, the interval, what is forecast.
  /// - Parameters:
  ///   - composed: whether a prompt has parts that are added up, which are measured from the negative prompt.
  ///   - schedule: whose steps are run.
  func guidance(embedded: Bool, composed: Bool, schedule: Schedule) throws -> any Guidance {
    let steps = schedule.endStep - schedule.firstStep
    if guidanceMethod != nil, guidanceRescale != 0 {
      throw ComponentError.unsupported(component: "A method of guidance", option: "a guidance rescaling beside it")
    }
    let isGuided = (guidance > 1 || composed) && !embedded
    // Perturbed attention restores the spread of all guidance together.
    let own = perturbedAttention == nil ? guidanceRescale : 0
    var result: any Guidance = try guidanceMethod ?? (isGuided ? task.guidance(scale: guidance, rescale: own) : Unguided())
    if let perturbedAttention { result = result.beside(perturbedAttention, rescale: isGuided ? Float(guidanceRescale) : 0) }
    if let selfAttentionScale { result = result.besideSelfAttention(scale: selfAttentionScale) }
    if forecast != nil, (0..<steps).contains(where: { result.renoisingRow(at: $0, of: steps) != nil }) {
      throw ComponentError.unsupported(
        component: "CFG++", option: "predictions that are forecast, since each step needs the noise of its own")
    }
    if let guidanceInterval { result = result.within(guidanceInterval, of: schedule) }
    if let forecast { result = result.forecast(by: forecast) }
    if composed {
      for step in 0..<steps {
        let rows = result.rows(at: step, of: steps)
        guard !rows.contains(where: { $0.text == .prompt && GuidedPasses.origin(of: $0, in: rows) == nil }) else {
          let what =
            guidanceInterval == nil
            ? "A guidance without a negative prompt" : "An interval of guidance, which leaves the negative prompt out,"
          throw ComponentError.unsupported(component: what, option: "prompts that are added up (AND), or that have a weight")
        }
      }
    }
    return result
  }

  func checkGuidanceNumbers() throws(GenerationError) {
    try checkNumber("The scale of perturbed attention", perturbedAttention?.scale ?? 1, in: 0...1000)
    try checkNumber("The adaptive scale of perturbed attention", perturbedAttention?.adaptiveScale ?? 0, in: 0...1000)
    try checkNumber("The number of layers with perturbed attention", perturbedAttention?.layers.count ?? 1, in: 1...1000)
    try checkNumber("The scale of self-attention guidance", selfAttentionScale ?? 0, in: 0...1000)
    try checkNumber("The start of guidance", guidanceInterval?.lowerBound ?? 0, in: 0...1)
    try checkNumber("The end of guidance", guidanceInterval?.upperBound ?? 1, in: 0...1)
    try checkNumber("The interval of forecasts", forecast?.interval ?? 1, in: 1...100_000)
    try checkNumber("The order of forecasts", forecast?.order ?? 0, in: 0...10)
    try checkNumber("The warm-up of forecasts", forecast?.warmUp ?? 0, in: 0...100_000)
    if let freeU {
      for factor in [freeU.b1, freeU.b2, freeU.s1, freeU.s2] { try checkNumber("A factor of FreeU", factor, in: -1000...1000) }
    }
  }
}
