import EmojiModel
import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Synchronization
import Testing

/// Plans for memory: what they refuse, and that they change no picture.
@Suite struct MemoryPlanTests {
  private let extent = GenerationExtent(size: PixelSize(width: 64, height: 64))
  private var url: URL { get throws { try EmojiModel.folder() } }

  /// The smallest limit for which there is a plan.
  private func smallest(_ extent: GenerationExtent, adapters: [AdapterUse] = []) throws -> Int {
    do {
      _ = try MemoryPlan(for: url, extent, limit: 1, adapters: adapters)
      Issue.record("A plan with one byte.")
      return 0
    } catch MemoryPlanError.limitTooSmall(limit: 1, let smallest, extent: extent) {
      return smallest
    }
  }

  private func picture(_ plan: MemoryPlan?) async throws -> [Float] {
    let model = try StableDiffusion.load(from: url, plan: plan)
    var request = model.request("a red apple", seed: 1)
    request.steps = 2
    return try await model.pipeline.images(for: request)[0].image.elements
  }

  @Test func namesTheSmallestLimitThatDoes() throws {
    let smallest = try smallest(extent)
    let plan = try MemoryPlan(for: url, extent, limit: smallest)
    #expect(plan.predictedPeakBytes <= smallest && plan.streamedBytesPerStep > 0)
    #expect(throws: MemoryPlanError.limitTooSmall(limit: smallest - 1_000_000, smallest: smallest, extent: extent)) {
      try MemoryPlan(for: url, extent, limit: smallest - 1_000_000)
    }
    let usual = try MemoryPlan(for: url, extent)
    #expect(usual.predictedPeakBytes > smallest && usual.predictedRelativeTime == 1 && usual.streamedBytesPerStep == 0)
    #expect(try MemoryPlan(for: url, extent, limit: usual.predictedPeakBytes).predictedRelativeTime <= 1)
  }

  @Test func streamedWeightsChangeNoPicture() async throws {
    let usual = try await picture(nil)
    let stored = try MemoryPlan(for: url, extent, weights: .float16).predictedPeakBytes
    let plan = try MemoryPlan(for: url, extent, limit: stored - 6_000_000)
    #expect(plan.streamedBytesPerStep > 0 && plan.tiling == .automatic)
    #expect(try await picture(plan) == usual)
  }

  /// To matrices that stay in their file a LoRA is added; what is not of low rank is held. A plan knows of both.
  @Test func streamedWeightsAreAdapted() async throws {
    let folder = try TemporaryFolder(), file = folder.url.appending(path: "lora.safetensors")
    var numbers = Numbers(seed: 4), tensors: [String: Tensor] = [:]
    for label in try #require(StableDiffusion.load(from: url).reports["unet"]).parameters where label.shape.rank == 2 {
      let module = "unet." + label.name.replacing(".weight", with: "")
      tensors[module + ".lora_A.weight"] = numbers.tensor([2, label.shape[1]], deviation: 0.1)
      tensors[module + ".lora_B.weight"] = numbers.tensor([label.shape[0], 2], deviation: 0.1)
      if label.name.contains("time_embedding") { tensors[module + ".lora_magnitude_vector"] = numbers.tensor([label.shape[0]], mean: 1) }
    }
    try SafetensorsWriter.write(tensors, to: file)
    let use = AdapterUse(try Adapter(contentsOf: file), weight: 0.5)
    func latents(_ model: StableDiffusion) async throws -> [Float] {
      var request = model.request("a red apple", seed: 1)
      request.steps = 2
      return try await model.pipeline.images(for: request)[0].latents.elements
    }
    // Planned without the LoRA, so that even small matrices are streamed.
    let limit = try smallest(extent)
    #expect(try smallest(extent, adapters: [use]) > limit)
    let plan = try MemoryPlan(for: url, extent, limit: limit)
    let streamed = try StableDiffusion.load(from: url, plan: plan, adapters: [use])
    #expect(plan.streamedBytesPerStep > 0 && streamed.pipeline.adaptation?.lowRank.isEmpty == false)
    let expected = try await latents(StableDiffusion.load(from: url, adapters: [use]))
    print(expectClose(try await latents(streamed), expected, tolerance: 1e-3))
    #expect(compare(expected, try await latents(StableDiffusion.load(from: url))).error > 0.01)
    let kept = try MemoryPlan(for: url, extent, weights: .float16, adapters: [use]).keptBytes
    #expect(try kept == MemoryPlan(for: url, extent, weights: .float16).keptBytes)
  }

  /// Small components are held as float32 where there is room for it, which is faster and changes nothing.
  @Test func widensSmallComponents() async throws {
    let components = ["text_encoder", "unet", "vae"]
    let usual = try MemoryPlan(for: url, extent)
    #expect(components.allSatisfy { usual.form(of: $0) == .float32 })
    #expect(try components.allSatisfy { try ModelFiles.open(url).usualForm(of: $0) == .float32 })
    let stored = try MemoryPlan(for: url, extent, weights: .float16)
    #expect(components.allSatisfy { stored.form(of: $0) == .float16 } && stored.keptBytes < usual.keptBytes * 3 / 5)
    let limited = try MemoryPlan(for: url, extent, limit: usual.predictedPeakBytes - 1_000_000)
    #expect(components.allSatisfy { limited.form(of: $0) == nil } && limited.streamedBytesPerStep == 0)
    #expect(try await picture(limited) == picture(usual))
  }

  @Test func refusesWhatIsLargerThanPlanned() async throws {
    let limit = try MemoryPlan(for: url, extent).predictedPeakBytes
    let model = try StableDiffusion.load(from: url, plan: MemoryPlan(for: url, extent, limit: limit))
    var request = model.request("a red apple", seed: 1)
    _ = try model.pipeline.generate(request)
    (request.width, request.height, request.imagesPerPrompt) = (512, 512, 4)
    #expect {
      try model.pipeline.generate(request)
    } throws: { error in
      guard case MemoryPlanError.requestTooLarge(limit, let needed, let extent) = error else { return false }
      return needed > limit && extent.images == 4 && extent.rowsPerImage == 2
    }
  }

  @Test func growsWithWhatIsAskedFor() throws {
    func peak(_ side: Int, images: Int = 1, rows: Int = 2, encodes: Bool = false, length: Int? = nil) throws -> Int {
      let size = PixelSize(width: side, height: side)
      var extent = GenerationExtent(size: size, images: images, rowsPerImage: rows, encodesPicture: encodes)
      extent.contextLength = length
      return try MemoryPlan(for: url, extent).predictedPeakBytes
    }
    #expect(try peak(64) < peak(512))
    #expect(try peak(512, rows: 1) <= peak(512))
    #expect(try peak(512) < peak(512, images: 16))
    #expect(try peak(64) < peak(64, encodes: true))
    #expect(try peak(64, length: 32) == peak(64) && peak(64) < peak(64, length: 32 * 100))
  }

  /// What waits between passes is counted: other rows' keys and values, texts that come later, deep features, and the second ones of order 1.
  @Test func whatWaitsIsCounted() throws {
    // So many that passes take more than decoding does.
    var extent = GenerationExtent(size: PixelSize(width: 512, height: 512), images: 16)
    func peak() throws -> Int { try MemoryPlan(for: url, extent).predictedPeakBytes }
    let plain = try peak()
    extent.restingRows = 1
    let rested = try peak()
    extent.waitingTexts = 100
    let texts = try peak()
    (extent.restingRows, extent.waitingTexts, extent.stepCaching) = (0, 0, StepCaching(interval: 3))
    let cached = try peak()
    extent.stepCaching?.order = 1
    let twice = try peak()
    #expect(plain < rested && rested < texts && plain < cached && cached < twice)
    // The features of a map of 64 · 64 latents, for two rows: as much again.
    #expect(abs(Double(twice - cached) / Double(cached - plain) - 1) < 0.5, "\(cached - plain) and \(twice - cached)")
  }

  /// A request says what waits.
  @Test func requestsSayWhatWaits() async throws {
    var model = try StableDiffusion.load(from: url)
    let told = Mutex<[GenerationExtent]>([])
    model.pipeline.admission = { extent in told.withLock { $0.append(extent) } }
    func extent(_ change: (inout GenerationRequest) -> Void) throws -> GenerationExtent {
      var request = model.request("a red apple", seed: 1)
      (request.steps, request.guidance) = (10, 5)
      change(&request)
      _ = try model.pipeline.generate(request)
      return try #require(told.withLock { $0.last })
    }
    let plain = try extent { _ in }
    #expect(plain.rowsPerImage == 2 && plain.restingRows == 0 && plain.waitingTexts == 0 && plain.stepCaching == nil)
    let perturbed = try extent { $0.perturbedAttention = PerturbedAttention(layers: ["down_blocks.1"]) }
    #expect(perturbed.rowsPerImage == 2 && perturbed.restingRows == 1)
    let degraded = try extent { $0.selfAttentionScale = 0.75 }
    #expect(degraded.rowsPerImage == 2 && degraded.restingRows == 1)
    let inSome = try extent { $0.guidanceInterval = 0.2...0.5 }
    #expect(inSome.rowsPerImage == 2 && inSome.restingRows == 1)
    #expect(try extent { $0.stepCaching = StepCaching(interval: 2, order: 1) }.stepCaching?.order == 1)
    let changing = try extent {
      $0.prompts = ["a [red|green] apple"]
      $0.follow(.webui)
    }
    #expect(changing.rowsPerImage == 2 && changing.waitingTexts == 2)
    let composed = try extent {
      $0.prompts = ["a [red:green:0.5] apple AND a [cat:dog:0.2]"]
      $0.follow(.webui)
    }
    #expect(composed.rowsPerImage == 3 && composed.waitingTexts == 6)
  }

  /// The less memory, the slower, and never more of it than is allowed: for a model of the size of SDXL, of which nothing is written but the shapes.
  @Test func searchesModelsOfTheSizeOfSDXL() throws {
    let temporary = try TemporaryFolder(), file = temporary.url.appending(path: "model.safetensors")
    func shapes(_ name: String) throws -> [String: [Int]] {
      struct Shapes: Decodable { let checkpoint: [String: [Int]] }
      return try JSONDecoder().decode(Shapes.self, from: Data(contentsOf: fixtures.appending(path: "weights/\(name)-shapes.json")))
        .checkpoint
    }
    // The autoencoder has the shapes of version 1.
    let autoencoder = try shapes("sd15").filter { $0.key.hasPrefix("first_stage_model.") }
    try StableDiffusionCheckpointTests.sparse(shapes("sdxl").merging(autoencoder) { first, _ in first }, at: file)
    let extent = GenerationExtent(size: PixelSize(width: 1024, height: 1024))
    let usual = try MemoryPlan(for: file, extent)
    #expect(usual.predictedPeakBytes < 7_600_000_000)
    var last = usual
    for limit in [5_000_000_000, 1_000_000_000] {
      let plan = try MemoryPlan(for: file, extent, limit: limit)
      #expect(plan.predictedPeakBytes <= limit && plan.predictedPeakBytes > limit / 2)
      #expect(plan.predictedRelativeTime >= last.predictedRelativeTime && plan.streamedBytesPerStep >= last.streamedBytesPerStep)
      last = plan
    }
    // A ControlNet of the published size beside it: its weights and its passes, of which as much can be streamed.
    struct Published: Decodable { let tensors: [String: [Int]] }
    let controls = try JSONDecoder().decode(
      [String: Published].self, from: Data(contentsOf: ControlCase.folder.appending(path: "shapes.json")))
    let control = temporary.url.appending(path: "control.safetensors"), tensors = try #require(controls["sdxl"]).tensors
    try StableDiffusionCheckpointTests.sparse(tensors, at: control)
    let company = ModelCompany(controls: [control])
    let steered = try MemoryPlan(for: file, beside: company, extent), weights = 2 * tensors.values.reduce(0) { $0 + $1.reduce(1, *) }
    #expect(abs(Double(steered.keptBytes - usual.keptBytes) / Double(weights) - 1) < 0.01)
    #expect(steered.predictedPeakBytes > usual.predictedPeakBytes + weights)
    let limited = try MemoryPlan(for: file, beside: company, extent, limit: 2_000_000_000)
    #expect(limited.predictedPeakBytes <= 2_000_000_000 && limited.streamedBytesPerStep > last.streamedBytesPerStep)
  }

  @Test func refusesImpossibleSizes() throws {
    for (width, height) in [(0, 64), (-64, 64), (63, 64), (Int.max - 3, Int.max - 3), (1 << 40, 64)] {
      let extent = GenerationExtent(size: PixelSize(width: width, height: height))
      #expect(throws: GenerationError.self) { try MemoryPlan(for: url, extent, limit: 1 << 30) }
    }
  }
}
