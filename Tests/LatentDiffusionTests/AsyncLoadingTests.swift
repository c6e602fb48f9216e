import EmojiModel
import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Synchronization
import Testing

/// Loading on the engine's threads is loading, and can be cancelled.
@Suite struct AsyncLoadingTests {
  @Test func aModelIsTheSame() async throws {
    let folder = try EmojiModel.folder()
    let (first, second) = (try StableDiffusion.load(from: folder), try await StableDiffusion.loaded(from: folder))
    var images: [[Float]] = []
    for model in [first, second] {
      var request = model.request("a red apple", seed: 3)
      request.steps = 4
      images.append(try await model.pipeline.images(for: request)[0].image.elements)
    }
    #expect(images[0] == images[1])
    #expect(first.reports.mapValues(\.parameters.count) == second.reports.mapValues(\.parameters.count))
    #expect(first.pipeline.content == second.pipeline.content && first.pipeline.content != nil)
  }

  @Test func componentsAreTheSame() async throws {
    let folder = try EmojiModel.folder(), context = ExecutionContext()
    let latents = Tensor((0..<256).map { sin(Float($0)) }, shape: [1, 8, 8, 4])
    let (first, second) = (try AutoencoderKL.load(from: folder), try await AutoencoderKL.loaded(from: folder))
    #expect(try first.decode(latents, in: context).elements == second.decode(latents, in: context).elements)
    let text = (try CLIPTextModel.load(from: folder), try await CLIPTextModel.loaded(from: folder))
    let tokens = [[0, 1, 2, 3]]
    let states = (try text.0(tokens, in: context), try text.1(tokens, in: context))
    #expect(states.0.lastHiddenState.elements == states.1.lastHiddenState.elements)
    _ = try await UNet2DConditionModel.loaded(from: folder, weights: .float16)
    await #expect(throws: ModelFilesError.self) { try await VQModel.loaded(from: folder) }
  }

  /// Cancels a task when the work on a component begins.
  private final class Canceller: WorkObserver {
    let component: String
    let task = Mutex<Task<Void, any Error>?>(nil)
    let ended = Mutex<[String: Bool]>([:])

    init(at component: String) { self.component = component }

    func began(_ work: Work) {
      guard work.name == component else { return }
      // The task is there before its work is.
      while task.withLock({ $0 == nil }) {}
      task.withLock { $0?.cancel() }
    }

    func ended(_ work: Work, after duration: Duration, error: (any Error)?) {
      ended.withLock { $0[work.name ?? ""] = error is CancellationError }
    }
  }

  @Test(arguments: ["text_encoder", "unet", "vae"])
  func aModelIsCancelledAtAnyComponent(_ component: String) async throws {
    let folder = try EmojiModel.folder(), canceller = Canceller(at: component)
    var context = ExecutionContext()
    context.workObserver = canceller
    let task = Task { [context] in _ = try await StableDiffusion.loaded(from: folder, in: context) }
    canceller.task.withLock { $0 = task }
    await #expect(throws: CancellationError.self) { try await task.value }
    #expect(canceller.ended.withLock { $0[component] } == true)
    #expect(canceller.ended.withLock { $0[folder.lastPathComponent] } == true)
  }

  @Test func aComponentIsCancelled() async throws {
    let folder = try EmojiModel.folder(), canceller = Canceller(at: "vae")
    var context = ExecutionContext()
    context.workObserver = canceller
    let task = Task { [context] in _ = try await AutoencoderKL.loaded(from: folder, in: context) }
    canceller.task.withLock { $0 = task }
    await #expect(throws: CancellationError.self) { try await task.value }
    // What was cancelled before it began begins nothing.
    let late = Task { [context] in
      try? await Task.sleep(for: .seconds(60))
      return try await AutoencoderKL.loaded(from: folder, in: context)
    }
    late.cancel()
    await #expect(throws: CancellationError.self) { try await late.value }
  }
}
