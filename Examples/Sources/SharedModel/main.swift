import EmojiModel
import Foundation
import ImageFiles
import LatentDiffusion

// snippet: actor
/// Draws for all who ask, one picture after the other, with one model: a single drawing keeps all processors busy.
actor Studio {
  private let model: StableDiffusion
  private var latest: Task<Void, Never>?

  init(_ model: StableDiffusion) { self.model = model }

  /// Whoever cancels the task that waits here ends the drawing, within milliseconds.
  func picture(of prompt: String, seed: UInt64) async throws -> Picture {
    let drawing = Task { [model, latest] in
      await latest?.value
      try Task.checkCancellation()
      return Picture(try await model.pipeline.images(for: model.request(prompt, seed: seed))[0].image)
    }
    latest = Task { _ = try? await drawing.value }
    return try await withTaskCancellationHandler {
      try await drawing.value
    } onCancel: {
      drawing.cancel()
    }
  }
}
// end snippet

// Shares a model between three who ask at the same time, one of whom goes away: SharedModel [MODEL].
do {
  let folder = try CommandLine.arguments.dropFirst().first.map { URL(filePath: $0) } ?? EmojiModel.folder()

  // snippet: callers
  let studio = Studio(try await ExecutionContext().run { try StableDiffusion.load(from: folder, in: $0) })
  let apple = Task { try await studio.picture(of: "red apple", seed: 1) }
  let rocket = Task { try await studio.picture(of: "rocket", seed: 2) }
  let unwanted = Task { try await studio.picture(of: "pizza", seed: 3) }
  unwanted.cancel()
  do { _ = try await unwanted.value } catch is CancellationError { print("The third picture is no longer wanted.") }
  let pictures = try await [apple.value.tensor(), rocket.value.tensor()]
  // end snippet
  try Picture(Tensor.concatenated(pictures, axis: 2)).write(to: URL(filePath: "shared.png"))
  print("The pictures are in shared.png.")
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(1)
}
