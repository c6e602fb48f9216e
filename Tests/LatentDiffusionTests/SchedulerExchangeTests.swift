import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Configurations that say little or say it wrong: what diffusers' pipelines correct, and what an exchanged scheduler takes over.
@Suite struct SchedulerExchangeTests {
  private struct File: Decodable {
    struct Case: Decodable {
      let task: String
      let exchanged: String?
      let timesteps: [Float]
      let next: [Float]
    }
    let sample: [Float]
    let prediction: [Float]
    let cases: [Case]
  }

  @Test(.compares("Schedulers as pipelines correct and exchange them", in: .schedulers, with: "diffusers"))
  func schedulersAreWhatDiffusersMakesThem() throws {
    let data = try Data(contentsOf: fixtures.appending(path: "schedulers/corrections.json"))
    let file = try JSONDecoder().decode(File.self, from: data)
    let raw = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    let configurations = try #require(raw["cases"] as? [[String: Any]]).map { $0["file"] ?? [:] }
    #expect(file.cases.count == 80)
    let copy = try ModelCopy()
    let (sample, prediction) = (Tensor(file.sample), Tensor(file.prediction))
    for (reference, configuration) in zip(file.cases, configurations) {
      let json = try JSONSerialization.data(withJSONObject: configuration, options: [.sortedKeys])
      try json.write(to: copy.folder.appending(path: "scheduler/scheduler_config.json"))
      // The class in the index decides.
      if let name = (configuration as? [String: Any])?["_class_name"] as? String {
        try copy.set("scheduler", "[\"diffusers\", \"\(name)\"]", in: "model_index.json")
      }
      var model = try StableDiffusion.load(from: copy.folder)
      if let exchanged = reference.exchanged { try model.use(SchedulerKind(named: exchanged)) }
      let name = "\(String(decoding: json, as: UTF8.self)), \(reference.task), \(reference.exchanged ?? "as it is")"

      var scheduler = try model.pipeline.schedule(10, task(reference.task), SamplingSettings()).scheduler
      #expect(scheduler.timesteps == reference.timesteps, "\(name)")
      var noise: any NoiseSource = TorchGenerator(seed: 0)
      let next = try scheduler.advance(sample, prediction: prediction, at: 0, noise: &noise).sample
      expectClose(next.elements, reference.next, tolerance: 1e-5, name)
    }
  }

  /// A request's settings go before those that the model has, and mean what they mean there.
  @Test func requestsHaveSettingsOfTheirOwn() async throws {
    let model = try StableDiffusion.load(from: ReferenceModel("sd1").folder)
    func latents(_ kind: SchedulerKind, _ ofModel: SamplingSettings?, _ ofRequest: SamplingSettings) async throws -> [Float] {
      var model = model
      try model.use(kind, sampling: ofModel)
      var request = model.request("a cat", seed: 3)
      (request.width, request.height, request.guidance, request.sampling) = (16, 16, 1, ofRequest)
      if ofRequest.count == nil { request.steps = 3 }
      return try await model.pipeline.images(for: request)[0].latents.elements
    }
    var (one, other, churn, steps) = (SamplingSettings(), SamplingSettings(), SamplingSettings(), SamplingSettings())
    (one.eta, other.eta, churn.churn, churn.noiseScale, steps.sigmas) = (1, 0.5, 20, 1.1, [14, 3, 0.5])
    let none = SamplingSettings()
    #expect(try await latents(.ddim, nil, one) == latents(.ddim, one, none))
    #expect(try await latents(.ddim, one, other) == latents(.ddim, other, none))
    #expect(try await latents(.ddim, nil, other) != latents(.ddim, nil, none))
    #expect(try await latents(.euler, nil, churn) == latents(.euler, churn, none))
    // As many steps as are listed.
    #expect(try await latents(.euler, nil, steps) != latents(.euler, nil, none))
    await #expect(throws: SchedulerError.missingSetting("eta", scheduler: .euler)) { try await latents(.euler, nil, one) }
    churn.churn = nil
    await #expect(throws: SchedulerError.idleSetting("s_noise", without: "s_churn")) { try await latents(.euler, nil, churn) }
    // A pipeline whose scheduler is made of steps alone says so.
    let plain = DiffusionPipeline(
      predictor: model.pipeline.predictor, autoencoder: model.pipeline.autoencoder, conditioner: model.pipeline.conditioner
    ) { try DDIMScheduler(steps: $0) }
    var request = model.request("a cat", seed: 3)
    request.sampling = one
    #expect(throws: ComponentError.self) { try plain.generate(request) }
  }

  private func task(_ name: String) -> any GenerationTask {
    let (image, mask) = (Tensor(shape: [1, 8, 8, 3]), Tensor(shape: [1, 8, 8, 1]))
    return switch name {
    case "image-to-image": ImageToImage(.pixels(image), strength: 1)
    case "inpainting": Inpainting(image: image, mask: mask)
    case "editing": InstructionEditing(image)
    default: TextToImage()
    }
  }
}
