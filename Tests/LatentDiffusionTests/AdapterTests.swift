import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// Adapters on a tiny model, against what diffusers and PEFT draw with them: `Tests/Fixtures/adapters/make_adapters.py`.
@Suite struct AdapterTests {
  private static let folder = fixtures.appending(path: "adapters")
  private static let model = ReferenceModel("sd1").folder
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
    #expect(relative < tolerance, "\(name), \(way): \(difference)")
    return relative
  }

  static let cases: [(name: String, file: String, weight: Double)] = [
    ("kohya", "kohya", 0.8), ("kohya", "original-names", 0.8), ("peft", "peft", 0.8), ("peft-dora", "peft-dora", 0.8), ("loha", "loha", 0.8),
    ("lokr", "lokr", 0.8), ("ia3", "ia3", 0.8), ("ia3-peft", "ia3-peft", 1), ("dora", "dora", 0.8), ("locon", "locon", 0.8),
  ]

  @Test(arguments: cases) func bothWaysDrawWhatTheReferenceDraws(_ given: (name: String, file: String, weight: Double)) async throws {
    let use = AdapterUse(try Self.adapter(given.file), weight: given.weight)
    let merged = try DiffusionModel.load(from: Self.model, adapters: [use])
    #expect(merged.adapterReports.allSatisfy { $0.applied == $0.count && $0.unused.isEmpty } && merged.warnings.isEmpty, "\(merged.warnings)")
    try Self.expect(try await Self.latents(of: merged), given.name, "\(given.file) merged")

    let model = try DiffusionModel.load(from: Self.model)
    let before = try await Self.latents(of: model)
    let (adaptation, reports) = try model.adaptation(by: [use])
    #expect(reports == merged.adapterReports)
    try Self.expect(try await Self.latents(of: model, adaptation), given.name, "\(given.file) added")
    // Without it the old bits come back.
    #expect(try await Self.latents(of: model).elements == before.elements)
  }
}
