import EmojiModel
import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Synchronization
import Testing

/// An observer is told of everything that takes time, in its order.
@Suite struct WorkObserverTests {
  private final class Recorder: WorkObserver {
    struct Told { var began: [String] = [], ended: [(work: Work, duration: Duration, error: (any Error)?)] = [], warnings: [String] = [] }
    let told = Mutex(Told())

    func began(_ work: Work) { told.withLock { $0.began.append(work.description) } }
    func ended(_ work: Work, after duration: Duration, error: (any Error)?) { told.withLock { $0.ended.append((work, duration, error)) } }
    func warned(_ message: String) { told.withLock { $0.warnings.append(message) } }
  }

  @Test func aGenerationIsTold() async throws {
    let recorder = Recorder(), folder = try EmojiModel.folder()
    var context = ExecutionContext()
    context.workObserver = recorder
    let model = try StableDiffusion.load(from: folder, in: context)
    let loaded = recorder.told.withLock(\.began)
    #expect(loaded.first == "loading model emoji")
    #expect(loaded.dropFirst().sorted() == ["text_encoder", "unet", "vae"].map { "loading component \($0)" })
    recorder.told.withLock { $0 = Recorder.Told() }
    var request = model.request("a red apple", seed: 1)
    (request.steps, request.imagesPerPrompt) = (2, 2)
    request.task = ImageToImage(.pixels(Tensor(shape: [1, 64, 64, 3])), strength: 1)
    let images = try await model.pipeline.images(for: request, in: context)
    let told = recorder.told.withLock { $0 }
    #expect(
      told.began == [
        "generation", "encoding picture", "encoding prompts", "step 1 of 2", "step 2 of 2", "decoding 1 of 2", "decoding 2 of 2",
      ])
    #expect(told.ended.map(\.work.description) == Array(told.began.dropFirst()) + ["generation"])
    #expect(told.ended.allSatisfy { $0.error == nil && $0.duration > .zero })
    let whole = told.ended.last?.duration ?? .zero
    #expect(told.ended.dropLast().reduce(Duration.zero) { $0 + $1.duration } <= whole)
    #expect(told.warnings.isEmpty)
    // Who looks on changes nothing.
    #expect(try await model.pipeline.images(for: request).map(\.image.elements) == images.map(\.image.elements))
  }

  @Test func whatFailsIsTold() async throws {
    let recorder = Recorder(), model = try StableDiffusion.load(from: EmojiModel.folder())
    var context = ExecutionContext()
    context.workObserver = recorder
    var request = model.request("a red apple", seed: 1)
    (request.steps, request.noise) = (4, Tensor(shape: [1, 16, 16, 4]) + Float.greatestFiniteMagnitude)
    await #expect(throws: GenerationError.self) { try await model.pipeline.images(for: request, in: context) }
    let errors = recorder.told.withLock { $0.ended.filter { $0.error != nil }.map(\.work.kind) }
    #expect(errors == [.step, .generation])
  }

  @Test func warningsAreTold() async throws {
    let recorder = Recorder(), copy = try ModelCopy()
    try copy.editTensors("unet/diffusion_pytorch_model.safetensors") { $0["stray.weight"] = Tensor(shape: [2]) }
    var context = ExecutionContext()
    context.workObserver = recorder
    _ = try StableDiffusion.load(from: copy.folder, in: context)
    #expect(recorder.told.withLock(\.warnings) == ["The tensor stray.weight of the model's unet is not used."])
    _ = try UNet2DConditionModel.load(from: copy.folder, in: context)
    #expect(recorder.told.withLock(\.warnings.count) == 2)
  }
}
