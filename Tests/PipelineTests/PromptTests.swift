import LatentDiffusionComponents
import Pipeline
import Synchronization
import Tensor
import Testing

/// Prompts that change from step to step, that are added up, and that are longer than others.
@Suite struct PromptTests {
  /// As `ToyConditioner`, with a token more for each `+` in the longest text, and a list of what was asked for.
  private final class MarkedConditioner: TextConditioner {
    let asked = Mutex<[[String]]>([])
    var readsMarks: Bool { true }

    static func states(_ text: String, tokens: Int) -> [Float] {
      let own = ToyConditioner.states(text)
      return (0..<tokens).flatMap { own[3 * ($0 % 2)..<3 + 3 * ($0 % 2)] }
    }

    func length(of prompt: Prompt) -> Int? { prompt.profile == .diffusers ? nil : 2 + prompt.text.count { $0 == "+" } }

    func condition(_ request: ConditioningRequest, in context: ExecutionContext) throws -> Conditioning {
      asked.withLock { $0.append(request.prompts.map(\.text)) }
      let tokens = request.prompts.map { 2 + $0.text.count { $0 == "+" } }.max() ?? 2
      return Conditioning(
        hiddenStates: Tensor(request.prompts.flatMap { Self.states($0.text, tokens: tokens) }, shape: [request.prompts.count, tokens, 3]))
    }
  }

  private func run(
    _ texts: [String], negative: [String] = [""], profile: PromptProfile = .webui, steps: Int = 4, guidance: Double = 3, order: Int = 1,
    task: any GenerationTask = TextToImage(), change: (inout GenerationRequest) -> Void = { _ in }
  ) async throws -> (passes: [Diary.Pass], latents: [[Float]], asked: [[String]]) {
    let predictor = ToyPredictor(), conditioner = MarkedConditioner()
    var pipeline = toyPipeline(predictor, order: order)
    pipeline.conditioner = conditioner
    var request = GenerationRequest(prompts: texts.map { Prompt($0, profile: profile) }, seed: 7)
    request.negativePrompts = negative.map { Prompt($0, profile: profile) }
    (request.steps, request.guidance, request.task) = (steps, guidance, task)
    change(&request)
    let images = try await pipeline.images(for: request)
    return (predictor.diary.passes, images.map(\.latents.elements), conditioner.asked.withLock { $0 })
  }

  private func states(_ text: String) -> [Float] { ToyConditioner.states(text) }

  /// The webui's loop counts from 0, and what its marks say counts from 1.
  @Test func promptsChange() async throws {
    let found = try await run(["a [b:c:0.5] d"], negative: ["[x:y:1]"])
    let prompts = ["a b d", "a b d", "a b d", "a c d"], negatives = ["x", "x", "y", "y"]
    #expect(found.passes.map(\.hiddenStates) == zip(negatives, prompts).map { states($0) + states($1) })
    // All that a prompt changes to is one batch.
    #expect(Set(found.asked) == [["x", "y"], ["a b d", "a c d"]])
    let turns = try await run(["[b|c]"], guidance: 1)
    #expect(turns.passes.map(\.hiddenStates) == ["b", "b", "c", "b"].map(states))
  }

  /// Steps that evaluate the predictor twice count twice; image-to-image begins to count at its first step, of all that were asked for.
  @Test func stepsAreCountedAsInTheWebUI() async throws {
    let twice = try await run(["[b:c:0.5]"], guidance: 1, order: 2)
    #expect(twice.passes.map(\.hiddenStates) == ["b", "b", "b", "b", "b", "c", "c", "c"].map(states))
    let task = ImageToImage(.pixels(toyImage(width: 20, height: 20)), strength: 0.5)
    let over = try await run(["[b:c:0.25]"], steps: 8, guidance: 1, task: task)
    #expect(over.passes.map(\.hiddenStates) == ["b", "b", "b", "c"].map(states))
  }

  /// Another program reads such marks as letters.
  @Test(arguments: [PromptProfile.diffusers, .comfy]) func marksOfOthersAreLetters(_ profile: PromptProfile) async throws {
    let found = try await run(["[a:b:2] AND c :2"], profile: profile, guidance: 1)
    #expect(found.passes.allSatisfy { $0.hiddenStates == states("[a:b:2] AND c :2") })
  }

  /// uncond + Σ w (cond - uncond) · scale.
  @Test func promptsAreAddedUp() async throws {
    let found = try await run(["a :1.5 AND b :-0.5"], negative: ["n AND m"], steps: 1)
    #expect(found.passes.map(\.hiddenStates) == [states("n AND m") + states("a") + states(" b")])
    // With one step x' = x - prediction, so what was predicted is known.
    let none = try await run(["n AND m"], profile: .diffusers, steps: 1, guidance: 1).latents[0]
    let a = try await run(["a"], steps: 1, guidance: 1).latents[0]
    let b = try await run([" b"], profile: .diffusers, steps: 1, guidance: 1).latents[0]
    for index in none.indices {
      let expected = none[index] + 3 * (1.5 * (a[index] - none[index]) - 0.5 * (b[index] - none[index]))
      #expect(abs(found.latents[0][index] - expected) < 1e-4)
    }
    // Without guidance, too, there is something to measure from; a weight alone counts.
    let weighted = try await run(["a :0.5"], negative: ["n"], steps: 1, guidance: 1)
    #expect(weighted.passes.map(\.hiddenStates) == [states("n") + states("a")])
  }

  /// Prompts of one request may have different numbers of parts and change at different steps.
  @Test func everyPictureHasItsOwn() async throws {
    let alone = try await [run(["a AND b"]), run(["[c:d:2]"])]
    let both = try await run(["a AND b", "[c:d:2]"]) { $0.numbersSeeds = true }
    let second = try await run(["[c:d:2]"]) { $0.seed = 8 }
    #expect(difference(both.latents[0], alone[0].latents[0]).value < 1e-5)
    #expect(difference(both.latents[1], second.latents[0]).value < 1e-5)
    #expect(both.latents[1] != alone[1].latents[0])
  }

  /// Rows whose texts have other lengths go through the predictor by themselves; that changes nothing else.
  @Test func lengthsAreGrouped() async throws {
    let found = try await run(["a++ AND b++"], negative: ["n"], steps: 2)
    #expect(found.passes.map(\.shape[0]) == [1, 2, 1, 2])
    #expect(found.passes[1].hiddenStates.count == 2 * 4 * 3 && found.passes[0].hiddenStates == states("n"))
    let same = try await run(["a++"], negative: ["n++"], steps: 2)
    #expect(same.passes.map(\.shape[0]) == [2, 2])
    // Prompts of one request repeat the last state of the shorter one.
    let batch = try await run(["a+", "b"], guidance: 1)
    let long = MarkedConditioner.states("a+", tokens: 3), short = states("b")
    #expect(batch.passes[0].hiddenStates == long + short + short.suffix(3))
  }

  /// A generation with several passes in a step goes on from where it was saved.
  @Test func placesAreKept() async throws {
    var pipeline = toyPipeline(stir: 0.1)
    pipeline.conditioner = MarkedConditioner()
    var request = GenerationRequest(prompts: [Prompt("[a+:b+:2] AND c", profile: .webui)], seed: 7)
    request.steps = 5
    let whole = try await pipeline.images(for: request)
    var iterator = try pipeline.generate(request).makeAsyncIterator()
    for _ in 0..<2 { _ = try await iterator.next() }
    let checkpoint = try #require(try iterator.checkpoint)
    var found: [GeneratedImage] = []
    for try await event in try pipeline.generate(request, from: checkpoint) { if case .image(let image) = event { found.append(image) } }
    #expect(found.map(\.latents.elements) == whole.map(\.latents.elements))
    request.prompts = ["a"]
    await #expect(throws: GenerationError.self) { for try await _ in try pipeline.generate(request, from: checkpoint) {} }
  }

  /// What cannot be done is said in a sentence, before anything is computed.
  @Test func whatIsImpossibleIsSaid() async throws {
    func error(
      _ text: String, _ pipeline: DiffusionPipeline, profile: PromptProfile = .webui, change: (inout GenerationRequest) -> Void = { _ in }
    )
      -> (any Error)?
    {
      var request = GenerationRequest(prompts: [Prompt(text, profile: profile)], seed: 1)
      request.steps = 4
      change(&request)
      do { _ = try pipeline.generate(request) } catch { return error }
      return nil
    }
    var marked = toyPipeline()
    marked.conditioner = MarkedConditioner()
    #expect(error("a", toyPipeline()) is ComponentError, "a conditioner that reads no marks")
    #expect(error("a", toyPipeline(), profile: .diffusers) == nil)
    #expect(error(String(repeating: "a AND ", count: 200), marked) is ComponentError)
    #expect(error(String(repeating: "[a|b]", count: 100_000), marked) { $0.steps = 900 } is ComponentError)
    #expect(error("[a|b]", marked) { $0.steps = 2000 } is ComponentError)
    #expect(error("a AND b", marked) { $0.guidanceMethod = Unguided() } is ComponentError)
    #expect(error("a", marked) { $0.guidanceMethod = Unguided() } == nil)
    var embedding = toyPipeline(ToyPredictor(embedsGuidance: true))
    embedding.conditioner = MarkedConditioner()
    #expect(error("a AND b", embedding) is ComponentError)
    await #expect(throws: ComponentError.self) {
      let morph = try Morph([.init(Prompt("[a|b]", profile: .webui), seed: 1, time: 0), .init("c", seed: 2, time: 1)])
      _ = try await marked.walk(morph, frames: 3, like: GenerationRequest("a", seed: 1))
    }
  }

  /// What is admitted follows from all rows and the longest text.
  @Test func extentsCountRowsAndTokens() throws {
    let seen = Mutex<[GenerationExtent]>([])
    var pipeline = toyPipeline()
    pipeline.conditioner = MarkedConditioner()
    pipeline.admission = { extent in seen.withLock { $0.append(extent) } }
    for text in ["a", "a+++", "a AND b AND c"] {
      var request = GenerationRequest(prompts: [Prompt(text, profile: .webui)], seed: 1)
      request.steps = 2
      _ = try pipeline.generate(request)
    }
    _ = try pipeline.generate(GenerationRequest("a", seed: 1))
    #expect(seen.withLock { $0.map(\.rowsPerImage) } == [2, 1, 4, 2])
    #expect(seen.withLock { $0.map(\.contextLength) } == [2, 5, 2, nil])
  }
}
