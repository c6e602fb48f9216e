import EmojiModel
import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// A model in another form, written or converted at loading, is the same model as far as its form goes.
@Suite struct ModelConversionTests {
  private let context = ExecutionContext(threads: 2)

  /// A place for what a test makes; it goes with the value.
  private final class Place {
    let url = FileManager.default.temporaryDirectory.appending(path: "conversion-" + UUID().uuidString, directoryHint: .isDirectory)
    init() throws { try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true) }
    deinit { try? FileManager.default.removeItem(at: url) }
    func file(_ name: String) -> URL { url.appending(path: name) }
    var names: [String] { get throws { try FileManager.default.contentsOfDirectory(atPath: url.path).sorted() } }
  }

  private func picture(_ model: StableDiffusion, _ prompt: String, seed: UInt64, steps: Int? = nil) async throws -> Tensor {
    var request = model.request(Prompt(prompt), seed: seed)
    request.steps = steps ?? request.steps
    return try #require(try await model.pipeline.images(for: request, in: context).first).image
  }

  private func decibels(_ found: Tensor, _ expected: Tensor) -> Float {
    let squares = zip(found.elements, expected.elements).reduce(0) { $0 + Double(($1.0 - $1.1) * ($1.0 - $1.1)) }
    return Float(10 * log10(Double(expected.count) / squares))
  }

  /// Pictures of 0…1, so a decibel is counted from an error of 1.
  @Test(arguments: [(WeightForm.float32, Float.infinity), (.float16, .infinity), (.bfloat16, 40), (.q8, 30)])
  func theEmbeddedModelDrawsTheSamePictures(_ form: WeightForm, _ least: Float) async throws {
    let place = try Place()
    let folder = try EmojiModel.folder()
    let conversion = try ModelFiles.open(folder).convert(to: form, at: place.file("model"), in: context)
    let original = try StableDiffusion.load(from: folder, in: context)
    let written = try StableDiffusion.load(from: place.file("model"), in: context)
    let held = try StableDiffusion.load(from: folder, weights: form, in: context)
    #expect(written.defaults == original.defaults && written.reports.values.allSatisfy { $0.unused.isEmpty })
    for (seed, prompt) in ["a red apple", "blue heart", "grinning face"].enumerated() {
      let expected = try await picture(original, prompt, seed: UInt64(seed))
      let found = try await picture(written, prompt, seed: UInt64(seed))
      #expect(try await picture(held, prompt, seed: UInt64(seed)).elements == found.elements)
      let decibels = decibels(found, expected)
      print("\(form.rawValue), \(prompt): \(decibels) dB; \(conversion.bytesWritten) of \(conversion.bytesRead) bytes")
      #expect(decibels >= least)
    }
  }

  private func weightFiles(_ folder: URL) throws -> [String: Data] {
    var files: [String: Data] = [:]
    for component in ["text_encoder", "unet", "vae"] {
      for name in try FileManager.default.contentsOfDirectory(atPath: folder.appending(path: component).path) {
        guard name.hasSuffix(".safetensors") else { continue }
        files["\(component)/\(name)"] = try Data(contentsOf: folder.appending(path: "\(component)/\(name)"))
      }
    }
    return files
  }

  /// Widening is exact: half precision comes back, byte for byte, with names, metadata and order.
  @Test func thereAndBackIsTheSameFile() throws {
    let place = try Place()
    let folder = try EmojiModel.folder()
    try ModelFiles.open(folder).convert(to: .float32, at: place.file("wide"), in: context)
    try ModelFiles.open(place.file("wide")).convert(to: .float16, at: place.file("back"), in: context)
    let original = try weightFiles(folder)
    #expect(original.count == 3)
    #expect(try weightFiles(place.file("back")) == original)
    #expect(
      try weightFiles(place.file("wide"))["unet/diffusion_pytorch_model.safetensors"]
        != original["unet/diffusion_pytorch_model.safetensors"])
  }

  /// Shards become one file, old names stay, and the picture does not change.
  @Test(arguments: ["sd1", "sd2", "inpaint9", "edit8", "lcm", "odd"]) func tinyModelsKeepTheirWeights(_ name: String) throws {
    let place = try Place()
    let original = try ModelFiles.open(ReferenceModel(name).folder)
    var seen: [String] = []
    let made = try original.convert(to: .float32, at: place.file("model"), in: context) { seen.append($0) }
    #expect(seen == original.components && made.leftOut.isEmpty)
    let converted = try ModelFiles.open(place.file("model"))
    for component in ["text_encoder", "unet", "vae"] {
      let (before, after) = (try weights(original, component), try weights(converted, component))
      #expect(before.names == after.names)
      for (name, stored) in before.tensors where stored.elementType != "I64" {
        let wide = try after.tensor(name, shape: stored.shape)
        let values = try before.tensor(name, shape: stored.shape).decoded().elements
        #expect(wide.elementType == .float32 && wide.decoded().elements == values, "\(name)")
      }
    }
    #expect(try weightFiles(place.file("model")).count == 3)
    if name == "inpaint9" {
      let text = try SafetensorsFile(place.file("model/text_encoder/model.safetensors"))
      #expect(text.names.contains { $0.hasPrefix("text_model.") } && text.tensors.values.contains { $0.elementType == "I64" })
    }
    _ = try StableDiffusion.load(from: place.file("model"), in: context)
  }

  private func weights(_ files: ModelFiles, _ component: String) throws -> WeightTable {
    try #require(try files.weights(of: component) as? WeightTable)
  }

  /// What 8 bits are for, and what keeps 16.
  @Test func quantisesWhatBearsIt() throws {
    let place = try Place()
    try ModelFiles.open(EmojiModel.folder()).convert(to: .q8, at: place.file("model"), in: context)
    let files = try ModelFiles.open(place.file("model"))
    #expect(try weights(files, "vae").tensors.values.allSatisfy { $0.elementType == "F16" })
    for component in ["text_encoder", "unet"] {
      for (name, tensor) in try weights(files, component).tensors {
        let isFragile = ["conv_in.", "conv_out.", "time_embedding.", "embeddings."].contains { name.hasPrefix($0) }
        let fits = tensor.shape.rank > 1 && tensor.shape[1] % 32 == 0
        #expect(tensor.elementType == (fits && !isFragile ? "Q8_0" : "F16"), "\(component) \(name) \(tensor.shape)")
      }
    }
    // Again, and nothing changes.
    try files.convert(to: .q8, at: place.file("again"), in: context)
    #expect(try weightFiles(place.file("again")) == weightFiles(place.file("model")))
    let report = try StableDiffusion.inspect(place.file("model"), in: context)
    #expect(report.components.allSatisfy { $0.problem == nil })
    #expect(report.parameters == (try StableDiffusion.inspect(EmojiModel.folder(), in: context).parameters))
  }

  // MARK: single files

  /// A single file with wider layers, so that there is something to quantise.
  private func checkpoint(in place: Place) throws -> URL {
    let original = try SafetensorsFile(fixtures.appending(path: "weights/sd1.safetensors"))
    var tensors = try original.tensors.filter { $0.value.elementType != "I64" }.reduce(into: [String: WeightTensor]()) { all, entry in
      all[entry.key] = try original.tensor(entry.key, shape: entry.value.shape)
    }
    let source = RandomWeights(seed: 1)
    for name in ["input_blocks.1.0.in_layers.2", "input_blocks.0.0", "out.2", "time_embed.0", "input_blocks.1.0.emb_layers.1"] {
      let key = "model.diffusion_model.\(name).weight"
      tensors[key] = try source.tensor(key, shape: tensors[key]?.shape.rank == 2 ? [8, 64] : [8, 32, 3, 3])
    }
    tensors["first_stage_model.encoder.conv_in.weight"] = try source.tensor("v", shape: [8, 32, 3, 3])
    tensors["model_ema.decay"] = WeightTensor(Tensor([1e6]))
    let file = place.file("model.safetensors")
    try SafetensorsWriter.write(tensors, metadata: ["format": "pt", "note": "kept"], to: file)
    return file
  }

  @Test func singleFilesStaySingleFiles() throws {
    let place = try Place()
    let url = try checkpoint(in: place)
    for form in WeightForm.allCases {
      let target = place.file("\(form.rawValue).safetensors")
      try ModelFiles.open(url).convert(to: form, at: target, in: context)
      let (before, after) = (try SafetensorsFile(url), try SafetensorsFile(target))
      #expect(before.names == after.names && before.metadata == after.metadata)
      #expect(try ModelFiles.open(target).components == ModelFiles.open(url).components)
      // What belongs to no component stays.
      #expect(try after.tensor("model_ema.decay", shape: [1]).decoded().elements == [1e6])
      let blocks = form == .q8 ? "Q8_0" : "Q4_0"
      let quantised = after.tensors.filter { $0.value.elementType == blocks }.keys.filter { before.tensors[$0]?.elementType == "F32" }
        .sorted()
      let names = ["emb_layers.1", "in_layers.2"].map { "model.diffusion_model.input_blocks.1.0.\($0).weight" }
      if form == .q8 || form == .q4 {
        #expect(names.allSatisfy { quantised.contains($0) })
        #expect(
          !quantised.contains {
            $0.contains("input_blocks.0.0") || $0.contains("out.2") || $0.contains("time_embed.") || $0.hasPrefix("first_stage")
          })
      } else {
        #expect(after.tensors[names[0]]?.elementType == (form == .float32 ? "F32" : form == .float16 ? "F16" : "BF16"))
      }
    }
    let back = place.file("back.safetensors")
    try ModelFiles.open(place.file("f16.safetensors")).convert(to: .float32, at: place.file("wide.safetensors"), in: context)
    try ModelFiles.open(place.file("wide.safetensors")).convert(to: .float16, at: back, in: context)
    #expect(try Data(contentsOf: back) == Data(contentsOf: place.file("f16.safetensors")))
  }

  // MARK: what goes wrong

  @Test func copiesWhatIsNoWeights() throws {
    let place = try Place()
    let model = try ModelCopy()
    for name in [
      "LICENSE", "v1-5.ckpt", ".hidden", "other.safetensors", "unet/notes.md", "unet/x.bin",
      "unet/diffusion_pytorch_model.fp16.safetensors",
    ] {
      try model.write("text", to: name)
    }
    try FileManager.default.createDirectory(at: model.folder.appending(path: "reference"), withIntermediateDirectories: true)
    try model.set("safety_checker", "[\"stable_diffusion\", \"StableDiffusionSafetyChecker\"]", in: "model_index.json")
    try FileManager.default.createDirectory(at: model.folder.appending(path: "safety_checker"), withIntermediateDirectories: true)
    try model.write("{}", to: "safety_checker/config.json")
    try model.write("x", to: "safety_checker/pytorch_model.bin")
    let made = try ModelFiles.open(model.folder).convert(to: .bfloat16, at: place.file("m"), in: context)
    #expect(made.leftOut == ["safety_checker"])
    func names(_ path: String) throws -> [String] {
      try FileManager.default.contentsOfDirectory(atPath: place.file("m/" + path).path).sorted()
    }
    #expect(
      try names("") == ["LICENSE", "model_index.json", "safety_checker", "scheduler", "text_encoder", "tokenizer", "unet", "vae"])
    #expect(try names("unet") == ["config.json", "diffusion_pytorch_model.safetensors", "notes.md"])
    #expect(try names("safety_checker") == ["config.json"])
  }

  @Test func leavesNothingWhereItFails() throws {
    let place = try Place()
    let target = place.file("made")
    func fails<Problem: Error & Equatable>(_ model: ModelCopy, _ form: WeightForm, _ expected: Problem) throws {
      #expect(throws: expected) { try ModelFiles.open(model.folder).convert(to: form, at: target, in: context) }
      #expect(try place.names.isEmpty)
    }
    let (unet, key) = ("unet/diffusion_pytorch_model.safetensors", "mid_block.resnets.0.conv1.bias")
    let large = try ModelCopy()
    try large.editTensors(unet) { $0[key] = Tensor(repeating: 70_000, shape: [12]) }
    try fails(large, .float16, WeightError.outOfRange(name: key, type: .float16))
    try fails(large, .q8, WeightError.outOfRange(name: key, type: .float16))
    try ModelFiles.open(large.folder).convert(to: .bfloat16, at: place.file("b"), in: context)
    try FileManager.default.removeItem(at: place.file("b"))
    let error = #expect(throws: WeightErrors.self) { try StableDiffusion.load(from: large.folder, weights: .float16, in: context) }
    #expect(error?.problems == [.outOfRange(name: key, type: .float16)])
    let broken = try ModelCopy()
    let wide = "up_blocks.1.attentions.0.transformer_blocks.0.ff.net.2.weight"
    try broken.editTensors(unet) { $0[wide] = $0[wide].map { Tensor(repeating: .nan, shape: $0.shape) } }
    try fails(broken, .q8, WeightError.notFinite(name: wide))
    let incomplete = try ModelCopy()
    try incomplete.remove("vae")
    let path = incomplete.folder.appending(path: "vae", directoryHint: .isDirectory).path(percentEncoded: false)
    try fails(incomplete, .float16, ModelFilesError.missingComponent(name: "vae", path: path))
  }

  @Test func refusesPlacesThatAreTaken() throws {
    let place = try Place()
    let files = try ModelFiles.open(ReferenceModel("sd1").folder)
    for url in [place.url, ReferenceModel("sd1").folder] {
      #expect(throws: FileWriteError.self) { try files.convert(to: .float16, at: url, in: context) }
    }
    try Data("mine".utf8).write(to: place.file("x"))
    #expect(throws: FileWriteError.exists(path: place.file("x").path)) { try files.convert(to: .float16, at: place.file("x"), in: context) }
    #expect(throws: FileWriteError.self) { try files.convert(to: .float16, at: place.file("none/x"), in: context) }
    let single = try ModelFiles.open(checkpoint(in: place))
    #expect(throws: FileWriteError.exists(path: place.file("x").path)) { try single.convert(to: .q8, at: place.file("x"), in: context) }
    #expect(try place.names == ["model.safetensors", "x"] && Data(contentsOf: place.file("x")) == Data("mine".utf8))
  }

  @Test func cancellationLeavesNothing() throws {
    let place = try Place()
    let context = ExecutionContext(threads: 1)
    #expect(throws: CancellationError.self) {
      try ModelFiles.open(EmojiModel.folder()).convert(to: .q8, at: place.file("m"), in: context) { if $0 == "unet" { context.cancel() } }
    }
    #expect(try place.names.isEmpty)
  }
}
