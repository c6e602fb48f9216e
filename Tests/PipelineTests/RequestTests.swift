import LatentDiffusionComponents
import Pipeline
import Tensor
import Testing

@Suite struct RequestTests {
  private func refused(
    _ expected: GenerationError, by pipeline: DiffusionPipeline = toyPipeline(), location: SourceLocation = #_sourceLocation,
    _ change: (inout GenerationRequest) -> Void
  ) {
    var request = toyRequest("a")
    change(&request)
    #expect(throws: expected, sourceLocation: location) { _ = try pipeline.generate(request) }
  }

  @Test func countsMustBePossible() {
    refused(.noPrompts) { $0.prompts = [] }
    refused(.promptTooLong(bytes: 10 << 20)) { $0.prompts = [Prompt(String(repeating: "a", count: 10 << 20))] }
    refused(.negativePromptCount(prompts: 1, negativePrompts: 2)) { $0.negativePrompts = ["a", "b"] }
    let some = "from 1 to \(GenerationRequest.maximumPixels)"
    refused(.outOfRange(name: "The number of images per prompt", value: "0", allowed: some)) { $0.imagesPerPrompt = 0 }
    refused(.outOfRange(name: "The number of steps", value: "0", allowed: "from 1 to 100000")) { $0.steps = 0 }
    refused(.outOfRange(name: "The number of steps", value: "-3", allowed: "from 1 to 100000")) { $0.steps = -3 }
    refused(.outOfRange(name: "The preview interval", value: "0", allowed: "from 1 to \(Int.max)")) { $0.previewInterval = 0 }
  }

  @Test(arguments: [-1, Double.infinity, -Double.infinity, Double.nan]) func guidanceMustBeANumber(guidance: Double) {
    refused(.outOfRange(name: "The guidance", value: "\(guidance)", allowed: "from 0.0 to 1000000.0")) { $0.guidance = guidance }
    refused(.outOfRange(name: "The strength", value: "\(guidance)", allowed: "from 0.0 to 1.0")) {
      $0.task = ImageToImage(.pixels(toyImage(width: 8, height: 8)), strength: guidance)
    }
    refused(
      .outOfRange(name: "The image guidance", value: "\(guidance)", allowed: "from 0.0 to 1000000.0"),
      by: toyPipeline(ToyPredictor(inputChannels: 8))
    ) { $0.task = InstructionEditing(toyImage(width: 8, height: 8), imageGuidance: guidance) }
  }

  @Test func sizesMustFit() {
    refused(.indivisibleSize(width: 20, height: 22, multiple: 4)) { $0.height = 22 }
    refused(.indivisibleSize(width: 16, height: 20, multiple: 8), by: toyPipeline(ToyPredictor(sideMultiple: 2))) { $0.height = 20 }
    refused(.outOfRange(name: "The width", value: "0", allowed: "from 1 to \(GenerationRequest.maximumPixels)")) { $0.width = 0 }
    refused(.outOfRange(name: "The width", value: "\(Int.max)", allowed: "from 1 to \(GenerationRequest.maximumPixels)")) {
      $0.width = .max
    }
    refused(.noSize, by: toyPipeline(ToyPredictor(sampleSize: nil))) { $0.width = 20 }
    refused(.tooLarge(width: 1 << 20, height: 1 << 20, images: 1)) { ($0.width, $0.height) = (1 << 20, 1 << 20) }
    refused(.tooLarge(width: 20, height: 20, images: 1 << 24)) { $0.imagesPerPrompt = 1 << 24 }
  }

  @Test func aDefaultSizeIsForPicturesFromNothing() throws {
    var pipeline = toyPipeline()
    pipeline.defaultSize = PixelSize(width: 8, height: 12)
    #expect(try pipeline.latentShape(for: toyRequest("a")) == [1, 3, 2, 4])
    var request = toyRequest("a")
    request.width = 16
    #expect(try pipeline.latentShape(for: request) == [1, 3, 4, 4])
    request = toyRequest("a", task: ImageToImage(.pixels(toyImage(width: 20, height: 16))))
    #expect(try pipeline.latentShape(for: request) == [1, 4, 5, 4])
  }

  @Test func picturesMustBePictures() {
    refused(.imageTooSmall(width: 1, height: 1, multiple: 4)) {
      $0.task = ImageToImage(.pixels(toyImage(width: 1, height: 1)))
    }
    let flat = Tensor(shape: [8, 8, 3])
    refused(.unexpectedShape(name: "The image", expected: "[N, height, width, 3]", found: [8, 8, 3])) {
      $0.task = ImageToImage(.pixels(flat))
    }
    refused(.unexpectedShape(name: "The image", expected: "[N, height, width, 3]", found: [1, 0, 8, 3])) {
      $0.task = ImageToImage(.pixels(Tensor(shape: [1, 0, 8, 3])))
    }
    refused(.notFinite(name: "The image")) { $0.task = ImageToImage(.pixels(Tensor(repeating: .nan, shape: [1, 8, 8, 3]))) }
    refused(.unexpectedShape(name: "The mask", expected: "[1 or 1, height, width, 1]", found: [2, 8, 8, 1])) {
      let mask = Tensor.concatenated([toyMask(width: 8, height: 8), toyMask(width: 8, height: 8)], axis: 0)
      $0.task = Inpainting(image: toyImage(width: 8, height: 8), mask: mask)
    }
    refused(
      .unexpectedShape(name: "The image", expected: "[N, …] where N divides the 1 pictures of the request", found: [2, 8, 8, 3])
    ) { $0.task = ImageToImage(.pixels(Tensor(shape: [2, 8, 8, 3]))) }
  }

  @Test func noiseMustFit() throws {
    var batch = toyRequest("a", "b")
    (batch.imagesPerPrompt, batch.width) = (3, 40)
    #expect(try toyPipeline().latentShape(for: batch) == [6, 5, 10, 4])
    refused(.unexpectedShape(name: "The noise", expected: "[1, 5, 5, 4]", found: [1, 5, 4, 4])) { $0.noise = Tensor(shape: [1, 5, 4, 4]) }
    refused(.notFinite(name: "The noise")) { $0.noise = Tensor(repeating: .infinity, shape: [1, 5, 5, 4]) }
  }

  @Test func aStepMustBeLeft() {
    refused(.noStepsLeft(steps: 4, strength: 0.2)) {
      $0.task = ImageToImage(.pixels(toyImage(width: 8, height: 8)), strength: 0.2)
    }
    refused(.noStepsLeft(steps: 4, strength: 0)) {
      $0.task = Inpainting(image: toyImage(width: 8, height: 8), mask: toyMask(width: 8, height: 8), strength: 0)
    }
    // A scheduler may have more timesteps than steps: inpainting refuses all the same, as diffusers does.
    var more = toyPipeline()
    more.schedule = { steps, task, _ in Schedule(ToyScheduler(steps: steps + 1), steps: steps, strength: task.strength) }
    let (image, mask) = (toyImage(width: 8, height: 8), toyMask(width: 8, height: 8))
    refused(.noStepsLeft(steps: 4, strength: 0.2), by: more) { $0.task = Inpainting(image: image, mask: mask, strength: 0.2) }
    var request = toyRequest("a", task: ImageToImage(.pixels(image), strength: 0.2))
    request.steps = 4
    #expect(throws: Never.self) { try more.generate(request) }
  }

  /// One side alone decides on the other by the picture's proportions; without a picture the model's own other side is taken.
  @Test func oneSideKeepsTheProportions() throws {
    func size(_ task: any GenerationTask, width: Int? = nil, height: Int? = nil) throws -> [Int] {
      var request = toyRequest("a", task: task)
      (request.width, request.height) = (width, height)
      let shape = try toyPipeline().latentShape(for: request)
      return [shape[2] * 4, shape[1] * 4]
    }
    let image = toyImage(width: 60, height: 41)
    #expect(try size(ImageToImage(.pixels(image))) == [60, 40])
    #expect(try size(ImageToImage(.pixels(image)), width: 32) == [32, 20])
    #expect(try size(ImageToImage(.pixels(image)), height: 20) == [28, 20])
    #expect(try size(ImageToImage(.pixels(image)), width: 4) == [4, 4])
    #expect(try size(Inpainting(image: image, mask: toyMask(width: 60, height: 41)), width: 32) == [32, 20])
    #expect(try size(Inpainting.outpainting(image, left: 2), width: 32) == [32, 24])
    #expect(try size(TextToImage(), width: 32) == [32, 20])
    #expect(throws: GenerationError.self) { try size(ImageToImage(.pixels(toyImage(width: 1, height: 1000))), width: 1 << 20) }
    let own = toyPipeline().usualSize(inProportionsOf: PixelSize(width: 4000, height: 1000))
    #expect(own == PixelSize(width: 40, height: 12))
    #expect(toyPipeline(ToyPredictor(sampleSize: nil)).usualSize(inProportionsOf: PixelSize(width: 8, height: 8)) == nil)
  }

  /// The defaults of diffusers' pipelines, by the task and the model, until something is set.
  @Test func stepsAndGuidanceAreUsualForTheTask() async throws {
    var request = GenerationRequest("a")
    func settings() -> [Double] { [Double(request.steps), request.guidance] }
    #expect(settings() == [50, 7.5])
    request.task = InstructionEditing(toyImage(width: 8, height: 8))
    #expect(settings() == [100, 7.5])
    request.usual = { $0.usualSettings(ofConsistencyModel: true) }
    #expect(settings() == [100, 7.5])
    request.task = ImageToImage(.pixels(toyImage(width: 8, height: 8)))
    #expect(settings() == [4, 8.5])
    request.steps = 7
    #expect(settings() == [7, 8.5])
    // A request that no model has made gets what is usual for the one that carries it out.
    let consistency = toyPipeline(ToyPredictor(embedsGuidance: true))
    #expect(try await steps(of: GenerationRequest("a"), by: consistency) == 4)
    var pipeline = toyPipeline()
    pipeline.usual = { _ in GenerationSettings(steps: 3, guidance: 2) }
    #expect(try await steps(of: GenerationRequest("a"), by: pipeline) == 3)
    #expect(try await steps(of: GenerationRequest("a"), by: toyPipeline()) == 50)
  }

  private func steps(of request: GenerationRequest, by pipeline: DiffusionPipeline) async throws -> Int? {
    for try await case .step(let step) in try pipeline.generate(request) { return step.count }
    return nil
  }

  @Test func modelsMustFitTheTask() {
    let image = toyImage(width: 8, height: 8)
    let nine = toyPipeline(ToyPredictor(inputChannels: 9))
    refused(.modelDoesNotFit(task: "text-to-image", inputChannels: 9, expected: "4"), by: nine) { _ in }
    refused(.modelDoesNotFit(task: "image-to-image", inputChannels: 9, expected: "4"), by: nine) {
      $0.task = ImageToImage(.pixels(image))
    }
    refused(.modelDoesNotFit(task: "instruction editing", inputChannels: 4, expected: "8")) { $0.task = InstructionEditing(image) }
    refused(
      .modelDoesNotFit(task: "inpainting", inputChannels: 8, expected: "4 or 9"), by: toyPipeline(ToyPredictor(inputChannels: 8))
    ) { $0.task = Inpainting(image: image, mask: toyMask(width: 8, height: 8)) }
  }

  @Test func errorsSayWhatToDo() {
    let error = GenerationError.indivisibleSize(width: 100, height: 99, multiple: 8)
    #expect("\(error)" == "100×99 does not fit this model; both sides must be multiples of 8.")
  }
}
