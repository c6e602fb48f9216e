import EmojiModel
import Foundation
import LatentDiffusion

/// A model, and what to do where the command line says nothing.
struct LoadedModel {
  let pipeline: DiffusionPipeline
  let name: String
  let scheduler: SchedulerKind
  let steps: Int
  let guidance: Double
  let width: Int?
  let height: Int?
}

extension ModelOptions {
  var url: URL {
    get throws { try model.map { URL(filePath: $0) } ?? EmojiModel.folder() }
  }

  /// What messages and pictures call the model.
  var name: String { model.map { URL(filePath: $0).deletingPathExtension().lastPathComponent } ?? "emoji" }

  /// - Parameter scheduler: takes the place of the model's own, with the model's configuration.
  func load(scheduler: SchedulerKind? = nil, in context: ExecutionContext) async throws -> LoadedModel {
    let url = try url
    // On an engine thread, so that a signal ends it.
    let model = try await context.run { try StableDiffusion.load(from: url, in: $0) }
    var pipeline = model.pipeline
    let kind = scheduler ?? model.schedulerKind
    if let scheduler {
      let configuration = model.schedulerConfiguration
      pipeline.schedule = { steps, strength in
        Schedule(try scheduler.make(configuration: configuration, steps: steps), steps: steps, strength: strength)
      }
    }
    return LoadedModel(
      pipeline: pipeline, name: name, scheduler: kind, steps: model.defaults.steps ?? 50, guidance: model.defaults.guidance ?? 7.5,
      width: model.defaults.width, height: model.defaults.height)
  }
}
