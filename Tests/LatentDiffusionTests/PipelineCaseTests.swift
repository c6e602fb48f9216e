import Foundation
import LatentDiffusion
import Synchronization
import LatentDiffusionTestSupport
import Testing

/// Whole pipelines on tiny models: the same numbers drawn, the same timesteps, and the same latents after every step as diffusers.
@Suite struct PipelineCaseTests {
  static let models = [
    "sd1", "sd2", "inpaint9", "edit8", "lcm", "odd", "sdxl", "refiner", "ssd", "xl-inpaint9", "xl-edit8", "tiny", "taesd", "vq",
    "asymmetric",
  ]
  static let cases = models.flatMap { (try? PipelineCase.all(of: $0)) ?? [] }

  /// Of the latents' standard deviation. float32 alone costs up to 2.3e-5 (`float64_deviation`), and ours is not rounded where the
  /// reference's is: 7.6e-5 at most, whichever kernels compute it.
  static let tolerance: Float = 3e-4

  @Test func allCasesAreHere() { #expect(Self.cases.count == 166) }

  @Test(.compares("Whole pipelines", in: .tasks, with: "diffusers", unit: .deviation), arguments: cases) func drawsWhatDiffusersDraws(
    _ reference: PipelineCase
  ) async throws {
    try await Self.expectDrawn(reference, by: reference.loadModel())
  }

  /// Expects what diffusers drew.
  /// - Parameters:
  ///   - changed: a request in the place of the case's own.
  ///   - expected: results that lie elsewhere than the case's own.
  static func expectDrawn(
    _ reference: PipelineCase, by model: StableDiffusion, _ changed: GenerationRequest? = nil, _ expected: [String: Tensor]? = nil
  ) async throws {
    let expected = try expected ?? reference.reference()
    var request = try changed ?? reference.request()
    let record = RecordedNoise.Record()
    request.generator = { RecordedNoise(seed: $0, record: record) }

    var timesteps: [Float] = []
    var worst: (step: Int, difference: Float) = (0, 0)
    let final = try #require(expected["latents"])
    let deviation = standardDeviation(final.elements)
    let images = try await model.pipeline.images(for: request) { step in
      timesteps.append(step.timestep)
      guard let latents = expected["latents.\(step.index)"] else { return }
      let difference = compare(step.latents.channelsFirst().elements, latents.elements)
      let relative = difference.largest / standardDeviation(latents.elements)
      if relative > worst.difference { worst = (step.index, relative) }
      expect(error: relative, atMost: tolerance, "after step \(step.index): \(difference)", detail: reference.pipeline)
    }

    let visited = compare(timesteps, reference.timesteps)
    #expect(visited.error <= 1e-6, "timesteps: \(visited)")
    #expect(record.draws.map(\.count) == reference.draws.map { $0.reduce(1, *) }, "what was drawn")
    for (index, draw) in record.draws.enumerated() {
      if let drawn = expected["draw.\(index)"] { #expect(compare(draw, drawn.elements, absolute: 1e-5).isTolerable, "draw \(index)") }
    }
    let latents = compare(Tensor.concatenated(images.map(\.latents), axis: 0).channelsFirst().elements, final.elements)
    expect(error: latents.largest / deviation, atMost: tolerance, "final latents: \(latents)", detail: reference.pipeline)
    var picture: Difference?
    if let image = expected["image"] {
      let found = compare(Tensor.concatenated(images.map(\.image), axis: 0).channelsFirst().elements, image.elements, absolute: 1e-3)
      #expect(found.isTolerable, "picture: \(found)")
      picture = found
    }
    print(
      "\(reference.testDescription): latents \(latents.largest / deviation) of their deviation, at worst \(worst.difference) after step"
        + " \(worst.step)" + (picture.map { ", picture \($0.largest)" } ?? ""))
  }
}

func standardDeviation(_ values: [Float]) -> Float {
  let mean = values.reduce(0, +) / Float(values.count)
  return (values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Float(values.count)).squareRoot()
}

extension PipelineCase {
  func loadModel() throws -> StableDiffusion {
    if let scalesPictures {
      let copy = try ModelCopy(model)
      try copy.set("is_cosxl_edit", "\(scalesPictures)", in: "model_index.json")
      return try StableDiffusion.load(from: copy.folder)
    }
    // Autoencoders that are made without a model take the place of sd1's.
    let folder = ReferenceModel(model).folder, isWhole = FileManager.default.fileExists(atPath: folder.appending(path: "unet").path)
    var loaded = try StableDiffusion.load(
      from: isWhole ? folder : ReferenceModel("sd1").folder, replacing: isWhole ? [:] : ["vae": folder.appending(path: "vae")])
    if scheduler == "euler-trailing" {
      try loaded.use(.euler, timesteps: .trailing)
    } else if scheduler == "dpmpp-2m-karras" {
      try loaded.use(.dpmSolverMultistep, spacing: .karras)
    } else if let scheduler {
      try loaded.use(SchedulerKind(named: scheduler))
    }
    if model == "lcm", pipeline == "image-to-image" {
      // The fixture is what the general image-to-image pipeline makes of a consistency model: it leaves steps out, as with any model.
      let (kind, configuration) = (try #require(loaded.schedulerKind), loaded.schedulerConfiguration)
      loaded.pipeline.schedule = { steps, task, _ in
        Schedule(try kind.make(configuration: configuration, steps: steps), steps: steps, strength: task.strength)
      }
    }
    return loaded
  }
}
