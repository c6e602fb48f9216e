import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Models whose weights are pickles are the models that they are as safetensors.
@Suite struct PyTorchModelTests {
  private let pickles = fixtures.appending(path: "weights/pytorch")
  private let context = ExecutionContext(threads: 2)

  /// The folder of `lcm` with pickles in two of its components.
  private func folderOfPickles(vae: String = "diffusion_pytorch_model.bin", text: String = "pytorch_model.bin") throws -> ModelCopy {
    let model = try ModelCopy("lcm")
    try model.remove("vae/diffusion_pytorch_model.safetensors")
    try model.remove("text_encoder/model.safetensors")
    let manager = FileManager.default
    try manager.copyItem(at: pickles.appending(path: "lcm-vae.bin"), to: model.folder.appending(path: "vae/" + vae))
    try manager.copyItem(at: pickles.appending(path: "lcm-text.bin"), to: model.folder.appending(path: "text_encoder/" + text))
    return model
  }

  private func picture(_ url: URL) async throws -> [Float] {
    let model = try StableDiffusion.load(from: url, in: context)
    #expect(model.reports.values.allSatisfy { $0.unused.isEmpty })
    var request = model.request("a red apple", seed: 1)
    (request.steps, request.width, request.height) = (2, 64, 64)
    return try #require(try await model.pipeline.images(for: request, in: context).first).image.elements
  }

  @Test(arguments: [
    ("diffusion_pytorch_model.bin", "pytorch_model.bin"), ("diffusion_pytorch_model.fp16.bin", "pytorch_model.fp16.bin"),
  ])
  func aFolderDrawsTheSamePicture(_ vae: String, _ text: String) async throws {
    let original = ReferenceModel("lcm").folder
    let model = try folderOfPickles(vae: vae, text: text)
    let expected = try await picture(original)
    #expect(try await picture(model.folder) == expected)
    // Planned, and converted.
    let extent = GenerationExtent(size: PixelSize(width: 64, height: 64))
    let plan = try MemoryPlan(for: model.folder, extent)
    #expect(try plan.predictedPeakBytes == MemoryPlan(for: original, extent).predictedPeakBytes)
    let place = try TemporaryFolder()
    let target = place.url.appending(path: "converted")
    try ModelFiles.open(model.folder).convert(to: .float32, at: target, in: context)
    #expect(try await picture(target) == expected)
    let names = try ["vae", "text_encoder"].map {
      try FileManager.default.contentsOfDirectory(atPath: target.appending(path: $0).path).sorted()
    }
    #expect(names == [["config.json", "diffusion_pytorch_model.safetensors"], ["config.json", "model.safetensors"]])
  }

  /// diffusers takes safetensors where both are there, and a variant where there is nothing else.
  @Test func safetensorsAreTakenBeforePickles() throws {
    let model = try ModelCopy("lcm")
    try model.write("no pickle", to: "vae/diffusion_pytorch_model.bin")
    try model.write("no pickle", to: "text_encoder/pytorch_model.bin")
    let report = try StableDiffusion.inspect(model.folder, in: context)
    #expect(report.components.allSatisfy { $0.problem == nil })
    try model.remove("vae/diffusion_pytorch_model.bin")
    try FileManager.default.moveItem(
      at: model.folder.appending(path: "vae/diffusion_pytorch_model.safetensors"),
      to: model.folder.appending(path: "vae/diffusion_pytorch_model.fp16.safetensors"))
    #expect(try ModelFiles.open(model.folder).weights(of: "vae").names.isEmpty == false)
    try model.write("no pickle", to: "vae/diffusion_pytorch_model.bin")
    #expect(throws: PyTorchFileError.self) { try ModelFiles.open(model.folder).weights(of: "vae") }
  }

  @Test func aCheckpointIsInspectedAndConverted() throws {
    let url = pickles.appending(path: "sd1.ckpt")
    let (report, original) = (
      try StableDiffusion.inspect(url, in: context),
      try StableDiffusion.inspect(fixtures.appending(path: "weights/sd1.safetensors"), in: context)
    )
    #expect(report.className == "StableDiffusionPipeline" && report.parameters == original.parameters && report.leftOver == nil)
    // Two more tensors than the model has: an optimiser's and a callback's.
    #expect(report.ignoredTensors == original.ignoredTensors + 2)
    let place = try TemporaryFolder()
    let target = place.url.appending(path: "sd1.safetensors")
    try ModelFiles.open(url).convert(to: .float16, at: target, in: context)
    let (before, after) = (try PyTorchFile(url), try SafetensorsFile(target))
    #expect(before.names == after.names && after.metadata["global_step"] == "875000")
    for (name, tensor) in before.tensors where tensor.elementType == "F16" { #expect(after.tensors[name]?.data == tensor.data, "\(name)") }
  }
}
