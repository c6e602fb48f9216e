import Foundation
import Tensor
import LatentDiffusionTestSupport
import Testing
import TextEncoder
import LatentDiffusionWeights

/// Every tiny text encoder, layer by layer, and its tokenizer, against transformers.
@Suite struct CLIPTextModelTests {
  static let tolerance: Float = 1e-4

  struct Inputs: Decodable {
    let prompts: [String]
    let ids: [[Int]]
  }

  @Test(
    .compares("CLIPTextModel, every layer", in: .architectures, with: "transformers"),
    arguments: ["sd1", "sd2", "inpaint9", "edit8", "lcm", "odd", "projection"].map(ReferenceModel.init))
  func equalsTransformers(_ model: ReferenceModel) throws {
    let (inputs, tensors) = try model.pass("text", Inputs.self)
    let folder = model.folder
    let json = try Data(contentsOf: folder.appending(path: "text_encoder/config.json"))
    var context = ExecutionContext()
    let (text, report) = try LoadReport.load(from: ModelFiles(folder).weights(of: "text_encoder"), in: context) {
      try CLIPTextModel(CLIPTextConfiguration(json: json), weights: $0)
    }
    #expect(report.unused.filter { !$0.hasSuffix("position_ids") } == [])
    let tokenizer = try CLIPTokenizer(folder: folder.appending(path: "tokenizer"))
    #expect(inputs.prompts.map(tokenizer.encodePadded) == inputs.ids)

    let comparison = ModuleComparison(tensors, tolerance: Self.tolerance)
    context.observer = { comparison.observe($0, $1) }
    let output = try text(inputs.ids, in: context)
    #expect(comparison.missed == [], "\(comparison.count) were compared")
    func expected(_ name: String) throws -> Tensor { try #require(tensors["output.\(name)"]) }
    expectClose(output.lastHiddenState, try expected("last_hidden_state"), tolerance: Self.tolerance, "last_hidden_state")
    expectClose(output.pooled, try expected("pooled"), tolerance: Self.tolerance, "pooled")
    if let embeds = tensors["output.text_embeds"] {
      expectClose(try #require(output.textEmbeds), embeds, tolerance: Self.tolerance, "text_embeds")
    }
    let skipped = try text(inputs.ids, skippedLayers: 1, in: context)
    expectClose(skipped.unnormalized, try expected("penultimate"), tolerance: Self.tolerance, "penultimate")
    expectClose(skipped.lastHiddenState, try expected("penultimate_normed"), tolerance: Self.tolerance, "penultimate_normed")
  }

  private static func sd1() throws -> CLIPTextModel {
    let files = try ModelFiles(ReferenceModel("sd1").folder)
    let json = try #require(try files.configuration(of: "text_encoder"))
    return try LoadReport.load(from: files.weights(of: "text_encoder"), in: ExecutionContext()) {
      try CLIPTextModel(CLIPTextConfiguration(json: json), weights: $0)
    }.component
  }

  /// Masks against transformers are in `PromptConditioningTests`. Here: each text has its own, and what a mask hides changes nothing else.
  @Test func masks() throws {
    let text = try Self.sd1(), ids = [[912, 5, 6, 7, 8, 9], [912, 5, 60, 7, 8, 90]]
    func states(_ ids: [[Int]], _ mask: [[Bool]]?) throws -> Tensor { try text(ids, mask: mask, in: ExecutionContext()).lastHiddenState }
    let seen = [[true, true, false, true, false, false], [true, false, false, true, true, false]]
    let both = try states(ids, seen)
    for row in 0..<2 { expectClose(both.rows(row..<row + 1), try states([ids[row]], [seen[row]]), tolerance: 1e-5, "text \(row)") }
    expectClose(try states(ids, seen.map { $0.map { _ in true } }), try states(ids, nil), tolerance: 1e-5, "all")
    #expect(zip(both.elements, try states(ids, nil).elements).contains { abs($0 - $1) > 1e-3 })
    let hidden = try states([[912, 5, 600, 7, 80, 90]], [seen[0]]), width = both.shape.columns
    for place in [0, 1, 3] {
      let (a, b) = (both.elements[place * width..<(place + 1) * width], hidden.elements[place * width..<(place + 1) * width])
      #expect(zip(a, b).allSatisfy { abs($0 - $1) < 1e-5 }, "token \(place)")
    }
    for mask in [[seen[0]], [seen[0], [true]], [seen[0], [false] + seen[1].dropFirst()]] {
      #expect(throws: CLIPTextError.wrongMask) { try states(ids, mask) }
    }
  }

  @Test func refusesWhatIsNoToken() throws {
    let text = try Self.sd1()
    for ids in [[[-1]], [[1 << 40]], [[]], [], [[1, 2], [1]], [Array(repeating: 1, count: 1000)]] {
      #expect(throws: CLIPTextError.self) { try text(ids, in: ExecutionContext()) }
    }
    #expect(throws: CLIPTextError.self) { try text([[1]], skippedLayers: 99, in: ExecutionContext()) }
  }
}
