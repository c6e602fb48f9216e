import Foundation
import LatentDiffusion
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionTraining
import LatentDiffusionWeights
import Tensor
import Testing
import TextEncoder

/// Training that goes through text encoders, against PyTorch: words as diffusers' `textual_inversion.py` and `textual_inversion_sdxl.py` learn them, and
/// low-rank changes of a text encoder and a U-Net together (`Tests/Fixtures/training/make_texts.py`).
@Suite struct TextTrainingTests {
  private let context = ExecutionContext(threads: 2)
  private let name = "<cat-toy>"
  private let prompts = ["a photo of {}", "the {} and a {}"]

  private func reference() throws -> [String: Tensor] { try readTensors(fixtures.appending(path: "training/texts.safetensors")) }

  /// A model that knows a word of two vectors, which begin as "the".
  private func model(_ model: String) throws -> (model: DiffusionModel, word: TextualInversion) {
    let folder = ReferenceModel(model).folder
    let conditioner = try #require(try DiffusionModel.load(from: folder, in: context).pipeline.conditioner as? any VocabularyConditioner)
    let word = try TextualInversion(name: name, vectors: 2, beginningAs: "the", in: conditioner, context: context)
    return (try DiffusionModel.load(from: folder, embeddings: [word], in: context), word)
  }

  private func condition(_ model: DiffusionModel, _ prompts: [String], in context: ExecutionContext) throws -> Conditioning {
    let request = ConditioningRequest(prompts.map { Prompt($0) }, size: PixelSize(width: 32, height: 32))
    return try model.pipeline.conditioner.condition(request, in: context)
  }

  /// The batches of the fixture, whose texts have a word in each gap.
  private func batches(_ model: DiffusionModel, word: String) throws -> [NoisePrediction.Batch] {
    let given = try reference(), texts = prompts.map { $0.replacing("{}", with: word) }
    let latents = try #require(given["latents"]).channelsLast(), noise = try #require(given["noise"])
    let timesteps = try #require(given["timesteps"])
    return (0..<noise.shape[0]).map { step in
      NoisePrediction.Batch(
        latents: latents,
        draw: .init(
          noise: noise.rows(step..<step + 1).reshaped([2, 4, 8, 8]).channelsLast(),
          timesteps: timesteps.rows(step..<step + 1).elements.map { Int($0) })
      ) { try condition(model, texts, in: $0) }
    }
  }

  /// The loss of a batch, and the gradients of everything that is trained.
  private func gradients(
    of trained: any Trainable, _ model: DiffusionModel, _ batch: NoisePrediction.Batch, recomputing: Bool = false
  ) throws -> (loss: Double, gradients: [Tensor]) {
    let tape = GradientTape(), placed = try trained.placed(in: Adaptation.Model(), on: tape, in: context)
    var recording = context.recording(on: tape, recomputing: recomputing)
    recording.adaptation = placed.adaptation
    let answer = try NoisePrediction(by: model.pipeline.predictor, objective: model.noiseObjective()).answer(to: batch, in: recording)
    return (answer.loss, placed.gradients(from: try tape.gradients(of: answer.gradients, in: context)))
  }

  private func rms(_ values: [Float]) -> Float { (values.reduce(0) { $0 + $1 * $1 } / Float(values.count)).squareRoot() }

  /// The encoders of a word, in the order of its values.
  private func encoders(_ model: String) -> [String] { model == "sdxl" ? ["text_encoder", "text_encoder_2"] : ["text_encoder"] }

  /// Vectors that stand twice in a text, in one text encoder and in two.
  @Test(arguments: ["sd1", "sdxl"], [false, true]) func gradientsOfAWordEqualPyTorchs(_ name: String, recomputing: Bool) throws {
    let (model, word) = try model(name), expected = try reference()
    let batch = try batches(model, word: word.name)[0]
    let (loss, found) = try gradients(of: TrainedEmbedding(word), model, batch, recomputing: recomputing)
    let losses = try #require(expected["word.\(name).losses"])
    #expect(abs(Float(loss) - losses.elements[0]) <= 1e-5 * losses.elements[0])
    #expect(found.count == encoders(name).count)
    for (encoder, gradient) in zip(encoders(name), found) {
      let reference = try #require(expected["word.\(name).\(encoder).gradient"])
      let error = compare(gradient.elements, reference.elements).largest / rms(reference.elements)
      print("\(name) \(encoder): \(error) of the gradient's rms")
      #expect(gradient.shape == [2, reference.shape[1]] && error <= 1e-4, "\(name) \(encoder): \(error)")
    }
  }

  /// The losses of three steps to 1e-5, and how far each vector has moved to 1e-3 of its rms. The text encoder's own table is as it was.
  @Test(arguments: ["sd1", "sdxl"]) func stepsOfAWordEqualDiffusers(_ name: String) throws {
    let (model, word) = try model(name), expected = try reference()
    let texts = ["a photo of the cat", "a \(word.name)"], before = try texts.map { try condition(model, [$0], in: context) }
    var trainer = try Trainer(
      NoisePrediction(by: model.pipeline.predictor, objective: model.noiseObjective()),
      on: GivenBatches(batches: batches(model, word: word.name)), training: TrainedEmbedding(word), by: AdamW(),
      schedule: LearningRateSchedule(rate: 5e-3, steps: 3), seed: 0)
    let start = trainer.trained.values
    for (step, loss) in try #require(expected["word.\(name).losses"]).elements.enumerated() {
      let found = try trainer.step(in: context).loss
      #expect(abs(Float(found) - loss) <= 1e-5 * loss, "step \(step + 1): \(found), expected \(loss)")
      for (place, encoder) in encoders(name).enumerated() {
        let reference = try #require(expected["word.\(name).\(encoder).vectors"]).rows(step..<step + 1).elements
        let moved = zip(reference, start[place].elements).map { $0 - $1 }
        let error = compare(trainer.trained.values[place].elements, reference).largest / rms(moved)
        #expect(error <= 1e-3, "step \(step + 1), \(encoder): \(error) of how far it moved")
      }
    }
    for (text, states) in zip(texts, before) {
      #expect(try condition(model, [text], in: context).contexts[0].elements == states.contexts[0].elements)
    }
    #expect(zip(start, word.vectors).allSatisfy { $0.elements == $1.elements })
  }

  /// With the values in their place a text has the states that it has in a model that was loaded with the word as it was learned, also from its file, and
  /// beside another word.
  @Test(arguments: ["sd1", "sdxl"]) func whatWasLearnedIsWritten(_ name: String) throws {
    let (model, word) = try model(name), folder = try TemporaryFolder(), file = folder.url.appending(path: "learned_embeds.safetensors")
    var embedding = TrainedEmbedding(word), numbers = Numbers(seed: 4)
    embedding.values = embedding.values.map { numbers.tensor($0.shape) }
    try embedding.write(to: file)
    #expect(try Set(readTensors(file).keys) == (name == "sdxl" ? ["clip_l", "clip_g"] : [word.name]))
    #expect(try SafetensorsFile(file).metadata == ["format": "pt"])
    let read = try TextualInversion(contentsOf: file, name: name == "sdxl" ? word.name : nil)
    #expect(read.name == word.name && Set(read.vectors.map(\.elements)) == Set(embedding.values.map(\.elements)))

    let other = try TextualInversion(name: "moon", vectors: Dictionary(zip(encoders(name), embedding.values.map { 2 * $0 })) { $1 })
    let texts = ["a \(word.name) photo", "the moon of \(word.name)", "and a photo"]
    var own = context
    own.adaptation = try model.adaptation(placing: embedding, in: context)
    let conditioner = try #require(model.pipeline.conditioner as? any VocabularyConditioner),
      request = ConditioningRequest(
        texts.map { Prompt($0) }, size: PixelSize(width: 32, height: 32))
    let placed = try conditioner.adding(other).condition(request, in: own)
    for learned in [embedding.learned, read] {
      // The words' tokens have other numbers.
      let loaded = try DiffusionModel.load(from: ReferenceModel(name).folder, embeddings: [other, learned], in: context)
      let states = try loaded.pipeline.conditioner.condition(request, in: context)
      #expect(states.contexts[0].elements == placed.contexts[0].elements)
      // A tower that names no end takes the highest number for it, so that of `sd1`, which nothing reads, depends on the order of the words.
      if name == "sdxl" { #expect(try #require(states.pooled).elements == #require(placed.pooled).elements) }
    }
    let plain = try conditioner.adding(other).condition(request, in: context)
    #expect(plain.contexts[0].rows(0..<1).elements != placed.contexts[0].rows(0..<1).elements)
    #expect(plain.contexts[0].rows(2..<3).elements == placed.contexts[0].rows(2..<3).elements)
  }

  /// The word has the same gradients while the text encoder's own table trains too.
  @Test func aWordTrainsBesideTheTable() throws {
    let (model, word) = try model("sd1"), batch = try batches(model, word: word.name)[0]
    let alone = try gradients(of: TrainedEmbedding(word), model, batch).gradients[0]
    let whole = try model.trainedParameters(of: "text_encoder")
    let both = try gradients(of: TrainedComponents([("text_encoder", whole), ("word", TrainedEmbedding(word))]), model, batch).gradients
    expectClose(try #require(both.last), alone, tolerance: 1e-5)
    let place = try #require(whole.names.firstIndex(of: "embeddings.token_embedding.weight")), table = both[place]
    let tokenizer = try #require(model.tokenizer), tokens = prompts.flatMap { tokenizer.encode($0.replacing("{}", with: "")) }
    let changed = Set((0..<table.shape[0]).filter { row in table.rows(row..<row + 1).elements.contains { $0 != 0 } })
    #expect(changed == Set(tokens))
  }

  /// The gradients of all factors of both networks.
  @Test(arguments: [false, true]) func lowRankChangesOfTextEncoderAndUNetEqualPyTorchs(recomputing: Bool) throws {
    let model = try DiffusionModel.load(from: ReferenceModel("sd1").folder, in: context)
    var generator = TorchGenerator(seed: 0), expected = try reference().filter { $0.key.hasPrefix("lora.") }
    let parts = try ["text_encoder", "unet"].map { component in
      let labels = LowRankTargets.attention.labels(among: try model.parameters(of: component))
      var change = TrainedLowRank(labels, rank: 3, alpha: 5, with: &generator)
      change.values = zip(change.names, change.values).map { name, value in
        Tensor((0..<value.count).map { 0.1 * (Float(($0 + 131 * name.count) * 7919 % 1000) / 500 - 1) }, shape: value.shape)
      }
      return (component: component, trained: change as any Trainable)
    }
    let trained = TrainedComponents(parts)
    let (loss, found) = try gradients(of: trained, model, batches(model, word: "cat")[0], recomputing: recomputing)
    let wanted = try #require(expected["lora.loss"]).elements[0]
    expected["lora.loss"] = nil
    #expect(abs(Float(loss) - wanted) <= 1e-5 * wanted)
    var worst = (error: Float(0), name: "nothing")
    for (name, gradient) in zip(trained.names, found) {
      let sample = try #require(expected["lora.\(name)"], "\(name) is not in the reference").elements
      expected["lora.\(name)"] = nil
      let values = gradient.elements, n = sample.count - 1
      let differences = (0..<n).map { i in abs(values[i * values.count / n] - sample[i + 1]) } + [abs(rms(values) - sample[0])]
      let error = (differences.max() ?? 0) / sample[0]
      #expect(error <= 1e-4, "\(name): \(error) of its rms")
      if error > worst.error { worst = (error, name) }
    }
    #expect(expected.isEmpty, "not compared: \(expected.keys.sorted())")
    print("low-rank changes: \(found.count) gradients, largest difference \(worst.error) of its rms in \(worst.name)")
  }

  @Test func wordsInMemoryAreChecked() throws {
    let good = Tensor(repeating: 1, shape: [2, 16])
    func expectError(_ name: String, _ vectors: [String: Tensor], _ says: String) {
      do {
        _ = try TextualInversion(name: name, vectors: vectors)
        Issue.record("no error that says \(says)")
      } catch { #expect("\(error)".contains(says), "\(error)") }
    }
    expectError(" ", ["text_encoder": good], "no name")
    expectError("x", [:], "no tensors")
    expectError("x", ["unet": good], "for unet")
    expectError("x", ["text_encoder": good.reshaped([32])], "[32] for text_encoder")
    expectError("x", ["text_encoder": Tensor(shape: [0, 16])], "[0, 16] for text_encoder")
    expectError("x", ["text_encoder": Tensor(repeating: .nan, shape: [1, 16])], "not numbers")
    expectError("x", ["text_encoder": good, "text_encoder_2": Tensor(repeating: 1, shape: [3, 24])], "different numbers")
    let wide = try TextualInversion(name: "x", vectors: ["text_encoder": Tensor(repeating: 1, shape: [1, 8])])
    do {
      _ = try DiffusionModel.load(from: ReferenceModel("sd1").folder, embeddings: [wide])
      Issue.record("a word of another width was taken")
    } catch { #expect("\(error)".contains("The word x does not belong"), "\(error)") }
    let conditioner = try #require(try model("sd1").model.pipeline.conditioner as? any VocabularyConditioner)
    for (text, count) in [("", 1), ("the and", 1), ("the", 0), ("the", -1)] {
      #expect(throws: TextualInversionError.self) { try TextualInversion(name: "y", vectors: count, beginningAs: text, in: conditioner) }
    }
    let begun = try TextualInversion(name: "y", vectors: 3, beginningAs: "the and", in: conditioner).vectors[0]
    #expect(begun.rows(0..<1).elements == begun.rows(2..<3).elements && begun.rows(0..<1).elements != begun.rows(1..<2).elements)
  }
}
