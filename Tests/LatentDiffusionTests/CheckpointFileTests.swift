import EmojiModel
import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// A checkpoint goes through a file, and files of other things are refused.
@Suite struct CheckpointFileTests {
  private func apple(_ model: StableDiffusion) -> GenerationRequest {
    var request = model.request("a red apple", seed: 3)
    (request.steps, request.negativePrompts) = (6, ["blurry"])
    request.stepCaching = StepCaching(interval: 2)
    return request
  }

  @Test func theSamePictureComesOfAFile() async throws {
    let model = try StableDiffusion.load(from: EmojiModel.folder()), request = apple(model), folder = try TemporaryFolder()
    let file = folder.url.appending(path: "checkpoint.safetensors"), whole = try await model.pipeline.images(for: request)
    var steps = try model.pipeline.generate(request).makeAsyncIterator()
    for step in 1...5 {
      _ = try await steps.next()
      try #require(try steps.checkpoint).write(to: file, notes: ["seed": "3", "a note": "\(step)"])
      #expect(try Generation.Checkpoint.notes(in: file) == ["seed": "3", "a note": "\(step)"])
      #expect(try Generation.Checkpoint.tensors(in: file).isEmpty)
      let read = try Generation.Checkpoint(contentsOf: file)
      #expect(read.step == step)
      var images: [GeneratedImage] = []
      for try await case .image(let image) in try model.pipeline.generate(request, from: read) { images.append(image) }
      #expect(images.map(\.image.elements) == whole.map(\.image.elements), "after step \(step)")
    }
  }

  @Test func otherRequestsAreRefusedBeforeAnythingIsComputed() async throws {
    let model = try StableDiffusion.load(from: EmojiModel.folder()), request = apple(model)
    var steps = try model.pipeline.generate(request).makeAsyncIterator()
    _ = try await steps.next()
    let checkpoint = try #require(try steps.checkpoint)
    let changes: [(String, (inout GenerationRequest) -> Void)] = [
      ("prompts", { $0.prompts = ["a green apple"] }), ("negative prompts", { $0.negativePrompts = [] }), ("guidance", { $0.guidance = 3 }),
      ("short cuts", { $0.stepCaching = nil }), ("noise settings", { $0.sampling.eta = 0.5 }),
      ("task", { $0.task = ImageToImage(.latents(Tensor(shape: [1, 16, 16, 4])), strength: 1) }),
      ("guidance", { $0.freeU = FreeU(b1: 1.1, b2: 1.1, s1: 0.9, s2: 0.9) }), ("pictures", { $0.noise = Tensor(shape: [1, 16, 16, 4]) }),
    ]
    for (part, change) in changes {
      var other = request
      change(&other)
      let error = await #expect(throws: GenerationError.self, "\(part)") {
        for try await _ in try model.pipeline.generate(other, from: checkpoint) {}
      }
      #expect(error?.description.contains(part) == true, "\(part): \(error?.description ?? "")")
    }
  }

  /// What a program keeps beside a checkpoint comes back.
  @Test func tensorsComeBack() async throws {
    let model = try StableDiffusion.load(from: EmojiModel.folder()), folder = try TemporaryFolder()
    let file = folder.url.appending(path: "checkpoint.safetensors"), own = Tensor([1, 2, 3, 4, 5, 6], shape: [1, 2, 3])
    var steps = try model.pipeline.generate(apple(model)).makeAsyncIterator()
    _ = try await steps.next()
    // The names are the program's own: they may be those of the checkpoint.
    try #require(try steps.checkpoint).write(to: file, tensors: ["latents": own, "kept.0.x": own])
    #expect(try Generation.Checkpoint.tensors(in: file).mapValues(\.elements) == ["latents": own.elements, "kept.0.x": own.elements])
    #expect(try Generation.Checkpoint(contentsOf: file).latents.shape == [1, 16, 16, 4])
  }

  /// A file that was replaced, another form and other adapters make another model; where a file lies and when it was written do not matter.
  @Test func otherModelsAreRefused() async throws {
    let copy = try ModelCopy(), moved = try ModelCopy(), path = "unet/diffusion_pytorch_model.safetensors"
    let model = try StableDiffusion.load(from: copy.folder)
    var request = model.request("a cat", seed: 3)
    (request.steps, request.width, request.height) = (4, 16, 16)
    var steps = try model.pipeline.generate(request).makeAsyncIterator()
    _ = try await steps.next()
    let checkpoint = try #require(try steps.checkpoint)
    func goesOn(_ model: StableDiffusion) async throws { for try await _ in try model.pipeline.generate(request, from: checkpoint) {} }
    try await goesOn(StableDiffusion.load(from: moved.folder))
    func isRefused(_ model: StableDiffusion, _ what: String) async {
      let error = await #expect(throws: GenerationError.self, "\(what)") { try await goesOn(model) }
      #expect(error?.description.contains("the model's files or adapters are others") == true, "\(what): \(error?.description ?? "")")
    }
    try await isRefused(StableDiffusion.load(from: moved.folder, weights: .float16), "another form")
    let embedding = try TextualInversion(name: "<cat>", vectors: ["text_encoder": Tensor(shape: [1, 16])])
    try await isRefused(StableDiffusion.load(from: moved.folder, embeddings: [embedding]), "a word")
    try moved.editTensors(path) { tensors in
      for (name, tensor) in tensors where name.hasSuffix("to_q.weight") { tensors[name] = 1.001 * tensor }
    }
    try await isRefused(StableDiffusion.load(from: moved.folder), "other weights")
  }

  @Test func otherFilesAreRefused() async throws {
    let folder = try TemporaryFolder(), file = folder.url.appending(path: "file.safetensors")
    try SafetensorsWriter.write(["latents": Tensor(shape: [1, 2, 2, 4])], to: file)
    #expect(throws: CheckpointFileError.self) { try Generation.Checkpoint(contentsOf: file) }
    #expect(throws: CheckpointFileError.self) { try Generation.Checkpoint.notes(in: file) }
    for metadata in [["generation_checkpoint": "3", "checkpoint": "{}"], ["generation_checkpoint": "2", "checkpoint": "{}"]] {
      try SafetensorsWriter.write(["latents": Tensor(shape: [1, 2, 2, 4])], metadata: metadata, to: file)
      #expect(throws: CheckpointFileError.self) { try Generation.Checkpoint(contentsOf: file) }
    }
    let model = try StableDiffusion.load(from: EmojiModel.folder())
    var steps = try model.pipeline.generate(apple(model)).makeAsyncIterator()
    _ = try await steps.next()
    try #require(try steps.checkpoint).write(to: file)
    let data = try Data(contentsOf: file)
    // What is cut short anywhere is an error, and so is a file whose numbers were changed to none.
    for length in stride(from: 0, to: data.count, by: 997) {
      try data.prefix(length).write(to: file)
      #expect(throws: (any Error).self) { try Generation.Checkpoint(contentsOf: file) }
    }
  }
}
