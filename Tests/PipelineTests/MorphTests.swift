import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import Pipeline
import Schedulers
import Tensor
import Testing

/// What `make_morph.py` says.
private struct MorphCases: Decodable {
  struct Walk: Decodable {
    let first, second: UInt64
    let position: Double
    /// Of the start and of a first step, as `[h, w, C]`.
    let noise: [[Float]]
  }
  struct Vectors: Decodable {
    let kind: String
    let first, second, result: [Float]
    let position: Double
  }
  let walks: [Walk]
  let vectors: [Vectors]

  static var all: MorphCases {
    get throws { try JSONDecoder().decode(MorphCases.self, from: Data(contentsOf: fixtures.appending(path: "pipeline/morph.json"))) }
  }
}

/// Two tokens for short texts and three for long ones, where one of a request is long.
private struct PaddingConditioner: TextConditioner {
  func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
    let length = request.prompts.contains { $0.text.utf8.count > 5 } ? 9 : 6
    let states = request.prompts.flatMap { prompt in ToyConditioner.states(prompt.text) + Array(repeating: 0.5, count: length - 6) }
    return Conditioning(hiddenStates: Tensor(states, shape: [request.prompts.count, length / 3, 3]))
  }
}

@Suite struct MorphTests {
  private func morph(_ keys: [(String, UInt64, Double)], easing: Morph.Easing = .linear, isPingPong: Bool = false) throws -> Morph {
    try Morph(keys.map { Morph.Keyframe(Prompt($0), seed: $1, time: $2) }, easing: easing, isPingPong: isPingPong)
  }

  private func latents(_ walk: MorphWalk, _ pipeline: DiffusionPipeline, batch: Int) async throws -> [Tensor] {
    var latents: [Tensor] = []
    for range in walk.batches(of: batch) { latents += try await pipeline.images(for: walk.request(range)).map(\.latents) }
    return walk.frames.map { latents[$0] }
  }

  @Test(.compares("Noise between two seeds", in: .tasks, with: "numpy", "torch")) func noiseLiesBetweenTheSeeds() async throws {
    for reference in try MorphCases.all.walks {
      let index = reference.position < 0.5 ? 1 : Int((reference.position * 10).rounded())
      let count = reference.position < 0.5 ? Int((1 / reference.position).rounded()) + 1 : 11
      let walk = try await toyPipeline().walk(
        morph([("a", reference.first, 0), ("a", reference.second, 1)]), frames: count, like: toyRequest(""))
      #expect(abs(walk.places[index].position - reference.position) < 1e-12)
      // Alone, and as the last of three pictures.
      for batch in [index..<index + 1, max(0, index - 2)..<index + 1] {
        var source = try walk.request(batch).generator(0)
        for expected in reference.noise {
          let drawn = source.normal(channelsLast: [batch.count, 5, 5, 4])
          expectClose(drawn.rows(batch.count - 1..<batch.count).elements, expected, tolerance: 1e-6)
        }
      }
    }
  }

  @Test(.compares("Spherical interpolation", in: .operations, with: "numpy")) func vectorsAreInterpolated() throws {
    for reference in try MorphCases.all.vectors {
      let found = sphericalInterpolation(from: reference.first, to: reference.second, at: reference.position)
      expectClose(found, reference.result, tolerance: 1e-6, "\(reference.kind) at \(reference.position)")
    }
  }

  /// At a keyframe the frame is the picture of an ordinary request, also with a scheduler that draws noise on its way.
  @Test(arguments: [1, 2, 3, 7]) func keyframesAreTheirPictures(batch: Int) async throws {
    let pipeline = toyPipeline(stir: 0.1)
    let keys: [(String, UInt64, Double)] = [("first", 3, 0), ("second", 4, 1), ("last", 4, 3)]
    var request = toyRequest("")
    (request.negativePrompts, request.guidance) = (["not this"], 3)
    let walk = try await pipeline.walk(morph(keys), frames: 7, like: request)
    let found = try await latents(walk, pipeline, batch: batch)
    #expect(found.count == 7)
    for (key, frame) in zip(keys, [0, 2, 6]) {
      (request.prompts, request.seed) = ([Prompt(key.0)], key.1)
      let expected = try await pipeline.images(for: request)[0].latents
      #expect(found[frame].elements == expected.elements, "\(key)")
    }
    // Neighbours are near one another, and never the same.
    for (first, second) in zip(found, found.dropFirst()) { #expect(first.elements != second.elements) }
  }

  @Test func textStatesLieOnALine() async throws {
    let predictor = ToyPredictor()
    let walk = try await toyPipeline(predictor).walk(morph([("a", 1, 0), ("b", 1, 1)]), frames: 5, like: toyRequest("", steps: 1))
    var request = try walk.request(0..<5)
    request.guidance = 1
    #expect(request.prompts.map(\.text) == ["a", "a", "b", "b", "b"])
    _ = try await toyPipeline(predictor).images(for: request)
    let (a, b) = (ToyConditioner.states("a"), ToyConditioner.states("b"))
    let expected = [Float](arrayLiteral: 0, 0.25, 0.5, 0.75, 1).flatMap { part in zip(a, b).map { (1 - part) * $0 + part * $1 } }
    expectClose(try #require(predictor.diary.passes.first).hiddenStates, expected, tolerance: 1e-6)
  }

  @Test func textsOfDifferentLengthsMeet() async throws {
    var pipeline = toyPipeline()
    pipeline.conditioner = PaddingConditioner()
    // Without guidance: this conditioner does not pad the negative prompt.
    var request = toyRequest("")
    request.guidance = 1
    let walk = try await pipeline.walk(morph([("a", 1, 0), ("a long text", 1, 1)]), frames: 3, like: request)
    let conditioning = try #require(try walk.request(0..<3).conditioning)
    #expect(conditioning.contexts.map(\.shape) == [[3, 3, 3]])
    #expect(try await latents(walk, pipeline, batch: 2).count == 3)
  }

  @Test func conditioningsMeetOrSayWhyNot() throws {
    let first = Conditioning(
      hiddenStates: Tensor([1, 2], shape: [1, 1, 2]), pooled: Tensor([4], shape: [1, 1]),
      inputs: ["time_ids": Tensor([8, 8], shape: [1, 2])])
    var second = Conditioning(
      hiddenStates: Tensor([3, -2], shape: [1, 1, 2]), pooled: Tensor([0], shape: [1, 1]),
      inputs: ["time_ids": Tensor([8, 8], shape: [1, 2])])
    let between = try first.interpolated(to: second, at: 0.25)
    #expect(between.contexts.map(\.elements) == [[1.5, 1]])
    #expect(between.pooled?.elements == [3])
    #expect(between.inputs["time_ids"]?.elements == [8, 8])
    second.pooled = nil
    #expect(throws: ComponentError.self) { try first.interpolated(to: second, at: 0.25) }
  }

  /// What solvers draw from a Brownian path lies between the paths of both seeds: near a keyframe a picture is nearly the keyframe's.
  @Test func brownianPathsLieBetweenTheSeeds() async throws {
    var pipeline = toyPipeline()
    pipeline.schedule = { steps, task, _ in
      Schedule(
        try SchedulerKind.dpmSolverSDE.make(configuration: SchedulerConfiguration(), steps: steps), steps: steps, strength: task.strength)
    }
    let walk = try await pipeline.walk(morph([("a", 1, 0), ("a", 2, 1)]), frames: 1001, like: toyRequest("", steps: 5))
    func latents(_ index: Int) async throws -> [Float] {
      try await pipeline.images(for: walk.request(index..<index + 1))[0].latents.elements
    }
    let keys = try await [latents(0), latents(500), latents(1000)]
    for (index, key) in [(1, 0), (501, 1), (999, 2)] {
      let near = try await latents(index), other = keys[(key + 1) % 3]
      let (step, apart) = (compare(near, keys[key]).error, compare(near, other).error)
      #expect(step < 0.02 && apart > 0.2, "frame \(index): \(step) of \(apart)")
    }
    for (seed, key) in [(1, 0), (2, 2)] as [(UInt64, Int)] {
      var request = toyRequest("a", steps: 5)
      request.seed = seed
      #expect(try await pipeline.images(for: request)[0].latents.elements == keys[key])
    }
    // A batch of three is the same three.
    let batch = try await pipeline.images(for: walk.request(499..<502)).map(\.latents.elements)
    #expect(compare(batch[1], keys[1]).error < 1e-5)
  }

  @Test func placesFollowTheTimes() throws {
    let morph = try self.morph([("a", 1, 2), ("b", 1, 3), ("c", 1, 6)])
    let expected = [(0, 0.0), (1, 0.0), (1, 1.0 / 3), (1, 2.0 / 3), (1, 1)]
    for (place, (keyframe, position)) in zip(morph.places(5), expected) {
      #expect(place.keyframe == keyframe && abs(place.position - position) < 1e-12)
    }
    #expect(morph.places(1).map(\.keyframe) == [0] && morph.places(1).map(\.position) == [0])
    #expect(morph.places(2).map(\.keyframe) == [0, 1] && morph.places(2).map(\.position) == [0, 1])
  }

  @Test func thereAndBackIsDrawnOnce() async throws {
    let there = try morph([("a", 1, 0), ("b", 2, 1)], isPingPong: true)
    #expect(there.places(8).map(\.position) == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25])
    #expect(there.places(5).map(\.position) == [0, 0.5, 1, 1, 0.5])
    #expect(there.places(1).map(\.position) == [0])
    let walk = try await toyPipeline().walk(there, frames: 8, like: toyRequest(""))
    #expect(walk.frames == [0, 1, 2, 3, 4, 3, 2, 1])
    #expect(walk.batches(of: 2) == [0..<2, 2..<4, 4..<5])
  }

  @Test func easingsBeginAndEndWhereTheyShould() throws {
    for easing in Morph.Easing.allCases {
      #expect(easing(0) == 0 && easing(1) == 1)
      for x in stride(from: 0, to: 1, by: 0.125) { #expect(easing(x) < easing(x + 0.125)) }
    }
    #expect([Morph.Easing.linear, .easeIn, .easeOut, .easeInOut].map { $0(0.25) } == [0.25, 0.0625, 0.4375, 0.15625])
    let eased = try morph([("a", 1, 0), ("b", 1, 1), ("c", 1, 2)], easing: .easeIn)
    #expect(eased.places(9).map(\.position) == [0, 0.0625, 0.25, 0.5625, 0, 0.0625, 0.25, 0.5625, 1])
  }

  @Test func whatIsNoWalkIsRefused() async throws {
    #expect(throws: GenerationError.self) { try self.morph([("a", 1, 0)]) }
    for times in [(0.0, 0.0), (1, 0), (0, .nan), (0, .infinity), (-.infinity, 0), (-1e308 * 1.7, 1e308 * 1.7)] {
      #expect(throws: GenerationError.self, "\(times)") { try self.morph([("a", 1, times.0), ("b", 1, times.1)]) }
    }
    let morph = try self.morph([("a", 1, 0), ("b", 1, 1)])
    for count in [0, -1, 1_000_001] {
      await #expect(throws: GenerationError.self) { try await toyPipeline().walk(morph, frames: count, like: toyRequest("")) }
    }
    var request = toyRequest("")
    request.width = 7
    await #expect(throws: GenerationError.self) { try await toyPipeline().walk(morph, frames: 2, like: request) }
  }
}
