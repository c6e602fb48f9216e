import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Adapters on tiny models, against what diffusers and PEFT draw with them: `Tests/Fixtures/adapters/make_adapters.py`.
@Suite struct AdapterTests {
  private static let folder = fixtures.appending(path: "adapters")
  private static let model = ReferenceModel("sd1").folder
  /// The model of a reference.
  private static func model(of name: String) -> URL { name.hasPrefix("xl-") ? ReferenceModel("sdxl").folder : model }
  /// Of the latents' standard deviation, as for pipelines without adapters.
  private static let tolerance: Float = 3e-4

  private static func adapter(_ name: String) throws -> Adapter { try Adapter(contentsOf: folder.appending(path: "\(name).safetensors")) }

  private static func reference(_ name: String) throws -> Tensor {
    try #require(try readTensors(folder.appending(path: "reference.safetensors"))["\(name).latents"]).channelsLast()
  }

  /// What the reference drew.
  private static func latents(
    of model: DiffusionModel, _ adaptation: Adaptation? = nil, prompt: String = "a photo of the cat"
  ) async throws -> Tensor {
    var request = model.request(prompt, seed: 0)
    (request.steps, request.guidance, request.width, request.height) = (4, 5, 32, 32)
    request.negativePrompts = ["blurred, grey"]
    request.adaptation = adaptation
    return try #require(try await model.pipeline.images(for: request).first).latents
  }

  @discardableResult
  private static func expect(_ found: Tensor, _ name: String, _ way: String, tolerance: Float = tolerance) throws -> Float {
    let expected = try reference(name)
    let difference = compare(found.elements, expected.elements)
    let relative = difference.largest / standardDeviation(expected.elements)
    print("\(name), \(way): \(relative) of the latents' deviation")
    LatentDiffusionTestSupport.expect(error: relative, atMost: tolerance, "\(name), \(way): \(difference)")
    return relative
  }

  static let cases: [(name: String, file: String, weight: Double)] = [
    ("kohya", "kohya", 0.8), ("kohya", "original-names", 0.8), ("peft", "peft", 0.8), ("peft-dora", "peft-dora", 0.8),
    ("loha", "loha", 0.8),
    ("lokr", "lokr", 0.8), ("ia3", "ia3", 0.8), ("ia3-peft", "ia3-peft", 1), ("dora", "dora", 0.8), ("locon", "locon", 0.8),
    ("xl-kohya", "xl-kohya", 0.8), ("xl-kohya", "xl-original-names", 0.8), ("xl-peft", "xl-peft", 0.8),
  ]

  @Test(.compares("Adapters, merged and added at run time", in: .adapters, with: "diffusers", "peft", unit: .deviation), arguments: cases)
  func bothWaysDrawWhatTheReferenceDraws(_ given: (name: String, file: String, weight: Double)) async throws {
    let use = AdapterUse(try Self.adapter(given.file), weight: given.weight)
    let folder = Self.model(of: given.name)
    let merged = try DiffusionModel.load(from: folder, adapters: [use])
    #expect(
      merged.adapterReports.allSatisfy { $0.applied == $0.count && $0.unused.isEmpty } && merged.warnings.isEmpty, "\(merged.warnings)")
    try Self.expect(try await Self.latents(of: merged), given.name, "\(given.file) merged")

    let model = try DiffusionModel.load(from: folder)
    let before = try await Self.latents(of: model)
    let (adaptation, reports) = try model.adaptation(by: [use])
    #expect(reports == merged.adapterReports)
    try Self.expect(try await Self.latents(of: model, adaptation), given.name, "\(given.file) added")
    // Without it the old bits come back.
    #expect(try await Self.latents(of: model).elements == before.elements)
  }

  /// Two at once, in both ways and one of each.
  @Test func severalAddUp() async throws {
    let (first, second) = (AdapterUse(try Self.adapter("kohya"), weight: 0.5), AdapterUse(try Self.adapter("locon"), weight: -0.4))
    let both = try await Self.latents(of: .load(from: Self.model, adapters: [first, second]))
    let model = try DiffusionModel.load(from: Self.model)
    let half = try DiffusionModel.load(from: Self.model, adapters: [first])
    let added = try await Self.latents(of: model, model.adaptation(by: [first, second]).adaptation)
    let mixed = try await Self.latents(of: half, half.adaptation(by: [second]).adaptation)
    for found in [added, mixed] { expectClose(found, both, tolerance: Self.tolerance) }
    #expect(compare(both.elements, try await Self.latents(of: half).elements).error > 0.01)
  }

  /// A difference to the table of tokens, whose rows are looked up and not multiplied.
  @Test func theTableOfTokensIsChangedInBothWays() async throws {
    let folder = try TemporaryFolder(), file = folder.url.appending(path: "table.safetensors")
    var numbers = Numbers(seed: 5)
    try SafetensorsWriter.write(
      ["lora_te_text_model_embeddings_token_embedding.diff": numbers.tensor([914, 16], deviation: 0.5)], to: file)
    let use = AdapterUse(try Adapter(contentsOf: file)), model = try DiffusionModel.load(from: Self.model)
    let merged = try await Self.latents(of: .load(from: Self.model, adapters: [use]))
    let added = try await Self.latents(of: model, model.adaptation(by: [use]).adaptation)
    expectClose(added, merged, tolerance: Self.tolerance)
    #expect(compare(added.elements, try await Self.latents(of: model).elements).error > 0.01)
  }

  /// Merged weights are rounded to the form that they are held in, and what is added to them is not.
  @Test(arguments: [(WeightForm.float16, Float(1e-2)), (.q8, 0.1)]) func otherForms(_ form: WeightForm, _ tolerance: Float) async throws {
    let use = AdapterUse(try Self.adapter("kohya"), weight: 0.8)
    let merged = try DiffusionModel.load(from: Self.model, weights: form, adapters: [use])
    try Self.expect(try await Self.latents(of: merged), "kohya", "\(form) merged", tolerance: tolerance)
    let model = try DiffusionModel.load(from: Self.model, weights: form)
    let added = try await Self.latents(of: model, model.adaptation(by: [use]).adaptation)
    try Self.expect(added, "kohya", "\(form) added", tolerance: tolerance)
  }

  /// The same LoRA under all names that diffusers, PEFT, LyCORIS and trainers have for a module.
  @Test(arguments: [
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_down.weight",
    "lycoris_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_down.weight",
    "lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_out_0.lora_down.weight",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.down.weight",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora.down.weight",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight",
    "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.default.weight",
    "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_A.weight",
    "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.lora_A.weight",
    "lora_te_text_model_encoder_layers_0_self_attn_out_proj.lora_down.weight",
    "lora_te1_text_model_encoder_layers_0_self_attn_out_proj.lora_down.weight",
    "text_encoder.text_model.encoder.layers.0.self_attn.out_proj.lora_linear_layer.down.weight",
    "text_encoder.text_model.encoder.layers.0.self_attn.to_out_lora.down.weight",
    "text_encoder.encoder.layers.0.self_attn.out_proj.lora_A.weight",
    "base_model.model.text_model.encoder.layers.0.self_attn.out_proj.lora_A.weight",
  ]) func everyNameIsKnown(_ down: String) throws {
    let isText = down.contains("self_attn"), width = isText ? 16 : 8
    let up = down.replacing("lora_down", with: "lora_up").replacing(".down.", with: ".up.").replacing("lora_A", with: "lora_B")
    let report = try Self.report([down: Tensor(repeating: 1, shape: [2, width]), up: Tensor(repeating: 1, shape: [width, 2])])
    #expect(report.applied == 1 && report.count == 1 && report.unused.isEmpty, "\(report)")
  }

  // MARK: bad input

  private static let module = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"

  private static func report(_ tensors: [String: Tensor], metadata: [String: String] = [:]) throws -> AdapterReport {
    let folder = try TemporaryFolder()
    let file = folder.url.appending(path: "a.safetensors")
    try SafetensorsWriter.write(tensors, metadata: metadata, to: file)
    let model = try DiffusionModel.load(from: model)
    return try #require(try model.adaptation(by: [AdapterUse(Adapter(contentsOf: file))]).reports.first)
  }

  private static func expectError(_ tensors: [String: Tensor], metadata: [String: String] = [:], says parts: String...) {
    do {
      let report = try report(tensors, metadata: metadata)
      Issue.record("\(report) in place of an error that says \(parts)")
    } catch {
      for part in parts { #expect("\(error)".contains(part), "\(error)") }
    }
  }

  private static func pair(_ module: String, _ down: Shape, _ up: Shape) -> [String: Tensor] {
    [module + ".lora_down.weight": Tensor(repeating: 1, shape: down), module + ".lora_up.weight": Tensor(repeating: 1, shape: up)]
  }

  @Test func whatDoesNotFitIsAnError() throws {
    let good = Self.pair(Self.module, [2, 8], [8, 2])
    #expect(try Self.report(good).applied == 1)
    // Another width, as a LoRA of SDXL has.
    Self.expectError(Self.pair(Self.module, [2, 32], [8, 2]), says: "a.safetensors", "lora_down", "[2, 32]", "[8, 8]")
    Self.expectError(Self.pair(Self.module, [2, 8], [16, 2]), says: "lora_up", "[16, 2]")
    Self.expectError(Self.pair(Self.module, [3, 8], [8, 2]), says: "lora_down")
    Self.expectError([Self.module + ".lora_down.weight": Tensor(repeating: 1, shape: [2, 8])], says: Self.module, "has no lora_up")
    // The same layer under two names.
    let peft = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    let both = good.merging(Self.pair(peft, [2, 8], [8, 2])) { $1 }
    Self.expectError(both, says: "a.safetensors", "attn1.to_q twice", Self.module, peft)
    // Nothing has a place.
    let foreign = "lora_unet_double_blocks_0_img_attn_qkv"
    Self.expectError(Self.pair(foreign, [2, 8], [8, 2]), says: "0 of 1", foreign, "unet.down_blocks.0", "text_encoder.")
    Self.expectError(["conv_in.weight": Tensor(repeating: 1, shape: [2, 8])], says: "is no adapter", "conv_in.weight")
    // Not numbers.
    var damaged = good
    damaged[Self.module + ".lora_up.weight"] = Tensor(repeating: .nan, shape: [8, 2])
    Self.expectError(damaged, says: "a.safetensors", "lora_up", "not numbers")
    damaged = good
    damaged[Self.module + ".alpha"] = Tensor(repeating: 1, shape: [2])
    Self.expectError(damaged, says: "alpha", "a number")
    Self.expectError(good, metadata: ["lora_adapter_metadata": "[1]"], says: "no JSON object")
    for (pattern, part) in [(#"{"(a": 1}"#, "(a in its alpha_pattern"), (#"{"a": "b"}"#, "without numbers"), ("[1]", "patterns is none")] {
      Self.expectError(good, metadata: ["lora_adapter_metadata": #"{"alpha_pattern": \#(pattern)}"#], says: part)
    }
    Self.expectError(good, metadata: ["lora_adapter_metadata": #"{"feedforward_modules": "["}"#], says: "regular expression")
    let lokr = ["lokr_w1": Tensor(repeating: 1, shape: [3, 2]), "lokr_w2": Tensor(repeating: 1, shape: [4, 4])]
    Self.expectError(Dictionary(uniqueKeysWithValues: lokr.map { (Self.module + "." + $0.key, $0.value) }), says: "lokr_w1", "[3, 2]")
    Self.expectError(
      [Self.module + ".hada_w1_a": Tensor(shape: [8, 0]), Self.module + ".hada_w1_b": Tensor(shape: [0, 8])], says: "hada_w1_a")
  }

  @Test func whatIsLeftOverIsTold() throws {
    let folder = try TemporaryFolder()
    let file = folder.url.appending(path: "a.safetensors")
    var tensors = Self.pair(Self.module, [2, 8], [8, 2]).merging(
      Self.pair("lora_te2_text_model_encoder_layers_0_mlp_fc1", [2, 8], [8, 2])
    ) { $1 }
    // A layer without a bias.
    tensors[Self.module + ".diff_b"] = Tensor(repeating: 1, shape: [8])
    try SafetensorsWriter.write(tensors, to: file)
    let model = try DiffusionModel.load(from: Self.model, adapters: [AdapterUse(Adapter(contentsOf: file))])
    let report = try #require(model.adapterReports.first)
    #expect(report.applied == 1 && report.count == 2 && report.unused.count == 3)
    #expect(model.warnings == [.adapter(report)] && model.warnings[0].description.contains("1 of 2 changes are applied"))
  }

  @Test func aWeightMustBeANumberAndAnAdaptationBelongsToItsModel() async throws {
    let adapter = try Self.adapter("kohya"), model = try DiffusionModel.load(from: Self.model)
    #expect(throws: AdapterError.badWeight(path: adapter.url.path(percentEncoded: false))) {
      try model.adaptation(by: [AdapterUse(adapter, weight: .nan)])
    }
    let other = try DiffusionModel.load(from: Self.model)
    let adaptation = try model.adaptation(by: [AdapterUse(adapter)]).adaptation
    await #expect(throws: GenerationError.foreignAdaptation) { try await Self.latents(of: other, adaptation) }
  }
}
