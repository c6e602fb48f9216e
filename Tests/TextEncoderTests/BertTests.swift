import Foundation
import LatentDiffusionComponents
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing

import TextEncoder

/// The tokenizer and the text encoder of the first latent diffusion models, against transformers and diffusers.
@Suite struct BertTests {
  private let folder = fixtures.appending(path: "tokenizer/bert")

  private struct Reference: Decodable {
    struct Case: Decodable {
      let text: String
      let ids, cased: [Int]
    }
    let cases: [Case]
    let padded: [[Int]]
    let scalars: String
  }

  private func reference() throws -> Reference {
    try JSONDecoder().decode(Reference.self, from: Data(contentsOf: fixtures.appending(path: "tokenizer/bert.json")))
  }

  @Test(.compares("BERT's tokens", in: .files, with: "transformers", unit: .equality)) func tokensAreTransformers() throws {
    let (tokenizer, reference) = (try BertTokenizer(folder: folder), try reference())
    let vocabulary = try Data(contentsOf: folder.appending(path: "vocab.txt"))
    let cased = try BertTokenizer(
      vocabulary: vocabulary, configuration: Data(#"{"do_lower_case": false, "tokenize_chinese_chars": false}"#.utf8))
    #expect(reference.cases.count == 89)
    for (index, given) in reference.cases.enumerated() {
      expectSame(tokenizer.encode(given.text), given.ids, given.text.debugDescription)
      expectSame(cased.encode(given.text), given.cased, "\(given.text.debugDescription), cased")
      if index < reference.padded.count { #expect(tokenizer.encodePadded(given.text, length: 77) == reference.padded[index]) }
    }
  }

  /// Every scalar of Unicode between two letters: removed, a space, or by itself.
  @Test func scalarsAreCutAsTransformersCutsThem() throws {
    var kinds: [UInt32: Character] = [:]
    for run in try reference().scalars.split(separator: " ") {
      let bounds = run.dropFirst().split(separator: "-").compactMap { UInt32($0, radix: 16) }
      guard let first = bounds.first, let last = bounds.last, let kind = run.first else { continue }
      for value in first...last { kinds[value] = kind }
    }
    let normalizer = BertNormalizer(lowercases: true, stripsAccents: true, isolatesIdeographs: true)
    var wrong: [String] = []
    // The planes between have no letters yet.
    for value in [0...0x2FFFF, 0xE0000...0xF0010].joined() as FlattenSequence<[ClosedRange<UInt32>]> {
      guard let scalar = Unicode.Scalar(value) else { continue }
      let words = normalizer.words(["a", scalar, "b"])
      let kind: Character? = words == [["a", "b"]] ? "r" : words == [["a"], ["b"]] ? "s" : words.count == 3 ? "i" : nil
      if kind != kinds[value] {
        wrong.append(String(value, radix: 16) + " \(kind.map(String.init) ?? "-") \(kinds[value].map(String.init) ?? "-")")
      }
    }
    #expect(wrong == [])
  }

  @Test func filesThatAreNoVocabularyAreRefused() throws {
    #expect(throws: TokenizerError.self) { try BertTokenizer(vocabulary: Data([0xFF, 0x0A])) }
    #expect(throws: TokenizerError.self) { try BertTokenizer(vocabulary: Data("a\n".utf8), configuration: Data("[]".utf8)) }
    for json in [#"{"truncation_side": "left"}"#, #"{"padding_side": "left"}"#, #"{"cls_token": ""}"#] {
      #expect(throws: TokenizerError.self, "\(json)") { try BertTokenizer(vocabulary: Data("a\n".utf8), configuration: Data(json.utf8)) }
    }
    #expect(throws: TokenizerError.self) { try BertTokenizer(tokenizer: Data(#"{"model": {"type": "BPE", "vocab": {}}}"#.utf8)) }
    #expect(throws: TokenizerError.self) { try BertTokenizer(tokenizer: Data(#"{"model": {"vocab": {"a": -1}}}"#.utf8)) }
    let temporary = try TemporaryFolder()
    let error = #expect(throws: TokenizerError.self) { try BertTokenizer(folder: temporary.url) }
    #expect(error?.description.contains("vocab.txt") == true)
    // The same vocabulary as a `tokenizer.json`; an empty one makes every word unknown.
    let serialized = ###"{"model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "cat": 4, "##s": 5}}}"###
    #expect(try BertTokenizer(tokenizer: Data(serialized.utf8)).encode("Cats dog") == [1, 4, 5, 0, 2])
    let empty = try BertTokenizer(vocabulary: Data())
    #expect(empty.encode("cat").count == 3 && empty.encodePadded("a b c d", length: 4).count == 4)
  }

  @Test(.compares("LDMBertModel, every layer", in: .architectures, with: "diffusers")) func theTextEncoderIsDiffusers() throws {
    struct Inputs: Decodable {
      let prompts: [String]
      let ids: [[Int]]
    }
    let model = ReferenceModel("ldm-text")
    let (inputs, tensors) = try model.pass("bert", Inputs.self)
    let files = try ModelFiles(model.folder)
    let json = try #require(try files.configuration(of: "bert"))
    var context = ExecutionContext()
    let (bert, report) = try LoadReport.load(from: files.weights(of: "bert"), in: context) {
      try LDMBertModel(configuration: json, weights: $0)
    }
    #expect(report.unused == [])
    let comparison = ModuleComparison(tensors, tolerance: 1e-4)
    context.observer = { comparison.observe($0, $1) }
    let conditioner = LDMBertConditioner(tokenizer: try BertTokenizer(folder: model.folder.appending(path: "tokenizer")), model: bert)
    let request = ConditioningRequest(inputs.prompts.map { Prompt($0) }, size: PixelSize(width: 64, height: 64))
    let states = try conditioner.condition(request, in: context).contexts[0]
    expectClose(states, try #require(tensors["output"]), tolerance: 1e-4, "states")
    #expect(comparison.missed == [])
    print("ldm-text, bert: \(comparison.count) modules, largest difference in \(comparison.largest)")
    #expect(throws: CLIPTextError.self) { try bert([[100_000]], in: context) }
    #expect(throws: CLIPTextError.self) { try bert([Array(repeating: 0, count: 78)], in: context) }
    #expect(throws: ComponentError.self) {
      try conditioner.condition(ConditioningRequest([Prompt("a", skippedLayers: 1)], size: request.size), in: context)
    }
    let long = Prompt(Array(repeating: "cats", count: 40).joined(separator: " "))
    #expect(conditioner.truncation(of: long)?.tokens == 80 && conditioner.truncation(of: long)?.dropped == "s cats cats")
  }
}
