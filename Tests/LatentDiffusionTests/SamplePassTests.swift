import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Parts of models by themselves, on noise of the shapes that they take.
@Suite struct SamplePassTests {
  static let models = [
    "sd1", "sd2", "lcm", "odd", "inpaint9", "edit8", "depth5", "upscale7", "variation", "sdxl", "refiner",
    "unclip",
    "ldm", "ldm-class", "ldm-text",
  ].map(ReferenceModel.init)
  private let context = ExecutionContext(threads: 2)

  private func size(_ url: URL) throws -> PixelSize {
    let scale = try MemoryPlan.usualSize(of: url).scale
    return PixelSize(width: 8 * scale, height: 16 * scale)
  }

  @Test(arguments: models) func everyPartOfEveryFamilyRuns(_ model: ReferenceModel) throws {
    for work in [SamplePass.Work.prediction, .decoding, .encoding] {
      try SamplePass(work, of: model.folder, size: size(model.folder), rows: 2, in: context).run(in: context)
    }
  }

  @Test(arguments: ["sd1", "sdxl", "refiner", "ldm-text"].map(ReferenceModel.init)) func promptsAreRead(_ model: ReferenceModel) throws {
    try SamplePass(.conditioning("a cat"), of: model.folder, size: size(model.folder), rows: 2, in: context).run(in: context)
  }

  /// Weights that are no numbers are refused where they are read, and other parts do not read them.
  @Test func otherPartsAreNotRead() throws {
    for (broken, sound, work) in [
      ("unet", SamplePass.Work.decoding, SamplePass.Work.prediction), ("text_encoder", .prediction, .conditioning("a cat")),
      ("vae", .conditioning("a cat"), .encoding),
    ] {
      let copy = try ModelCopy()
      let file = try #require(
        try FileManager.default.contentsOfDirectory(atPath: copy.folder.appending(path: broken).path).first { $0.hasSuffix(".safetensors") }
      )
      try copy.editTensors("\(broken)/\(file)") { tensors in
        tensors = tensors.mapValues { Tensor(repeating: .nan, shape: $0.shape) }
      }
      let size = try size(copy.folder)
      try SamplePass(sound, of: copy.folder, size: size, in: context).run(in: context)
      #expect(throws: WeightErrors.self, "\(broken)") { try SamplePass(work, of: copy.folder, size: size, in: context) }
    }
  }

  @Test(arguments: [("sd1", "sd1"), ("sd2", "sd2"), ("sdxl", "sdxl"), ("sd1", "adapter")])
  func networksThatSteerRun(_ model: String, _ network: String) throws {
    let url = ReferenceModel(model).folder
    try SamplePass(.control(ControlCase.control(network)), of: url, size: size(url), rows: 2, in: context).run(in: context)
  }

  @Test func whatDoesNotFitIsRefused() throws {
    let url = ReferenceModel("sd1").folder
    func expectRefusal(_ size: PixelSize, rows: Int = 1) {
      #expect(throws: GenerationError.self) { try SamplePass(.decoding, of: url, size: size, rows: rows) }
    }
    expectRefusal(PixelSize(width: 31, height: 32))
    expectRefusal(PixelSize(width: 0, height: 32))
    expectRefusal(PixelSize(width: 1 << 40, height: 1 << 40))
    expectRefusal(PixelSize(width: 32, height: 32), rows: 0)
    #expect(throws: ComponentError.self) {
      try SamplePass(.control(ControlCase.control("sdxl")), of: url, size: PixelSize(width: 32, height: 32))
    }
  }
}
