import LatentDiffusionComponents
import Foundation
import LatentDiffusionLayers
import Tensor
import LatentDiffusionTestSupport
import Testing
import UNet
import LatentDiffusionWeights

/// Merged tokens, against PyTorch with the same destinations.
@Suite struct TokenMergingTests {
  /// One of `Fixtures/unet/token-merging.safetensors`.
  struct Case: Decodable {
    enum Kind: String, Decodable { case sequence, pass }
    let kind: Kind
    let ratio: Double
    let seed: UInt64
    let height: Int?
    let width: Int?
    /// After merging.
    let length: Int?
    let timestep: Float?
  }

  private static func cases(_ kind: Case.Kind) throws -> [ReferenceCase<Case>] {
    try ReferenceCases<Case>("unet/token-merging.safetensors").filter { $0.parameters.kind == kind }
  }

  @Test func sequencesAreMergedAndComeBack() throws {
    let context = ExecutionContext()
    for reference in try Self.cases(.sequence) {
      let given = reference.parameters
      let (height, width) = (try #require(given.height), try #require(given.width))
      let (tokens, values, expected) = (try reference["tokens"], try reference["values"], try reference["output"])
      let nothing = Tensor(shape: values.shape)
      guard let choice = TokenMerging(ratio: given.ratio, seed: given.seed).choice(height: height, width: width) else {
        #expect(given.ratio == 0 && expected.elements == values.elements)
        continue
      }
      let merge = try TokenMerge(tokens, into: choice.destinations, count: choice.count, in: context)
      #expect(merge.mergedLength == given.length, "\(reference.name)")
      let merged = try merge.merged(values, in: context)
      #expect(merged.shape == [3, merge.mergedLength, 12])
      let found = try merge.unmerged(merged, adding: nothing, in: context)
      expectClose(found, expected, tolerance: 1e-6, reference.name)
      expectClose(try merge.unmerged(merged, adding: values, in: context), expected + values, tolerance: 1e-6, reference.name)
      // What was merged once stays as it is.
      expectClose(try merge.unmerged(merge.merged(found, in: context), adding: nothing, in: context), expected, tolerance: 1e-6)
    }
  }

  @Test(.compares("Token merging: passes with merged tokens", in: .architectures, with: "diffusers"))
  func passesEqualDiffusersWithMergedTokens() throws {
    for reference in try Self.cases(.pass) {
      let model = ReferenceModel(reference.name)
      let files = try ModelFiles(model.folder)
      let json = try #require(try files.configuration(of: "unet"))
      let unet = try LoadReport.load(from: files.weights(of: "unet"), in: ExecutionContext()) {
        try UNet2DConditionModel(UNet2DConfiguration(json: json), weights: $0)
      }.component
      let latents = try reference["sample"].channelsLast()
      let text = Conditioning(hiddenStates: try reference["text"])
      let timestep = try #require(reference.parameters.timestep)
      var memory = PassMemory(Shortcuts(tokenMerging: reference.parameters.ratio), seed: reference.parameters.seed)
      let found = try unet.predict(latents, timestep: timestep, conditioning: text, memory: &memory, in: ExecutionContext())
      let difference = expectClose(found, try reference["output"].channelsLast(), tolerance: 1e-4, reference.name)
      print("\(reference.name) with merged tokens: \(difference)")

      // Another pass chooses others, the same one the same, and a ratio of 0 nothing.
      let next = try unet.predict(latents, timestep: timestep, conditioning: text, memory: &memory, in: ExecutionContext())
      #expect(next.elements != found.elements, "\(reference.name): a second pass")
      memory = PassMemory(Shortcuts(tokenMerging: reference.parameters.ratio), seed: reference.parameters.seed)
      let again = try unet.predict(latents, timestep: timestep, conditioning: text, memory: &memory, in: ExecutionContext(threads: 3))
      #expect(again.elements == found.elements, "\(reference.name): the same pass on three threads")
      memory = PassMemory(Shortcuts(tokenMerging: 0))
      let whole = try unet.predict(latents, timestep: timestep, conditioning: text, memory: &memory, in: ExecutionContext())
      let plain = try unet.predict(latents, timestep: timestep, conditioning: text, in: ExecutionContext())
      #expect(whole.elements == plain.elements, "\(reference.name): a ratio of 0")
    }
  }

  /// One destination in each square of four, all four places chosen now and then, and each choice that of its seed.
  @Test func oneInEachSquareIsADestination() throws {
    var places = Set<Int>()
    for (height, width) in [(2, 2), (8, 8), (5, 7), (64, 96)] {
      let choice = try #require(TokenMerging(ratio: 0.5, seed: 3).choice(height: height, width: width))
      let squares = choice.destinations.map { ($0 / width / 2) * (width / 2) + $0 % width / 2 }
      #expect(squares.sorted() == Array(0..<(height / 2) * (width / 2)), "\(height)×\(width)")
      #expect(choice.destinations == choice.destinations.sorted())
      #expect(choice.count == height * width / 2)
      places.formUnion(choice.destinations.map { $0 / width % 2 * 2 + $0 % width % 2 })
    }
    #expect(places == [0, 1, 2, 3])
    let (one, other) = (TokenMerging(ratio: 0.5, seed: 1), TokenMerging(ratio: 0.5, seed: 2))
    #expect(one.choice(height: 8, width: 8)?.destinations != other.choice(height: 8, width: 8)?.destinations)
    #expect(TokenMerging(ratio: 0, seed: 1).choice(height: 8, width: 8) == nil)
    #expect(TokenMerging(ratio: 0.5, seed: 1).choice(height: 1, width: 64) == nil)
  }

  /// Tokens without a direction, or all in the same one, are merged like others: the first that come.
  @Test(arguments: [Float(0), 1, -2]) func tokensThatAreAllAlikeAreMerged(value: Float) throws {
    let choice = try #require(TokenMerging(ratio: 0.75, seed: 5).choice(height: 4, width: 4))
    let tokens = Tensor(repeating: value, shape: [2, 16, 5])
    let merge = try TokenMerge(tokens, into: choice.destinations, count: choice.count, in: ExecutionContext())
    #expect(merge.mergedLength == 4)
    let back = try merge.unmerged(merge.merged(tokens, in: ExecutionContext()), adding: tokens, in: ExecutionContext())
    #expect(back.elements == [Float](repeating: 2 * value, count: 160))
  }
}
