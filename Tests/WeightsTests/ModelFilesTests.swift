import Foundation
import Tensor
import LatentDiffusionTestSupport
import Testing
import LatentDiffusionWeights

@Suite struct ModelFilesTests {
  private let models = fixtures.appending(path: "models")

  @Test func readsDiffusersFolders() throws {
    let files = try ModelFiles(models.appending(path: "sd1"))
    #expect(files.layout == .diffusers)
    #expect(files.className == "StableDiffusionPipeline")
    #expect(files.components == ["scheduler", "text_encoder", "tokenizer", "unet", "vae"])
    #expect(files.className(of: "scheduler") == "PNDMScheduler")
    #expect(files.className(of: "safety_checker") == nil)
    #expect(try JSONValue.of(files, "unet")["block_out_channels"] == .list([.number(8), .number(8), .number(12)]))
    #expect(try JSONValue.of(files, "scheduler")["steps_offset"] == .number(1))
    #expect(try JSONValue.of(files, "tokenizer")["model_max_length"] == .number(24))
    #expect(files.file("tokenizer", "merges.txt") != nil)
    #expect(files.file("tokenizer", "../model_index.json") == nil)
    #expect(files.file("tokenizer", "none") == nil)
    #expect(files.file("none", "config.json") == nil)
    #expect(try files.generationDefaults == nil)
    #expect(throws: ModelFilesError.noSuchComponent(name: "none", model: files.url.path)) { try files.configuration(of: "none") }
    #expect(throws: ModelFilesError.noSuchComponent(name: "..", model: files.url.path)) { try files.weights(of: "..") }
  }

  /// Old names and new ones are one thing: the same model saved by older versions answers to the same names.
  @Test func oldNamesAnswerAsNewOnes() throws {
    let (old, new) = (try ModelFiles(models.appending(path: "inpaint9")), try ModelFiles(models.appending(path: "edit8")))
    let oldVAE = try old.weights(of: "vae").names
    #expect(oldVAE == (try new.weights(of: "vae").names))
    let file = models.appending(path: "inpaint9/vae/diffusion_pytorch_model.safetensors")
    #expect(try SafetensorsFile(file).names.contains("decoder.mid_block.attentions.0.proj_attn.weight"))
    let text = try old.weights(of: "text_encoder")
    #expect(text.names.contains("encoder.layers.0.self_attn.q_proj.weight") && !text.names.contains { $0.contains("position_ids") })
    #expect(text.names.isSuperset(of: try new.weights(of: "text_encoder").names))
    let original = try SafetensorsFile(models.appending(path: "inpaint9/text_encoder/model.safetensors"))
    for name in text.names {
      let stored = try #require(original.tensors["text_model." + name])
      #expect(try text.tensor(name, shape: stored.shape).data == stored.data)
    }
  }

  @Test func convolutionsOfOldAutoencodersBecomeMatrices() throws {
    let temporary = try TemporaryFolder()
    try temporary.write("model_index.json", "{\"vae\":[\"diffusers\",\"AutoencoderKL\"]}")
    let kernel = try RandomWeights(seed: 3).tensor("x", shape: [4, 4, 1, 1])
    let tensors = ["decoder.mid_block.attentions.0.query.weight": kernel, "quant_conv.weight": kernel]
    try temporary.write("vae/diffusion_pytorch_model.safetensors", SafetensorsWriter.encode(tensors))
    let weights = try ModelFiles(temporary.url).weights(of: "vae")
    #expect(try weights.tensor("decoder.mid_block.attentions.0.to_q.weight", shape: [4, 4]).data == kernel.data)
    #expect(try weights.tensor("quant_conv.weight", shape: [4, 4, 1, 1]).data == kernel.data)
  }

  // MARK: which file

  private func folder(_ names: [String: Float], more: [String] = []) throws -> TemporaryFolder {
    let temporary = try TemporaryFolder()
    try temporary.write("model_index.json", "{\"_class_name\":\"X\",\"unet\":[\"diffusers\",\"UNet2DConditionModel\"],\"y\":[null,null]}")
    for (name, value) in names { try temporary.write("unet/\(name)", SafetensorsWriter.encode(["a": WeightTensor(Tensor([value]))])) }
    for name in more { try temporary.write("unet/\(name)", "{\"weight_map\":{\"a\":\"part.safetensors\"}}") }
    return temporary
  }

  @Test(arguments: [
    (["diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "model.safetensors"], [], 0),
    (["model.safetensors", "diffusion_pytorch_model.fp16.safetensors"], [], 0),
    (["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.non_ema.safetensors"], ["x.bin"], 0),
    (["model.fp16.safetensors"], ["model.bin"], 0), (["diffusion_pytorch_model.non_ema.safetensors"], [], 0),
    (["part.safetensors", "model.fp16.safetensors"], ["diffusion_pytorch_model.safetensors.index.json"], 0),
    (["part.safetensors"], ["diffusion_pytorch_model.safetensors.index.fp16.json"], 0),
    (["part.safetensors"], ["model.fp16.safetensors.index.json"], 0),
    (["part.safetensors"], ["diffusion_pytorch_model.safetensors.fp16.index.json"], 0),
    (["part.safetensors"], ["diffusion_pytorch_model.safetensors.index.bf16.json"], 0),
    (["diffusion_pytorch_model.fp16.non_ema.safetensors"], [], 0),
    // diffusers takes an index before a single file.
    (["part.safetensors", "diffusion_pytorch_model.safetensors"], ["diffusion_pytorch_model.safetensors.index.json"], 0),
    (["diffusion_pytorch_model.safetensors"], ["diffusion_pytorch_model.safetensors.index.fp16.json"], 0),
  ])
  func choosesTheWeights(_ names: [String], _ more: [String], _ expected: Int) throws {
    let values = Dictionary(uniqueKeysWithValues: names.enumerated().map { ($1, Float($0)) })
    let temporary = try folder(values, more: more)
    let weights = try ModelFiles(temporary.url).weights(of: "unet")
    #expect(try weights.tensor("a", shape: [1]).decoded().elements == [Float(expected)])
  }

  /// Small 16-bit components are widened; a tensor without elements, whose other extents can be anything, does not count.
  @Test func saysTheUsualForm() throws {
    func form(_ tensors: [String: WeightTensor]) throws -> WeightForm? {
      let temporary = try folder([:])
      try temporary.write("unet/model.safetensors", SafetensorsWriter.encode(tensors))
      return try ModelFiles(temporary.url).usualForm(of: "unet")
    }
    let wide = WeightTensor(Tensor([1])), half = WeightTensor(shape: [1], elementType: .float16, data: Data(count: 2))
    let large = WeightTensor(shape: [1 << 12, 1 << 11], elementType: .float16, data: Data(count: 1 << 24))
    let empty = WeightTensor(shape: [Int.max, 0], elementType: .float16, data: Data())
    #expect(try form(["a": wide, "b": half, "c": empty]) == .float32)
    #expect(try form(["a": wide, "c": empty]) == nil)
    #expect(try form(["b": half, "c": large]) == nil)
    let blocks = WeightTensor(shape: [1, 32], elementType: .q8, data: Data(count: 34))
    #expect(try form(["b": half, "c": blocks]) == nil)
  }

  /// transformers takes a single file before an index.
  @Test func textEncodersPreferASingleFile() throws {
    let temporary = try TemporaryFolder()
    try temporary.write("model_index.json", "{\"text_encoder\":[\"transformers\",\"CLIPTextModel\"]}")
    for (index, name) in ["model.safetensors", "diffusion_pytorch_model.safetensors", "part.safetensors"].enumerated() {
      try temporary.write("text_encoder/\(name)", SafetensorsWriter.encode(["a": WeightTensor(Tensor([Float(index)]))]))
    }
    try temporary.write("text_encoder/model.safetensors.index.json", "{\"weight_map\":{\"a\":\"part.safetensors\"}}")
    let weights = try ModelFiles(temporary.url).weights(of: "text_encoder")
    #expect(try weights.tensor("a", shape: [1]).decoded().elements == [0])
  }

  /// The index says which files belong together; what is in them counts, wherever the index says that it is.
  @Test func shardsAreReadAsAWhole() throws {
    let temporary = try folder(["a.safetensors": 1], more: [])
    let other = SafetensorsWriter.encode(["b": WeightTensor(Tensor([2])), "c": WeightTensor(Tensor([3]))])
    try temporary.write("unet/b.safetensors", other)
    let index = "{\"weight_map\":{\"a\":\"b.safetensors\",\"b\":\"a.safetensors\"}}"
    try temporary.write("unet/diffusion_pytorch_model.safetensors.index.json", index)
    let weights = try ModelFiles(temporary.url).weights(of: "unet")
    #expect(weights.names == ["a", "b", "c"])
    #expect(try weights.tensor("a", shape: [1]).decoded().elements == [1] && weights.tensor("c", shape: [1]).decoded().elements == [3])
  }

  @Test(arguments: [
    ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"), ("<!DOCTYPE html>\n<html>", "web page"),
    ("\n  <html lang=\"en\">", "web page"),
    ("PK\u{3}\u{4}\u{0}\u{0}\u{0}\u{0}{model.txt", "archive"), ("{\"a\": 1}", "JSON"), ("Rar!\u{1A}", "archive"),
  ])
  func namesOtherFiles(_ contents: String, _ words: String) throws {
    let temporary = try folder([:])
    let files = [
      try temporary.write("x.safetensors", contents), try temporary.write("unet/diffusion_pytorch_model.safetensors", contents),
    ]
    let alone = #expect(throws: SafetensorsError.self) { try ModelFiles(files[0]) }
    #expect(alone?.description.contains(words) == true && alone?.description.hasSuffix(".") == true, "\(String(describing: alone))")
    let component = #expect(throws: SafetensorsError.self) { try ModelFiles(temporary.url).weights(of: "unet") }
    #expect(component?.description.contains(words) == true, "\(String(describing: component))")
  }

  @Test(arguments: [
    (["unet/openvino_model.xml", "unet/openvino_model.bin"], "OpenVINO"), (["unet/model.onnx"], "ONNX"),
    (["unet/diffusion_flax_model.msgpack"], "Flax"), (["unet/x.gguf"], "GGUF"),
  ])
  func namesFoldersOfOtherPrograms(_ names: [String], _ word: String) throws {
    let temporary = try folder([:])
    for name in names { try temporary.write(name, "x") }
    #expect(try error(temporary)?.description.contains(word) == true)
  }

  @Test func namesFoldersWithoutAnIndex() throws {
    func sentence(_ files: [String: String]) throws -> String {
      let temporary = try TemporaryFolder()
      for (name, contents) in files { try temporary.write(name, contents) }
      return "\(String(describing: #expect(throws: ModelFilesError.self) { try ModelFiles(temporary.url) }))"
    }
    #expect(try sentence(["config.json": "{\"sample_size\": 8}"]).contains("model_index.json"))
    #expect(try sentence(["sd.safetensors": "x"]).contains("sd.safetensors"))
    #expect(try sentence(["text_encoder.mlmodelc": "x"]).contains("Core ML"))
  }

  /// The folder of one component is opened for itself.
  @Test func opensTheFolderOfAComponent() throws {
    for (json, className) in [
      ("{\"_class_name\": \"AutoencoderKL\"}", "AutoencoderKL"), ("{\"architectures\": [\"CLIPTextModel\"]}", "CLIPTextModel"),
    ] {
      let temporary = try TemporaryFolder()
      try temporary.write("part/config.json", json)
      let files = try ModelFiles(temporary.url.appending(path: "part"))
      #expect(files.layout == .component && files.components == ["part"] && files.className(of: "part") == className)
      #expect(try files.configuration(of: "part") == Data(json.utf8))
    }
  }

  private func error(_ temporary: TemporaryFolder) throws -> ModelFilesError? {
    let files = try ModelFiles(temporary.url)
    return #expect(throws: ModelFilesError.self) { try files.weights(of: "unet") }
  }

  @Test func saysWhichWeightsAreMissing() throws {
    let none = try folder([:], more: ["config.json"])
    #expect(try error(none) == .missingWeights(folder: none.url.path + "/unet/"))
    let part = try folder(["diffusion_pytorch_model-00001-of-00002.safetensors": 1])
    #expect(try error(part) == .missingWeights(folder: part.url.path + "/unet/"))
    let gone = try folder([:])
    #expect(try error(gone) == .missingComponent(name: "unet", path: gone.url.path + "/unet/"))
    try gone.write("unet", "a file")
    #expect(try error(gone) == .missingComponent(name: "unet", path: gone.url.path + "/unet/"))
  }

  @Test func followsLinks() throws {
    let real = try folder(["diffusion_pytorch_model.safetensors": 5])
    let linked = try TemporaryFolder()
    let manager = FileManager.default
    for name in ["model_index.json", "unet"] {
      try manager.createSymbolicLink(at: linked.url.appending(path: name), withDestinationURL: real.url.appending(path: name))
    }
    #expect(try ModelFiles(linked.url).weights(of: "unet").tensor("a", shape: [1]).decoded().elements == [5])
    try manager.removeItem(at: real.url.appending(path: "unet"))
    #expect(try error(linked) == .missingComponent(name: "unet", path: linked.url.path + "/unet/"))
  }

  // MARK: what is no model

  @Test func refusesWhatIsNoModel() throws {
    let temporary = try TemporaryFolder()
    let none = temporary.url.appending(path: "none")
    #expect(throws: ModelFilesError.notFound(path: none.path)) { try ModelFiles(none) }
    #expect(throws: ModelFilesError.notFound(path: none.path + "/a.safetensors")) {
      try ModelFiles(none.appending(path: "a.safetensors"))
    }
    #expect(throws: ModelFilesError.missingIndex(folder: temporary.url.path + "/")) { try ModelFiles(temporary.url) }
    let pickle = try temporary.write("sd.ckpt", "x")
    #expect(throws: PyTorchFileError.self) { try ModelFiles(pickle) }
    let onnx = try temporary.write("model.ONNX", "x")
    #expect("\(String(describing: #expect(throws: ModelFilesError.self) { try ModelFiles(onnx) }))".contains("an ONNX file"))
    let text = try temporary.write("notes.txt", "These are notes, and nothing else.")
    #expect(throws: SafetensorsError.self) { try ModelFiles(text) }
  }

  @Test(arguments: [
    "", "[]", "7", "{", "{}", "{\"unet\":[null,null]}", "{\"unet\":1e308}", "{\"../x\":[\"a\",\"b\"]}", "{\"a/b\":[\"a\",\"b\"]}",
    "{\"..\":[\"a\",\"b\"]}", String(repeating: "[", count: 100_000), String(repeating: "{\"a\":", count: 100_000),
  ])
  func refusesBadIndices(_ json: String) throws {
    let temporary = try TemporaryFolder()
    let index = try temporary.write("model_index.json", json)
    let error = #expect(throws: ModelFilesError.self) { try ModelFiles(temporary.url) }
    guard case .malformedIndex(index.path, _) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  /// Configurations that an attacker wrote end in an error of the layer that reads them, here in none at all.
  @Test(arguments: ["{\"in_channels\":1e308}", "{\"in_channels\":-1}", "{\"in_channels\":\"4\"}", "{\"in_channels\":[[[[]]]]}", "[]", ""])
  func reportsOnHostileConfigurations(_ json: String) throws {
    let temporary = try folder(["model.safetensors": 1])
    try temporary.write("unet/config.json", json)
    let report = InspectReport(try ModelFiles(temporary.url), family: "")
    #expect(report.components.map(\.parameters) == [1])
  }

  // MARK: the report

  @Test func reports() throws {
    let report = InspectReport(try ModelFiles(models.appending(path: "sd2")), family: "Stable Diffusion 2.x")
    #expect(report.family == "Stable Diffusion 2.x")
    #expect(report.predictionType == "v_prediction")
    #expect(report.components.map(\.name) == ["scheduler", "text_encoder", "tokenizer", "unet", "vae"])
    let unet = report.components[3]
    #expect(unet.files.count == 3)
    #expect(unet.elementTypes == ["F16": unet.tensors])
    #expect(unet.bytes == 2 * unet.parameters)
    #expect(report.bytesOnDisk > report.components.map(\.bytes).reduce(0, +))
    let json = try JSONEncoder().encode(report)
    #expect(try JSONDecoder().decode(InspectReport.self, from: json) == report)

    let empty = try folder([:])
    let broken = InspectReport(try ModelFiles(empty.url), family: "")
    #expect(broken.components.first?.problem?.contains("missing") == true)
  }
}

@Suite struct RandomWeightsTests {
  @Test(arguments: [NumberFormat.float32, .float16, .bfloat16, .q8]) func areTheSameForASeed(_ type: NumberFormat) throws {
    let weights = RandomWeights(seed: 5, elementType: type)
    let shape: Shape = [64, 32, 3, 3]
    let values = try weights.tensor("a.weight", shape: shape)
    #expect(values.elementType == type)
    #expect(try weights.tensor("a.weight", shape: shape).data == values.data)
    #expect(try weights.tensor("b.weight", shape: shape).data != values.data)
    #expect(try RandomWeights(seed: 6, elementType: type).tensor("a.weight", shape: shape).data != values.data)
    let elements = values.decoded().elements
    let variance = elements.map { $0 * $0 }.reduce(0, +) / Float(elements.count)
    #expect(abs(variance * 288 - 1) < 0.05)
    #expect(abs(elements.reduce(0, +) / Float(elements.count)) < 0.003)
    // The rounding of each type: the same numbers within half a unit in the last place.
    let exact = try RandomWeights(seed: 5).tensor("a.weight", shape: shape).decoded().elements
    let step: Float = [.float32: 0, .float16: 0x1p-11, .bfloat16: 0x1p-8][type] ?? 0
    // Of blocks: half of a scale, which is a 127th of the largest value at most.
    let least = type == .q8 ? (exact.map { abs($0) }.max() ?? 0) / 127 * 0.51 : 0x1p-25 * (step > 0 ? 1 : 0)
    for (a, b) in zip(exact, elements) { #expect(abs(a - b) <= abs(a) * step + least, "\(a) \(b)") }
    #expect(throws: WeightError.self) { try weights.tensor("x", shape: [Int.max, 2]) }
  }

  @Test func normsAreNearOne() throws {
    let scale = try RandomWeights(seed: 1).tensor("norm.weight", shape: [512]).decoded().elements
    #expect(scale.allSatisfy { (0.8...1.2).contains($0) })
    let bias = try RandomWeights(seed: 1).tensor("norm.bias", shape: [512]).decoded().elements
    #expect(bias.allSatisfy { abs($0) < 0.2 })
  }
}
