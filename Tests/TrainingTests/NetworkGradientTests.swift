import Autoencoder
import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionTraining
import LatentDiffusionWeights
import Tensor
import Testing
import TextEncoder
import UNet

/// The gradients of every parameter of tiny networks against PyTorch's in float64 (`Tests/Fixtures/models/make_gradients.py`), compared by name.
@Suite struct NetworkGradientTests {
  /// Of each gradient's root mean square. float32 sums of thousands of products through dozens of layers are off by some 1e-5.
  private static let tolerance: Float = 1e-3
  private let context = ExecutionContext(threads: 2)

  /// The gradient that each result is given, in the order of PyTorch's layout. The same formula stands in `make_gradients.py`.
  private func gradient(_ shape: Shape) -> Tensor {
    guard shape.rank == 4 else { return Tensor((0..<shape.count).map { Float($0 * 7919 % 1000) / 500 - 1 }, shape: shape) }
    return Tensor((0..<shape.count).map { Float($0 * 7919 % 1000) / 500 - 1 }, shape: [shape[0], shape[3], shape[1], shape[2]])
      .channelsLast()
  }

  /// The largest difference, in units of the reference's root mean square.
  private static func relativeError(_ found: Tensor, _ expected: Tensor) -> Float {
    let rms = (expected.elements.reduce(0) { $0 + $1 * $1 } / Float(expected.count)).squareRoot()
    return (zip(found.elements, expected.elements).map { abs($0 - $1) }.max() ?? 0) / rms
  }

  /// Runs a network with all its parameters in training, and compares their gradients and those of the inputs.
  private func check<Component: ModelComponent>(
    _ type: Component.Type, of model: String, _ folder: String, reference: String? = nil, inputs: [String: Tensor] = [:],
    missing: Set<String> = [],
    recomputing: Bool = false, _ run: (Component, ExecutionContext) throws -> Tensor
  ) throws {
    let files = try ModelFiles(ReferenceModel(model).folder), source = try files.weights(of: folder)
    let json = try #require(try files.configuration(of: folder))
    let (network, report) = try LoadReport.load(from: source, in: context) { try Component(configuration: json, weights: $0) }
    let tape = GradientTape()
    inputs.values.forEach(tape.follow)
    let parameters = try TrainedParameters(report.parameters, from: source)
    let placed = try parameters.placed(in: Adaptation.Model(), on: tape, in: context)
    var recording = context.recording(on: tape, recomputing: recomputing)
    recording.adaptation = placed.adaptation
    let result = try run(network, recording)
    let all = try tape.gradients(of: result, times: gradient(result.shape), in: context)
    var expected = try readTensors(ReferenceModel(model).folder.appending(path: "reference/\(reference ?? folder).gradients.safetensors"))
    var worst = (error: Float(0), name: "nothing")
    func compare(_ name: String, _ gradient: Tensor) throws {
      if let numbers = expected.removeValue(forKey: name + ".rows"), let rows = expected.removeValue(forKey: name) {
        let places = numbers.elements.map { Int($0) }, zeros = Tensor(shape: [gradient.shape[0] - places.count, gradient.shape[1]])
        let error = Self.relativeError(gradient.rows(at: places), rows)
        #expect(error <= Self.tolerance, "\(name): \(error)")
        let others = gradient.rows(at: (0..<gradient.shape[0]).filter { !places.contains($0) })
        #expect(others.elements == zeros.elements, "\(name) has gradients of rows that nothing looked up")
        if error > worst.error { worst = (error, name) }
        return
      }
      guard let sample = expected.removeValue(forKey: name)?.elements else {
        // What the result does not depend on has no gradient in the reference.
        #expect(gradient.elements.allSatisfy { $0 == 0 } && missing.contains { name.hasPrefix($0) }, "\(name) is not in the reference")
        return
      }
      let values = gradient.elements, n = sample.count - 1
      // The bias of keys moves all scores of a query alike, so its gradient is zero but for rounding.
      guard sample[0] > 1e-9 else {
        #expect(values.allSatisfy { abs($0) < 1e-5 }, "\(name) is \(values), not zero")
        return
      }
      let rms = sample[0]
      let differences = (0..<n).map { (i: Int) -> Float in abs(values[i * values.count / n] - sample[i + 1]) }
      let error = (differences.max() ?? 0) / rms
      #expect(error <= Self.tolerance, "\(name): \(error) of \(rms)")
      if error > worst.error { worst = (error, name) }
    }
    for (label, gradient) in zip(parameters.labels, placed.gradients(from: all)) { try compare(label.name, gradient) }
    for (name, input) in inputs {
      let gradient = try #require(all[input])
      try compare("input." + name, gradient.shape.rank == 4 ? gradient.channelsFirst() : gradient)
    }
    let left = expected.keys.filter { name in !missing.contains { name.hasPrefix($0) } }
    #expect(left.isEmpty, "not compared: \(left.sorted())")
    print("\(model) \(folder): \(parameters.labels.count) gradients, largest difference \(worst.error) of its rms in \(worst.name)")
  }

  @Test(arguments: ["sd1", "sd2", "sdxl", "upscale7"], [false, true]) func uNets(model: String, recomputing: Bool) throws {
    struct Inputs: Decodable { let timestep: Float }
    let (inputs, tensors) = try ReferenceModel(model).pass("unet", Inputs.self)
    let latents = try #require(tensors["input.sample"]).channelsLast(), text = try #require(tensors["input.encoder_hidden_states"])
    let conditioning = Conditioning(
      hiddenStates: text, pooled: tensors["input.text_embeds"],
      inputs: ["time_ids": tensors["input.time_ids"], "class_labels": tensors["input.class_labels"]].compactMapValues { $0 })
    try check(
      UNet2DConditionModel.self, of: model, "unet", inputs: ["sample": latents, "encoder_hidden_states": text], recomputing: recomputing
    ) { try $0.predict(latents, timestep: inputs.timestep, conditioning: conditioning, in: $1) }
  }

  /// A U-Net without a text, with a table of classes.
  @Test func uNetOfClasses() throws {
    struct Inputs: Decodable { let timestep: Float }
    let (inputs, tensors) = try ReferenceModel("ldm-class").pass("unet", Inputs.self)
    let latents = try #require(tensors["input.sample"]).channelsLast()
    let conditioning = Conditioning(rows: 2, inputs: ["class_labels": try #require(tensors["input.class_labels"])])
    try check(UNet2DModel.self, of: "ldm-class", "unet", inputs: ["sample": latents]) {
      try $0.predict(latents, timestep: inputs.timestep, conditioning: conditioning, in: $1)
    }
  }

  @Test func classEmbedder() throws {
    try check(ClassEmbedder.self, of: "ldm-table", "class_embedder") { embedder, context in
      let prompts = ["4", "1", "4", "10"].map { Prompt($0) }
      let conditioner = ClassEmbeddingConditioner(classes: ClassConditioner(count: embedder.classes), embedder: embedder)
      return try #require(
        try conditioner.condition(ConditioningRequest(prompts, size: PixelSize(width: 8, height: 8)), in: context).contexts.first)
    }
  }

  /// Rows with timesteps of their own: each row's prediction is that of a pass with its timestep.
  @Test func timestepsOfRows() throws {
    struct Inputs: Decodable { let timestep: Float }
    let (_, tensors) = try ReferenceModel("sd1").pass("unet", Inputs.self)
    let files = try ModelFiles(ReferenceModel("sd1").folder), json = try #require(try files.configuration(of: "unet"))
    let (unet, _) = try LoadReport.load(from: files.weights(of: "unet"), in: context) {
      try UNet2DConditionModel(configuration: json, weights: $0)
    }
    let latents = try #require(tensors["input.sample"]).channelsLast()
    var conditioning = Conditioning(hiddenStates: try #require(tensors["input.encoder_hidden_states"]))
    let single = try [7, 801].map { try unet.predict(latents, timestep: $0, conditioning: conditioning, in: context) }
    conditioning.inputs["timesteps"] = Tensor([7, 801])
    let both = try unet.predict(latents, timestep: 0, conditioning: conditioning, in: context)
    expectClose(both.rows(0..<1), single[0].rows(0..<1), tolerance: 1e-5)
    expectClose(both.rows(1..<2), single[1].rows(1..<2), tolerance: 1e-5)
  }

  @Test func autoencoder() throws {
    struct Nothing: Decodable {}
    let picture = try #require(try ReferenceModel("sd1").pass("vae-encode", Nothing.self).tensors["input"]).channelsLast()
    try check(
      AutoencoderKL.self, of: "sd1", "vae", reference: "vae-encode", inputs: ["sample": picture],
      missing: ["decoder.", "post_quant_conv."]
    ) { autoencoder, context in
      guard case .distribution(let latents) = try autoencoder.encode(picture, in: context) else { return picture }
      return try .concatenated([latents.mean, latents.logVariance], axis: -1, in: context)
    }
    let latents = try #require(try ReferenceModel("sd1").pass("vae-decode", Nothing.self).tensors["input"]).channelsLast()
    try check(
      AutoencoderKL.self, of: "sd1", "vae", reference: "vae-decode", inputs: ["sample": latents], missing: ["encoder.", "quant_conv."]
    ) { try $0.decode(latents, in: $1) }
  }

  @Test(arguments: [("sd1", "text_encoder"), ("sd2", "text_encoder"), ("sdxl", "text_encoder_2")])
  func textEncoders(model: String, folder: String) throws {
    struct Inputs: Decodable { let ids: [[Int]] }
    let ids = try ReferenceModel(model == "sd2" ? "sd2" : "sd1").pass("text", Inputs.self).inputs.ids
    try check(CLIPTextModel.self, of: model, folder) { model, context in
      let output = try model(ids.map { Array($0.prefix(model.configuration.positions)) }, in: context)
      return output.textEmbeds ?? output.lastHiddenState
    }
  }

  @Test func textEncoderOfTheFirstModels() throws {
    struct Inputs: Decodable { let ids: [[Int]] }
    let ids = try ReferenceModel("ldm-text").pass("bert", Inputs.self).inputs.ids
    try check(LDMBertModel.self, of: "ldm-text", "bert") { try $0(ids.map { Array($0.prefix(7)) }, in: $1) }
  }
}
