import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Models in GGUF files: whole ones as stable-diffusion.cpp has them, and U-Nets alone as ComfyUI-GGUF has them.
@Suite struct GGUFModelTests {
  private let context = ExecutionContext(threads: 2)
  private let folder = fixtures.appending(path: "weights")

  /// A file's tensors below a prefix, as a whole model has them.
  private struct Prefixed: TensorFile {
    let file: any TensorFile
    var url: URL { file.url }
    var metadata: [String: String] { file.metadata }
    let table: WeightTable

    init(_ file: any TensorFile, _ prefix: String) {
      self.file = file
      table = WeightTable(Dictionary(uniqueKeysWithValues: file.tensors.map { (prefix + $0, $1) }))
    }
  }

  /// Blocks of ten kinds in one network, those of 256 values across rows, against diffusers with the blocks' values.
  @Test(.compares("GGUF: a U-Net of ten kinds of blocks", in: .files, with: "diffusers", "gguf")) func aNetworkOfBlocksAgreesWithDiffusers()
    throws
  {
    let file = Prefixed(try GGUFFile(folder.appending(path: "gguf-comfy.gguf")), "model.diffusion_model.")
    let reference = try SafetensorsFile(folder.appending(path: "gguf-comfy.safetensors"))
    func expected(_ key: String) throws -> Tensor { try reference.tensor(key, shape: #require(reference.tensors[key]).shape).decoded() }
    let layouts = ModelRegistry.standard.families.compactMap(\.checkpointLayout)
    let checkpoint = try #require(try layouts.lazy.compactMap { try $0.checkpoint(of: file) }.first)
    let component = try #require(checkpoint.components["unet"])
    for residency in [WeightResidency.packed, .streamed(above: 0)] {
      let (unet, report) = try LoadReport.load(from: #require(component.table), residency: residency, in: context) {
        try UNet2DConditionModel(UNet2DConfiguration(json: component.configuration), weights: $0)
      }
      #expect(report.unused.isEmpty)
      let found = try unet.predict(
        expected("latents").channelsLast(), timestep: 321, conditioning: Conditioning(hiddenStates: expected("states")), in: context)
      expectClose(found.channelsFirst(), try expected("prediction"), tolerance: 1e-4, "prediction")
      print("\(residency): \(compare(found.channelsFirst().elements, try expected("prediction").elements))")
    }
  }

  /// The same numbers under the same names as in the safetensors file, without any metadata.
  @Test func aWholeModelIsTheSameModel() throws {
    let original = try ModelFiles.open(folder.appending(path: "sd1.safetensors"))
    let files = try ModelFiles.open(folder.appending(path: "gguf-whole.gguf"))
    #expect(files.layout == .singleFile && files.components == original.components && files.className == original.className)
    for component in ["unet", "vae", "text_encoder"] {
      #expect(try files.configuration(of: component) == original.configuration(of: component))
      let (found, expected) = (try files.weights(of: component), try original.weights(of: component))
      #expect(found.names == expected.names)
      for name in expected.names {
        let tensor = try expected.tensor(name, shape: shape(name, component, original))
        #expect(try found.tensor(name, shape: tensor.shape).data == tensor.data, "\(name)")
      }
    }
    let report = try StableDiffusion.inspect(folder.appending(path: "gguf-whole.gguf"))
    #expect(report.problem == nil && report.components.allSatisfy { $0.missing?.isEmpty ?? true })
  }

  private func shape(_ name: String, _ component: String, _ files: ModelFiles) throws -> Shape {
    let extents = try files.extents(of: component, as: nil)
    return try #require(extents.first { $0.name == name }).shape
  }

  /// What is written is read back: the same values in half precision, and in blocks those of the conversion.
  @Test(arguments: [WeightForm.float32, .float16, .q8, .q4]) func conversionsComeBack(_ form: WeightForm) throws {
    let place = try TemporaryFolder(), source = folder.appending(path: "sd1.safetensors")
    let (written, direct) = (place.url.appending(path: "model.gguf"), place.url.appending(path: "model.safetensors"))
    let made = try ModelFiles.open(source).convert(to: form, at: written, in: context)
    try ModelFiles.open(source).convert(to: form, at: direct, in: context)
    #expect(try Data(contentsOf: written).count == made.bytesWritten)
    let (found, expected) = (try GGUFFile(written), try SafetensorsFile(direct))
    #expect(found.names == expected.names && found.metadata == expected.metadata)
    for (name, tensor) in expected.tensors {
      let values = try found.tensor(name, shape: tensor.shape).decoded()
      #expect(try values.elements == expected.tensor(name, shape: tensor.shape).decoded().elements, "\(name)")
    }
    // And back to safetensors.
    let back = place.url.appending(path: "back.safetensors")
    try ModelFiles.open(written).convert(to: form, at: back, in: context)
    #expect(try Data(contentsOf: back) == Data(contentsOf: direct))
  }

  /// A folder whose components' weights are GGUF files draws as one with safetensors files does, and becomes one again.
  @Test(arguments: [WeightForm.float32, .float16, .q8]) func foldersComeBack(_ form: WeightForm) async throws {
    let place = try TemporaryFolder(), source = ReferenceModel("sd2").folder
    let (written, direct, back) = (
      place.url.appending(path: "gguf"), place.url.appending(path: "direct"), place.url.appending(path: "back")
    )
    let made = try DiffusionModel.convert(source, to: form, as: .gguf, at: written, in: context)
    try DiffusionModel.convert(source, to: form, at: direct, in: context)
    let files = ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"]
    var bytes = 0
    for file in files {
      let (found, expected) = (
        try GGUFFile(written.appending(path: file + ".gguf")), try SafetensorsFile(direct.appending(path: file + ".safetensors"))
      )
      #expect(found.names == expected.names && !found.names.isEmpty)
      bytes += try Data(contentsOf: found.url).count
    }
    #expect(made.bytesWritten == bytes)
    let models = try [written, direct].map { try DiffusionModel.load(from: $0, in: context) }
    #expect(models[0].warnings == [] && models[0].reports.values.allSatisfy { $0.unused.isEmpty })
    // Kernels are not in blocks in GGUF files.
    guard form != .q8 else { return }
    #expect(try await latents(of: models[0]) == latents(of: models[1]))
    try DiffusionModel.convert(written, to: form, at: back, in: context)
    for file in files.map({ $0 + ".safetensors" }) {
      #expect(try Data(contentsOf: back.appending(path: file)) == Data(contentsOf: direct.appending(path: file)), "\(file)")
    }
  }

  private func latents(of model: DiffusionModel) async throws -> [Float] {
    var request = model.request("a cat", seed: 2)
    (request.steps, request.width, request.height) = (2, 16, 16)
    return try #require(try await model.pipeline.images(for: request, in: context).first).latents.elements
  }

  /// A folder's GGUF file is taken where there is nothing that diffusers would take, under the names that such files have.
  @Test func aFolderTakesWhatItHas() async throws {
    let copy = try ModelCopy("sd1"), usual = "unet/diffusion_pytorch_model.safetensors"
    let expected = try await latents(of: .load(from: copy.folder, in: context))
    let place = try TemporaryFolder()
    try DiffusionModel.convert(copy.folder, to: .float16, as: .gguf, at: place.url.appending(path: "gguf"), in: context)
    for name in ["diffusion_pytorch_model.gguf", "diffusion_pytorch_model-F16.gguf", "model.F16.gguf"] {
      let file = copy.folder.appending(path: "unet/" + name)
      try FileManager.default.copyItem(at: place.url.appending(path: "gguf/unet/diffusion_pytorch_model.gguf"), to: file)
      #expect(
        try ModelFiles.open(copy.folder).weights(of: "unet").origin(of: "conv_in.weight") == .file(copy.folder.appending(path: usual)))
      try FileManager.default.moveItem(at: copy.folder.appending(path: usual), to: place.url.appending(path: "kept"))
      #expect(try await latents(of: .load(from: copy.folder, in: context)) == expected, "\(name)")
      // A conversion gives it the usual name again.
      let converted = place.url.appending(path: "converted")
      try DiffusionModel.convert(copy.folder, to: .float16, at: converted, in: context)
      let named = name.hasPrefix("model") ? "unet/model.safetensors" : usual
      #expect(FileManager.default.fileExists(atPath: converted.appending(path: named).path), "\(name)")
      try FileManager.default.removeItem(at: converted)
      try FileManager.default.moveItem(at: place.url.appending(path: "kept"), to: copy.folder.appending(path: usual))
      try FileManager.default.removeItem(at: file)
    }
  }

  /// Matrices get blocks, and kernels keep 16 bits; blocks of every kind can be converted.
  @Test func blocksAreWritten() throws {
    let place = try TemporaryFolder(), context = context
    var numbers = Numbers(seed: 3)
    let tensors = try SafetensorsFile(folder.appending(path: "sd1.safetensors"))
    var all = try tensors.tensors.filter { $0.value.elementType != "I64" }.reduce(into: [String: WeightTensor]()) { all, entry in
      all[entry.key] = try tensors.tensor(entry.key, shape: entry.value.shape)
    }
    let (matrix, kernel) = ("model.diffusion_model.more.weight", "model.diffusion_model.kernel.weight")
    all[matrix] = WeightTensor(numbers.tensor([8, 64]))
    all[kernel] = WeightTensor(numbers.tensor([8, 32, 3, 3]))
    let source = place.url.appending(path: "a.safetensors"), target = place.url.appending(path: "a.gguf")
    try SafetensorsWriter.write(all, to: source)
    try ModelFiles.open(source).convert(to: .q4, at: target, in: context)
    let found = try GGUFFile(target)
    #expect(found.tensors[matrix]?.elementType == "Q4_0" && found.tensors[kernel]?.elementType == "F16")
    #expect(try found.tensor(matrix, shape: [8, 64]).data == all[matrix]?.converted(to: .q4).data)
    let wide = place.url.appending(path: "b.safetensors")
    try ModelFiles.open(target).convert(to: .q4, at: wide, in: context)
    let again = try SafetensorsFile(wide)
    #expect(again.tensors[matrix]?.elementType == "Q4_0" && again.tensors[kernel]?.elementType == "Q4_0")
    #expect(try again.tensor(matrix, shape: [8, 64]).data == found.tensor(matrix, shape: [8, 64]).data)
  }

  @Test func whatIsRefused() throws {
    let place = try TemporaryFolder(), target = place.url.appending(path: "x.gguf")
    let alone = #expect(throws: ModelFilesError.self) { try ModelFiles.open(folder.appending(path: "gguf-comfy.gguf")) }
    #expect(alone.map { "\($0)" }?.contains("a U-Net alone") == true)
    var tensors = try GGUFFile(folder.appending(path: "gguf-whole.gguf")).tensors.mapValues {
      try #require(try? WeightTable(["a": $0]).tensor("a", shape: $0.shape))
    }
    tensors["flags"] = WeightTensor(shape: [2], elementType: try #require(NumberFormat(named: "BOOL")), data: Data([0, 1]))
    let file = place.url.appending(path: "x.safetensors")
    try SafetensorsWriter.write(tensors, to: file)
    let type = #expect(throws: GGUFError.self) { try ModelFiles.open(file).convert(to: .float16, at: target, in: context) }
    #expect(type?.description.contains("flags") == true && type?.description.contains("BOOL") == true)
    #expect(!FileManager.default.fileExists(atPath: target.path))
  }
}
