import LatentDiffusionComponents
import Tensor

/// The frames of a morph on a pipeline: which pictures are to be drawn, and requests that draw them.
public struct MorphWalk: Sendable {
  /// Of the pictures to draw; none is drawn twice.
  public let places: [Morph.Place]
  /// For each frame of the clip, the picture that it shows: an index into `places`.
  public let frames: [Int]
  /// What the text encoder does not read of the prompts.
  public let truncations: [PromptTruncation]
  let morph: Morph
  let base: GenerationRequest
  /// A row for each keyframe.
  let conditioning: Conditioning

  /// The pictures to draw in parts of so many, the last one with what is left.
  /// - Precondition: the size is at least 1.
  public func batches(of size: Int) -> [Range<Int>] {
    stride(from: 0, to: places.count, by: size).map { $0..<min($0 + size, places.count) }
  }

  /// A request for some of the pictures, which are drawn in the same passes.
  ///
  /// Its prompts are those of the nearest keyframes. What schedulers draw on their way lies between the seeds, too.
  /// - Precondition: the range is not empty and lies within `places`.
  /// - Throws: `ComponentError` where the conditioner's rows differ in shape.
  public func request(_ range: Range<Int>) throws -> GenerationRequest {
    let places = places[range]
    var request = base
    request.prompts = places.map { morph.keyframes[$0.position < 0.5 ? $0.keyframe : $0.keyframe + 1].prompt }
    request.conditioning = try .concatenated(
      places.map { place in
        func row(_ index: Int) -> Conditioning { conditioning.rows(index..<index + 1) }
        return try row(place.keyframe).interpolated(to: row(place.keyframe + 1), at: place.position)
      })
    let seeds = places.map { (morph.keyframes[$0.keyframe].seed, morph.keyframes[$0.keyframe + 1].seed, $0.position) }
    let generator = base.generator
    request.generator = { _ in walkingNoise(seeds, generator) }
    if let steps = base.stepGenerator { request.stepGenerator = { _ in walkingNoise(seeds, steps) } }
    // What else follows from a seed is the same for all frames.
    request.seed = morph.keyframes[0].seed
    request.numbersSeeds = false
    return request
  }
}

extension DiffusionPipeline {
  /// Encodes the prompts of a morph and says what is to be drawn.
  ///
  /// - Parameters:
  ///   - count: frames of the clip; with a morph that goes back, about half as many pictures.
  ///   - request: everything that is the same for all frames; its prompts, seed, noise and conditioning mean nothing.
  /// - Throws: `GenerationError` where the request cannot be carried out, and what the components throw.
  public func walk(
    _ morph: Morph, frames count: Int, like request: GenerationRequest, in context: ExecutionContext = ExecutionContext()
  ) async throws -> MorphWalk {
    try checkNumber("The number of frames", count, in: 1...1_000_000)
    // A number of a class has nothing between it and the next one.
    if conditioner is ClassConditioner { throw ComponentError.unsupported(component: "This model", option: "states between two classes") }
    var base = request
    (base.imagesPerPrompt, base.noise, base.conditioning) = (1, nil, nil)
    let prompts = morph.keyframes.map(\.prompt)
    var plans: [Plan] = []
    for (index, prompt) in prompts.enumerated() where prompts.firstIndex(of: prompt) == index {
      base.prompts = [prompt]
      plans.append(try Plan(base, for: self))
    }
    var context = context
    if let adaptation = request.adaptation ?? adaptation { context.adaptation = adaptation }
    let plan = plans[0]
    let only = try prompts.map { try plan.only($0, of: "A walk") }
    let conditioning = try await context.run { try plan.conditioningOfEach(only, in: $0) }
    var (places, numbers) = ([Morph.Place](), [Morph.Place: Int]())
    let frames = morph.places(count).map { place in
      let number = numbers[place] ?? places.count
      if number == places.count { places.append(place) }
      numbers[place] = number
      return number
    }
    var truncations: [PromptTruncation] = []
    for truncation in plans.flatMap(\.truncations) where !truncations.contains(truncation) { truncations.append(truncation) }
    return MorphWalk(
      places: places, frames: frames, truncations: truncations, morph: morph, base: base, conditioning: conditioning)
  }
}
