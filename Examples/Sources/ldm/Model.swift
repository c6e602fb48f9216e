import ArgumentParser
import EmojiModel
import Foundation
import LatentDiffusion

extension WeightForm: @retroactive ExpressibleByArgument {}

struct ModelOptions: ParsableArguments {
  @Option(
    parsing: .unconditional, help: "A folder in diffusers' layout or a .safetensors file. Without it, the embedded model is used.")
  var model: String?

  @Option(
    parsing: .unconditional,
    help: """
      The form in which weights are held: \(WeightForm.allCases.map(\.rawValue).joined(separator: ", ")). Without it, as the files have them, and small \
      parts of a model as f32.
      """)
  var weights: WeightForm?

  @Option(parsing: .unconditional, help: "Threads to compute on. Without it, one for each processor.")
  var threads: Int?

  func validate() throws {
    guard (1...1024).contains(threads ?? 1) else { throw ValidationError("--threads must be from 1 to 1024.") }
  }

  var context: ExecutionContext { threads.map { ExecutionContext(threads: $0) } ?? ExecutionContext() }

  var url: URL {
    get throws { try model.map { URL(filePath: $0) } ?? EmojiModel.folder() }
  }

  /// The model's name in messages and pictures.
  var name: String { model.map { URL(filePath: $0).deletingPathExtension().lastPathComponent } ?? "emoji" }

  /// Loads the model on an engine thread, so that a signal can end it. Parts of its files that are not used are reported on standard error.
  func load(
    plan: MemoryPlan? = nil, tiles: TileOptions? = nil, adapters: ModelAdapters = ModelAdapters(), in context: ExecutionContext
  ) async throws -> StableDiffusion {
    let (url, weights) = (try url, weights)
    var model = try await context.run {
      try StableDiffusion.load(
        from: url, weights: weights, plan: plan, adapters: adapters.adapters, embeddings: adapters.embeddings, in: $0)
    }
    try tiles?.apply(to: &model)
    for warning in model.warnings { Progress.warn("\(warning)") }
    return model
  }
}
