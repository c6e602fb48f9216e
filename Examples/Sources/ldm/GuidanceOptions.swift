import ArgumentParser
import ImageFiles
import LatentDiffusion

/// What guides predictions beside plain classifier-free guidance, or in its place.
struct GuidanceOptions: ParsableArguments {
  @Option(
    parsing: .unconditional,
    help:
      "How much of the spread of the unguided prediction is restored, from 0 for none to 1. 0.7 helps against burnt pictures of models that predict v."
  )
  var guidanceRescale: Double?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "The part of the steps with guidance, as in 0.2,0.8; the others take half the time. Without it, all.", valueName: "A,B"))
  var guidanceInterval: Numbers?

  @Option(
    parsing: .unconditional,
    help: """
      Perturbed attention: how far from a prediction for which each token sees itself alone. 3 is usual, also without a negative prompt. Each step takes \
      a pass more.
      """)
  var pagScale: Double?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      """
      Layers whose attention is perturbed: regular expressions for their names in diffusers, with commas between, as in mid,up_blocks.1.attentions.0. \
      Without it, mid.
      """, valueName: "A,B"))
  var pagLayers: String?

  @Option(parsing: .unconditional, help: "What --pag-scale loses for each timestep below 1000.")
  var pagAdaptiveScale: Double?

  @Option(
    parsing: .unconditional,
    help: """
      Self-attention guidance: how far from a prediction of the picture blurred where the model looks most. 0.75 is usual, also without a negative prompt. \
      Each step takes a pass more. It goes with pictures, and without --step-cache.
      """)
  var sagScale: Double?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      """
      Adaptive projected guidance, against colours that burn at a high --guidance: eta (1), momentum (none) and norm_threshold (15; 0 for none), with \
      commas between, as in eta=0,momentum=-0.5,norm_threshold=7.5.
      """, valueName: "NAME=X,…"))
  var apg: Named?

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      """
      The spread of a lower guidance at a high one: mimic (7), percentile (1), separate (true: each channel has its own spread) and phi (1: all of it), \
      with commas between, as in mimic=7,percentile=0.95.
      """, valueName: "NAME=X,…"))
  var dynamicThresholding: Named?

  @Flag(
    help: """
      CFG++: the noise that each step puts back is that of the negative prompt. --guidance is from 0 to 1 then; without it, 0.6. It goes with the schedulers \
      ddim, euler and euler-a.
      """)
  var cfgPlusPlus = false

  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "FreeU: factors for what comes from below and for what comes from the way down, at the two lowest resolutions, as in 1.5,1.6,0.9,0.2.",
      valueName: "B1,B2,S1,S2"))
  var freeu: Numbers?

  /// Numbers with commas between.
  struct Numbers: ExpressibleByArgument {
    let values: [Double]

    init?(argument: String) {
      let parts = argument.split(separator: ",", omittingEmptySubsequences: false)
      let values = parts.compactMap { Double($0.trimming(while: \.isWhitespace)) }
      guard values.count == parts.count, values.allSatisfy(\.isFinite) else { return nil }
      self.values = values
    }
  }

  /// Names with what they are, with commas between.
  struct Named: ExpressibleByArgument {
    let text: String
    let values: [String: String]

    init?(argument: String) {
      var values: [String: String] = [:]
      for part in argument.split(separator: ",", omittingEmptySubsequences: false) {
        let pair = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map {
          String($0.trimming(while: \.isWhitespace))
        }
        guard pair.count == 2, !pair[0].isEmpty, values.updateValue(pair[1], forKey: pair[0]) == nil else { return nil }
      }
      (text, self.values) = (argument, values)
    }

    /// - Throws: a `ValidationError` for a name that is not known.
    func check(_ option: String, names: [String]) throws {
      guard let other = values.keys.sorted().first(where: { !names.contains($0) }) else { return }
      throw ValidationError("\(option) knows \(names.joined(separator: ", ")), but not \(other).")
    }

    func number(_ name: String, of option: String, from range: ClosedRange<Double> = -1e6...1e6) throws -> Double? {
      try values[name].map { text in
        guard let value = Double(text), range.contains(value) else {
          throw ValidationError("\(name) of \(option) must be a number from \(range.lowerBound) to \(range.upperBound), not \(text).")
        }
        return value
      }
    }

    func flag(_ name: String, of option: String) throws -> Bool? {
      try values[name].map { text in
        guard let value = Bool(text) else { throw ValidationError("\(name) of \(option) must be true or false, not \(text).") }
        return value
      }
    }
  }

  func validate() throws {
    guard (0...1).contains(guidanceRescale ?? 0) else { throw ValidationError("--guidance-rescale must be a number from 0 to 1.") }
    if let interval = guidanceInterval?.values {
      guard interval.count == 2, interval[0] <= interval[1], interval.allSatisfy((0...1).contains) else {
        throw ValidationError("--guidance-interval takes two rising numbers from 0 to 1, as in 0.2,0.8.")
      }
    }
    guard (0...1000).contains(pagScale ?? 1), pagScale != 0 else {
      throw ValidationError("--pag-scale must be a number above 0 and up to 1000.")
    }
    guard (0...1000).contains(pagAdaptiveScale ?? 0) else { throw ValidationError("--pag-adaptive-scale must be a number from 0 to 1000.") }
    guard pagLayers.map({ !layers(of: $0).isEmpty }) ?? true else {
      throw ValidationError("--pag-layers must be names of layers with commas between, such as mid.")
    }
    guard pagScale != nil || pagLayers == nil && pagAdaptiveScale == nil else {
      throw ValidationError("--pag-layers and --pag-adaptive-scale go with --pag-scale.")
    }
    guard (0...1000).contains(sagScale ?? 1), sagScale != 0 else {
      throw ValidationError("--sag-scale must be a number above 0 and up to 1000.")
    }
    guard freeu?.values.count ?? 4 == 4 else { throw ValidationError("--freeu takes four numbers, as in 1.5,1.6,0.9,0.2.") }
    guard [apg != nil, dynamicThresholding != nil, cfgPlusPlus].count(where: \.self) < 2 else {
      throw ValidationError("Give one of --apg, --dynamic-thresholding and --cfg-plus-plus.")
    }
    guard guidanceRescale == nil || dynamicThresholding == nil && !cfgPlusPlus else {
      throw ValidationError("--guidance-rescale does not go with --dynamic-thresholding or --cfg-plus-plus.")
    }
    _ = try method(scale: 7.5)
  }

  /// Rows of other passes for each part of a prompt: with perturbed attention, of degraded latents, and of steps without guidance.
  var restingRows: Int { [pagScale != nil, sagScale != nil, guidanceInterval != nil].count(where: \.self) }

  private func layers(of text: String) -> [String] {
    text.split(separator: ",").map { String($0.trimming(while: \.isWhitespace)) }.filter { !$0.isEmpty }
  }

  private var perturbedAttention: PerturbedAttention? {
    pagScale.map { scale in
      PerturbedAttention(scale: Float(scale), adaptiveScale: Float(pagAdaptiveScale ?? 0), layers: pagLayers.map(layers) ?? ["mid"])
    }
  }

  /// What takes the place of the task's own guidance; nil: nothing.
  private func method(scale: Double) throws -> (any Guidance)? {
    if let apg {
      let option = "--apg"
      try apg.check(option, names: ["eta", "momentum", "norm_threshold"])
      return AdaptiveProjectedGuidance(
        scale: Float(scale), eta: Float(try apg.number("eta", of: option) ?? 1),
        momentum: try apg.number("momentum", of: option).map { Float($0) },
        normThreshold: Float(try apg.number("norm_threshold", of: option, from: 0...1e6) ?? 15), rescale: Float(guidanceRescale ?? 0))
    }
    if let told = dynamicThresholding {
      let option = "--dynamic-thresholding"
      try told.check(option, names: ["mimic", "percentile", "separate", "phi"])
      return DynamicThresholding(
        scale: Float(scale), mimicScale: Float(try told.number("mimic", of: option, from: 0...1000) ?? 7),
        percentile: try told.number("percentile", of: option, from: 0...1) ?? 1,
        separatesChannels: try told.flag("separate", of: option) ?? true, phi: Float(try told.number("phi", of: option, from: 0...1) ?? 1))
    }
    return cfgPlusPlus ? RenoisingGuidance(scale: Float(scale)) : nil
  }

  /// - Parameter scale: `--guidance`, where it is given.
  /// - Throws: a `Failure` where the task has a guidance of its own.
  func apply(to request: inout GenerationRequest, scale: Double?) throws {
    if cfgPlusPlus { request.guidance = scale ?? Double(RenoisingGuidance().scale) }
    guard request.guidance > 1 || cfgPlusPlus || apg == nil && dynamicThresholding == nil else {
      throw Failure("--apg and --dynamic-thresholding need a --guidance above 1.")
    }
    guard request.guidance > 1 || cfgPlusPlus || guidanceRescale == nil && (guidanceInterval == nil || pagScale != nil || sagScale != nil)
    else {
      throw Failure("--guidance-rescale and --guidance-interval need a --guidance above 1; otherwise there is nothing to guide.")
    }
    request.guidanceMethod = try method(scale: request.guidance)
    if request.guidanceMethod == nil { request.guidanceRescale = guidanceRescale ?? 0 }
    guard try request.guidanceMethod == nil || request.task.guidance(scale: 2, rescale: 0) is ClassifierFreeGuidance else {
      throw Failure(
        "--apg, --dynamic-thresholding and --cfg-plus-plus do not go with \(request.task.name), which has a guidance of its own.")
    }
    request.perturbedAttention = perturbedAttention
    request.selfAttentionScale = sagScale.map { Float($0) }
    request.guidanceInterval = guidanceInterval.map { $0.values[0]...$0.values[1] }
    request.freeU = freeu.map { $0.values.map { Float($0) } }.map { FreeU(b1: $0[0], b2: $0[1], s1: $0[2], s2: $0[3]) }
  }

  /// The settings that are written into pictures.
  var settings: [GenerationParameters.Setting] {
    func list(_ numbers: Numbers?) -> String? { numbers.map { $0.values.map { "\($0)" }.joined(separator: ",") } }
    let all = [
      ("Guidance rescale", guidanceRescale.map { "\($0)" }), ("Guidance interval", list(guidanceInterval)),
      ("PAG scale", pagScale.map { "\($0)" }),
      ("PAG layers", pagScale == nil ? nil : perturbedAttention?.layers.joined(separator: ",")),
      ("PAG adaptive scale", pagAdaptiveScale.map { "\($0)" }), ("SAG scale", sagScale.map { "\($0)" }), ("APG", apg?.text),
      ("Dynamic thresholding", dynamicThresholding?.text), ("CFG plus plus", cfgPlusPlus ? "true" : nil),
      ("FreeU", list(freeu)),
    ]
    return all.compactMap { name, value in value.map { .init(name, $0) } }
  }
}

extension StringProtocol {
  fileprivate func trimming(while isTrimmed: (Character) -> Bool) -> SubSequence {
    let rest = drop(while: isTrimmed)
    return rest.lastIndex { !isTrimmed($0) }.map { rest[...$0] } ?? rest[rest.startIndex..<rest.startIndex]
  }
}
