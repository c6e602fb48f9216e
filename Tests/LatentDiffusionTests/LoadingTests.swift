import EmojiModel
import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// What a model's files decide, what they leave to others, and what is told of them.
@Suite struct LoadingTests {
  // MARK: schedulers

  @Test func theIndexDecidesOnTheScheduler() throws {
    let copy = try ModelCopy()
    try copy.set("scheduler", "[\"diffusers\", \"EulerDiscreteScheduler\"]", in: "model_index.json")
    #expect(try StableDiffusion.load(from: copy.folder).schedulerKind == .euler)
    try copy.set("_class_name", nil, in: "scheduler/scheduler_config.json")
    #expect(try StableDiffusion.load(from: copy.folder).schedulerKind == .euler)
  }

  /// Another scheduler can be used on a folder whose own is unknown; without one, the message names those that can.
  @Test func anotherSchedulerTakesTheUnknownOnesPlace() async throws {
    let copy = try ModelCopy()
    try copy.set("scheduler", "[\"diffusers\", \"RePaintScheduler\"]", in: "model_index.json")
    var model = try StableDiffusion.load(from: copy.folder)
    #expect(model.schedulerKind == nil)
    let problem = try #require(model.schedulerProblem)
    #expect(problem.description.contains("RePaintScheduler") && problem.description.contains("euler-a"))
    var request = model.request("a cat", seed: 1)
    (request.steps, request.width, request.height) = (2, 32, 32)
    #expect(throws: problem) { try model.pipeline.generate(request) }
    try model.use(.euler)
    #expect(model.schedulerKind == .euler)
    let found = try await model.pipeline.images(for: request)[0].latents
    var usual = try StableDiffusion.load(from: ReferenceModel("sd1").folder)
    try usual.use(.euler)
    #expect(try await usual.pipeline.images(for: request)[0].latents.elements == found.elements)
  }

  /// Whoever knows what a model predicts can say so, with its own scheduler and with another.
  @Test func thePredictionCanBeSet() throws {
    var model = try StableDiffusion.load(from: ReferenceModel("sd1").folder)
    #expect(model.predictionType == .epsilon)
    let sample = Tensor([0.5, -1]), prediction = Tensor([0.25, 1])
    func next() throws -> [Float] {
      var scheduler = try model.pipeline.schedule(4, TextToImage(), SamplingSettings()).scheduler
      var noise: any NoiseSource = TorchGenerator(seed: 0)
      return try scheduler.advance(sample, prediction: prediction, at: 0, noise: &noise).sample.elements
    }
    func made(_ kind: SchedulerKind, _ type: PredictionType) throws -> [Float] {
      var configuration = model.schedulerConfiguration
      (configuration.predictionType, configuration.stepsOffset, configuration.clipSample) = (type.rawValue, 1, false)
      var scheduler = try kind.make(configuration: configuration, steps: 4)
      var noise: any NoiseSource = TorchGenerator(seed: 0)
      return try scheduler.advance(sample, prediction: prediction, at: 0, noise: &noise).sample.elements
    }
    for type in PredictionType.allCases {
      model.predictionType = type
      #expect(model.predictionType == type)
      #expect(try next() == made(.pndm, type))
    }
    try model.use(.ddim)
    model.predictionType = .vPrediction
    #expect(try next() == made(.ddim, .vPrediction))
    model.predictionType = .epsilon
    #expect(try next() == made(.ddim, .epsilon))
  }

  @Test func spacingsAreAskedForOneByOne() throws {
    var model = try StableDiffusion.load(from: ReferenceModel("sd1").folder)
    func timesteps() throws -> [Float] { try model.pipeline.schedule(10, TextToImage(), SamplingSettings()).scheduler.timesteps }
    let own = try timesteps()
    // The model's own scheduler stays what it is; only its timesteps lie elsewhere.
    try model.use(timesteps: .trailing)
    #expect(try model.schedulerKind == .pndm && timesteps() != own && timesteps().first == 999)
    try model.use()
    #expect(try timesteps() == own)
    try model.use(.euler)
    let plain = try timesteps()
    try model.use(.euler, spacing: .karras)
    #expect(try timesteps() != plain)
    // What is not asked for is the file's again, and a refusal changes nothing.
    try model.use(.euler)
    #expect(try timesteps() == plain)
    #expect(throws: SchedulerError.self) { try model.use(.ddim, spacing: .karras) }
    #expect(try model.schedulerKind == .euler && timesteps() == plain)
  }

  // MARK: defaults

  @Test func defaultsAreThoseOfTheReferencesPipelines() throws {
    func settings(_ name: String, _ task: any GenerationTask = TextToImage()) throws -> [Double] {
      var request = try StableDiffusion.load(from: ReferenceModel(name).folder).request("a")
      request.task = task
      return [Double(request.steps), request.guidance]
    }
    let image = Tensor(shape: [1, 32, 32, 3])
    #expect(try settings("sd1") == [50, 7.5])
    #expect(try settings("lcm") == [4, 8.5])
    #expect(try settings("lcm", ImageToImage(.pixels(image))) == [4, 8.5])
    #expect(try settings("edit8", InstructionEditing(image)) == [100, 7.5])
    let emoji = try StableDiffusion.load(from: EmojiModel.folder())
    #expect(emoji.request("a").steps == emoji.defaults.steps && emoji.request("a").guidance == emoji.defaults.guidance)
  }

  /// A configuration may name the height and the width of the latents.
  @Test func sizesNeedNotBeSquare() throws {
    let copy = try ModelCopy()
    try copy.set("sample_size", "[16, 24]", in: "unet/config.json")
    let model = try StableDiffusion.load(from: copy.folder)
    let shape = try model.pipeline.latentShape(for: model.request("a"))
    #expect(shape[1] == 16 && shape[2] == 24)
    let scale = model.pipeline.autoencoder.spatialScale
    #expect(try MemoryPlan(for: copy.folder).extent.size == PixelSize(width: 24 * scale, height: 16 * scale))
    #expect(model.pipeline.predictor.sampleSize == 24)
  }

  // MARK: what is told

  @Test func whatIsNotUsedIsTold() throws {
    let copy = try ModelCopy()
    #expect(try StableDiffusion.load(from: copy.folder).warnings == [])
    try copy.editTensors("vae/diffusion_pytorch_model.safetensors") { $0["encoder.extra.weight"] = Tensor([1]) }
    try copy.set("controlnet", "[\"diffusers\", \"ControlNetModel\"]", in: "model_index.json")
    try copy.set("safety_checker", "[\"a\", \"SafetyChecker\"]", in: "model_index.json")
    let warnings = try StableDiffusion.load(from: copy.folder).warnings
    #expect(
      warnings == [
        .unusedComponent(name: "controlnet", className: "ControlNetModel"),
        .unusedTensors(component: "vae", names: ["encoder.extra.weight"]),
      ])
    #expect(warnings[1].description == "The tensor encoder.extra.weight of the model's vae is not used.")
    let many = LoadWarning.leftOver(names: ["a", "b", "c", "d"])
    #expect(many.description == "4 tensors (a, b, c, …) of the file belong to no part of the model and are not used.")
  }

  /// A prompt that is longer than the model reads: what is left out is in the tokens' own words.
  @Test func cutPromptsAreToldByTheTokenizer() throws {
    let tokenizer = try StableDiffusion.tokenizer(from: EmojiModel.folder())
    let room = tokenizer.maximumLength - 2
    let words = (0..<room + 3).map { _ in "cat" }.joined(separator: " ")
    #expect(tokenizer.truncation(of: (0..<room).map { _ in "cat" }.joined(separator: " ")) == nil)
    let cut = try #require(tokenizer.truncation(of: words))
    #expect(cut.dropped == "cat cat cat" && cut.tokens == room + 3 && cut.limit == room)
    #expect(tokenizer.truncation(of: String(repeating: " ", count: 10_000)) == nil)
  }

  // MARK: conversion

  @Test func aModelThatCannotBeLoadedIsNotConverted() async throws {
    let copy = try ModelCopy()
    let target = copy.folder.appending(path: "converted")
    let context = ExecutionContext(threads: 1)
    try copy.editTensors("unet/diffusion_pytorch_model.safetensors") { $0["conv_in.weight"] = nil }
    #expect(throws: WeightErrors.self) { try StableDiffusion.convert(copy.folder, to: .float32, at: target, in: context) }
    let other = try ModelCopy()
    try other.set("_class_name", "\"StableDiffusionXLPipeline\"", in: "model_index.json")
    #expect(throws: ModelFilesError.self) { try StableDiffusion.convert(other.folder, to: .float32, at: target, in: context) }
    #expect(!FileManager.default.fileExists(atPath: target.path))
  }

  /// Tensors of other types are converted when they are read, and by a conversion; the pictures are the same.
  @Test func otherElementTypesAreRead() async throws {
    let copy = try ModelCopy()
    let name = "vae/diffusion_pytorch_model.safetensors"
    let file = try SafetensorsFile(copy.folder.appending(path: name))
    let stored = try #require(file.tensors["decoder.conv_in.bias"])
    let values = try file.tensor("decoder.conv_in.bias", shape: stored.shape).decoded().elements
    let expected = try await picture(copy.folder)
    // The same numbers as doubles.
    var tensors: [String: WeightTensor] = [:]
    for (key, tensor) in file.tensors where key != "decoder.conv_in.bias" { tensors[key] = try file.tensor(key, shape: tensor.shape) }
    var data = SafetensorsWriter.encode(tensors)
    let doubles = values.reduce(into: Data()) { all, value in withUnsafeBytes(of: Double(value)) { all.append(contentsOf: $0) } }
    let length = data.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    var header = String(decoding: data[8..<8 + length], as: UTF8.self)
    while header.last != "}" { header.removeLast() }
    header.removeLast()
    let end = data.count - 8 - length
    header += ",\"decoder.conv_in.bias\":{\"dtype\":\"F64\",\"shape\":[\(values.count)],\"data_offsets\":[\(end),\(end + doubles.count)]}}"
    let size = UInt64(header.utf8.count)
    data = Data((0..<8).map { UInt8(truncatingIfNeeded: size >> (8 * $0)) }) + Data(header.utf8) + data[(8 + length)...] + doubles
    try data.write(to: copy.folder.appending(path: name))
    #expect(try SafetensorsFile(copy.folder.appending(path: name)).tensors["decoder.conv_in.bias"]?.elementType == "F64")
    #expect(try await picture(copy.folder) == expected)
    let target = copy.folder.appending(path: "converted")
    try StableDiffusion.convert(copy.folder, to: .float32, at: target, in: ExecutionContext(threads: 1))
    #expect(try SafetensorsFile(target.appending(path: name)).tensors["decoder.conv_in.bias"]?.elementType == "F32")
    #expect(try await picture(target) == expected)
  }

  private func picture(_ folder: URL) async throws -> [Float] {
    let model = try StableDiffusion.load(from: folder)
    var request = model.request("a cat", seed: 1)
    (request.steps, request.width, request.height) = (2, 32, 32)
    return try await model.pipeline.images(for: request)[0].image.elements
  }

  // MARK: plans

  /// A model of 8-bit blocks has matrices that are none: they are planned as they are.
  @Test func modelsOf8BitsArePlanned() async throws {
    let folder = FileManager.default.temporaryDirectory.appending(path: "LatentDiffusionTests-\(UUID().uuidString)")
    defer { try? FileManager.default.removeItem(at: folder) }
    try StableDiffusion.convert(EmojiModel.folder(), to: .q8, at: folder, in: ExecutionContext(threads: 2))
    let extent = GenerationExtent(size: PixelSize(width: 64, height: 64))
    let usual = try MemoryPlan(for: folder, extent)
    var smallest = 0
    do { _ = try MemoryPlan(for: folder, extent, limit: 1) } catch MemoryPlanError.limitTooSmall(_, let found, _) { smallest = found }
    #expect(smallest > 30_000_000 && smallest < usual.predictedPeakBytes)
    let plan = try MemoryPlan(for: folder, extent, limit: smallest)
    #expect(plan.streamedBytesPerStep > 0 && plan.streamedBytesPerStep < 12_000_000)
    #expect(try MemoryPlan(for: folder, extent, limit: 600_000_000).streamedBytesPerStep == 0)
    var request = try StableDiffusion.load(from: folder).request("a red apple", seed: 1)
    request.steps = 2
    let streamed = try await StableDiffusion.load(from: folder, plan: plan).pipeline.images(for: request)[0].image
    let whole = try await StableDiffusion.load(from: folder).pipeline.images(for: request)[0].image
    #expect(compare(streamed.elements, whole.elements, absolute: plan.tiling == .automatic ? 0 : 0.2).isTolerable)
  }

  /// Numbers that would overflow, or be followed for years, are refused.
  @Test(arguments: [
    ("unet/config.json", "layers_per_block", "1048576"), ("unet/config.json", "transformer_layers_per_block", "1048576"),
    ("unet/config.json", "conv_in_kernel", "1048576"), ("unet/config.json", "conv_out_kernel", "9223372036854775807"),
    ("vae/config.json", "layers_per_block", "1048576"), ("text_encoder/config.json", "num_hidden_layers", "1048576"),
  ])
  func hostileSizesAreNotPlanned(_ file: String, _ key: String, _ value: String) throws {
    let copy = try ModelCopy()
    try copy.set(key, value, in: file)
    // Some are refused as such, others ask for what the files do not have.
    let error = #expect(throws: (any Error).self) { try MemoryPlan(for: copy.folder, limit: 1 << 30) }
    #expect(error is ConfigurationError || error is WeightErrors, "\(String(describing: error))")
  }

  @Test func hostileExtentsAreNotPlanned() throws {
    for rows in [0, -1, Int.max] {
      let extent = GenerationExtent(size: PixelSize(width: 64, height: 64), rowsPerImage: rows)
      #expect(throws: GenerationError.self) { try MemoryPlan(for: EmojiModel.folder(), extent) }
    }
  }

  // MARK: previews

  /// The mean difference of colour between previews and the decoded picture, averaged over the squares that a latent stands for, in 255ths.
  @Test func previewsHaveThePicturesColours() async throws {
    var model = try StableDiffusion.load(from: EmojiModel.folder())
    #expect(model.pipeline.decodesPreviews)
    let context = ExecutionContext()
    let fitted = try LatentPreview(fittedTo: model.pipeline.autoencoder, in: context)
    var errors: [Float] = []
    for (seed, prompt) in ["red apple", "green apple", "rocket", "blue heart", "cat face", "sunflower", "slice of pizza", "penguin"]
      .enumerated()
    {
      var request = model.request(prompt, seed: UInt64(seed))
      request.steps = 12
      request.previewInterval = 12
      var preview: Tensor?
      for try await event in try model.pipeline.generate(request) {
        switch event {
        case .step(let step): preview = step.preview ?? preview
        case .image(let image):
          let squares = mean(of: image.image, side: 4)
          // The last step still takes a little noise away from what it predicts.
          let exact = zip(try #require(preview).elements, squares).reduce(0) { $0 + abs($1.0 - $1.1) } / Float(squares.count) * 255
          #expect(exact < 1, "\(prompt): \(exact) of 255")
          let affine = fitted.image(of: image.latents).elements
          errors.append(zip(affine, squares).reduce(0) { $0 + abs($1.0 - $1.1) } / Float(squares.count) * 255)
        }
      }
    }
    print("a fitted matrix is \(errors) from the pictures, \(errors.reduce(0, +) / Float(errors.count)) on average")
    // Fitted to what the decoder makes of random latents it is 21.
    #expect(errors.count == 8 && errors.reduce(0, +) / 8 < 18)
    model.pipeline.decodesPreviews = false
    #expect(throws: Never.self) { try model.pipeline.generate(model.request("a")) }
  }

  private func mean(of image: Tensor, side: Int) -> [Float] {
    let (height, width, pixels) = (image.shape[1], image.shape[2], image.elements)
    return (0..<height / side).flatMap { y in
      (0..<width / side).flatMap { x in
        (0..<3).map { channel in
          (0..<side * side).reduce(Float(0)) { $0 + pixels[((y * side + $1 / side) * width + x * side + $1 % side) * 3 + channel] }
            / Float(side * side)
        }
      }
    }
  }

  /// Components by themselves: from a model's folder, from their own, and from a single file; the same as within the model.
  @Test func componentsLoadByThemselves() throws {
    let context = ExecutionContext(), latents = Tensor(repeating: 0.3, shape: [1, 4, 4, 4])
    let folder = try EmojiModel.folder()
    let whole = try StableDiffusion.load(from: folder).pipeline.autoencoder.decode(latents, in: context)
    for url in [folder, folder.appending(path: "vae")] {
      #expect(try AutoencoderKL.load(from: url).decode(latents, in: context).elements == whole.elements)
    }
    let file = fixtures.appending(path: "weights/sd1.safetensors")
    let text = try CLIPTextModel.load(from: file)
    #expect(text.configuration.features == (try UNet2DConditionModel.load(from: file).configuration.contextChannels))
    #expect(throws: ModelFilesError.self) { try CLIPTextModel.load(from: folder.appending(path: "vae")) }
    #expect(throws: ModelFilesError.self) { try CLIPTextModel.load(from: folder, named: "text_encoder_2") }
  }

  /// The folder of one component is no model, and says what it is.
  @Test func theFolderOfAComponentIsNoModel() throws {
    let error = #expect(throws: ModelFilesError.self) { try StableDiffusion.load(from: EmojiModel.folder().appending(path: "vae")) }
    #expect(error?.description.contains("the folder of one component (AutoencoderKL); give the folder above it") == true)
    #expect(throws: ModelFilesError.self) { try StableDiffusion.inspect(EmojiModel.folder().appending(path: "vae")) }
  }

  @Test(arguments: [
    ("inpaint9", "Stable Diffusion 1.x inpainting, of its own size"), ("lcm", "Stable Diffusion 1.x latent consistency, of its own size"),
  ])
  func familiesAreDescribed(_ name: String, _ description: String) throws {
    #expect(try StableDiffusion.inspect(ReferenceModel(name).folder).family == description)
  }
}
