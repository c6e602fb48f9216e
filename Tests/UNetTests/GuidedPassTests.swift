import LatentDiffusionComponents
import Foundation
import Tensor
import LatentDiffusionLayers
import LatentDiffusionTestSupport
import Testing
import UNet
import LatentDiffusionWeights

/// Passes of the same latents with several texts, as guidance has them: every row is what a pass of its own gives, bit for bit.
@Suite struct GuidedPassTests {
  /// The tiny Stable Diffusion 1, with other blocks.
  private static let variants: [String: [String: any Sendable]] = [
    "as it is": [:],
    "first attention looks at the text": ["only_cross_attention": [true, false, false]],
    "attention in the middle only": ["down_block_types": plain("DownBlock2D"), "up_block_types": plain("UpBlock2D")],
    "no attention": [
      "down_block_types": plain("DownBlock2D"), "up_block_types": plain("UpBlock2D"), "mid_block_type": NSNull(),
    ],
    "attention on the way up": ["down_block_types": plain("DownBlock2D"), "mid_block_type": NSNull()],
    "two layers each": ["transformer_layers_per_block": 2],
    "embedded guidance": ["time_cond_proj_dim": 8],
  ]

  private static func plain(_ name: String) -> [String] { Array(repeating: name, count: 3) }

  private static func unet(_ variant: String) throws -> UNet2DConditionModel { try unet(#require(variants[variant])) }

  private static func unet(_ changes: [String: any Sendable]) throws -> UNet2DConditionModel {
    let data = try Data(contentsOf: ReferenceModel("sd1").folder.appending(path: "unet/config.json"))
    var json = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    for (key, value) in changes { json[key] = value }
    let shape = try UNet2DConfiguration(json: JSONSerialization.data(withJSONObject: json))
    return try LoadReport.load(from: RandomWeights(seed: 4), in: ExecutionContext()) {
      try UNet2DConditionModel(shape, weights: $0)
    }.component
  }

  /// One thread makes all rows together; two make a half of them each where that is possible.
  @Test(arguments: variants.keys.sorted(), [1, 2])
  func rowsAreThoseOfPassesOfTheirOwn(_ variant: String, threads: Int) throws {
    let context = ExecutionContext(threads: threads)
    var numbers = Numbers(seed: 1)
    let unet = try Self.unet(variant)
    for (pictures, texts) in [(1, 2), (2, 2), (2, 3), (3, 1)] {
      let own = numbers.tensor([pictures, 8, 8, 4]), latents = own.repeated(texts)
      let text = Conditioning(hiddenStates: numbers.tensor([pictures * texts, 5, 16]), guidance: 2)
      for shortcuts in [Shortcuts(), Shortcuts(tokenMerging: 0.5), Shortcuts(stepCaching: StepCaching(interval: 2, branch: 1))] {
        var memory = PassMemory(shortcuts), apart = PassMemory(shortcuts)
        var single = (0..<pictures * texts).map { _ in PassMemory(shortcuts) }
        for timestep: Float in [501, 481, 461] {
          let found = try unet.predict(own, timestep: timestep, conditioning: text, memory: &memory, in: context)
          #expect(found.shape == latents.shape)
          let repeated = try unet.predict(latents, timestep: timestep, conditioning: text, memory: &apart, in: context)
          #expect(found.elements == repeated.elements, "\(variant), \(pictures) × \(texts), \(shortcuts), latents for each row")
          for row in 0..<pictures * texts {
            let own = Conditioning(hiddenStates: text.contexts[0].rows(row..<row + 1), guidance: 2)
            let expected = try unet.predict(
              latents.rows(row..<row + 1), timestep: timestep, conditioning: own, memory: &single[row], in: ExecutionContext())
            #expect(found.rows(row..<row + 1).elements == expected.elements, "\(variant), \(pictures) × \(texts), \(shortcuts), row \(row)")
          }
        }
      }
    }
  }

  /// Clips of many pixels are computed one after the other, also where a step reuses deep features. So guidance needs hardly more memory than no guidance.
  @Test func largeClipsAreThoseOfPassesOfTheirOwn() throws {
    let widths = [32, 16, 16]
    let unet = try Self.unet([
      "block_out_channels": widths, "layers_per_block": 1, "down_block_types": Self.plain("DownBlock2D"),
      "up_block_types": Self.plain("UpBlock2D"),
    ])
    let motion = try MotionConfiguration(
      json: Data(
        #"{"block_out_channels": \#(widths), "motion_layers_per_block": 1, "motion_norm_num_groups": 4, "motion_num_attention_heads": 2}"#
          .utf8))
    let context = ExecutionContext(threads: 2), frames = 24
    let predictor = try unet.adding(
      LoadReport.load(from: RandomWeights(seed: 4), in: context) { try MotionAdapter(motion, weights: $0) }.component)
    var numbers = Numbers(seed: 6)
    let latents = numbers.tensor([1, frames, 108, 104, 4]), states = numbers.tensor([2, 5, 16])
    let caching = Shortcuts(stepCaching: StepCaching(interval: 2, branch: 1))
    var memory = PassMemory(caching), apart = PassMemory(caching)
    for timestep: Float in [501, 481] {
      let found = try predictor.predict(
        latents, timestep: timestep, conditioning: Conditioning(hiddenStates: states), memory: &memory, in: context)
      let own = Conditioning(hiddenStates: states.rows(1..<2))
      let expected = try predictor.predict(latents, timestep: timestep, conditioning: own, memory: &apart, in: context)
      #expect(found.rows(1..<2).elements == expected.elements && found.rows(0..<1).elements != expected.elements, "\(timestep)")
    }
  }

  /// Rows that begin alike may part by what is embedded with the time.
  @Test func rowsDifferByTheirTimes() throws {
    var numbers = Numbers(seed: 2)
    let unet = try Self.unet("embedded guidance")
    let latents = numbers.tensor([1, 8, 8, 4]).repeated(2), states = numbers.tensor([1, 5, 16]).repeated(2)
    let conditions = numbers.tensor([2, 8])
    let found = try unet.predict(
      latents, timestep: 501, conditioning: Conditioning(hiddenStates: states, inputs: ["timestep_cond": conditions]),
      in: ExecutionContext())
    for row in 0..<2 {
      let own = Conditioning(
        hiddenStates: states.rows(row..<row + 1), inputs: ["timestep_cond": conditions.rows(row..<row + 1)])
      let expected = try unet.predict(latents.rows(row..<row + 1), timestep: 501, conditioning: own, in: ExecutionContext())
      #expect(found.rows(row..<row + 1).elements == expected.elements)
    }
    #expect(found.rows(0..<1).elements != found.rows(1..<2).elements)
  }

  /// What a memory keeps of a text serves for no other.
  @Test func anotherTextIsReadAnew() throws {
    var numbers = Numbers(seed: 3)
    let unet = try Self.unet("as it is")
    let latents = numbers.tensor([2, 8, 8, 4])
    let texts = (0..<2).map { _ in Conditioning(hiddenStates: numbers.tensor([2, 5, 16])) }
    var memory = PassMemory()
    for text in [texts[0], texts[1], texts[0], texts[0]] {
      let found = try unet.predict(latents, timestep: 501, conditioning: text, memory: &memory, in: ExecutionContext())
      #expect((memory.cache as? TextStates)?.states.isIdentical(to: text.contexts[0]) == true)
      #expect(found.elements == (try unet.predict(latents, timestep: 501, conditioning: text, in: ExecutionContext())).elements)
    }
  }

  /// What a predictor does not declare is an error, as are rows that no latent has.
  @Test func undeclaredInputsAreRefused() throws {
    let unet = try Self.unet("as it is"), latents = Tensor(shape: [2, 8, 8, 4])
    func error(_ conditioning: Conditioning) throws -> ComponentError? {
      #expect(throws: ComponentError.self) {
        _ = try unet.predict(latents, timestep: 1, conditioning: conditioning, in: ExecutionContext())
      }
    }
    let states = Tensor(shape: [2, 5, 16])
    let declared = try error(Conditioning(hiddenStates: states, inputs: ["time_ids": Tensor(shape: [2, 6])]))
    #expect(declared == .undeclaredInput(component: "The noise predictor", name: "time_ids", declared: ["timesteps"]))
    let rows = try error(Conditioning(hiddenStates: Tensor(shape: [3, 5, 16])))
    #expect(rows == .unexpectedRows(component: "The noise predictor", rows: 3, latents: 2))
    let contexts = try error(Conditioning(rows: 2, contexts: [states, states]))
    #expect(contexts == .unexpectedContexts(component: "The U-Net", expected: 1, found: 2))
    let embedding = try Self.unet("embedded guidance")
    let short = ComponentError.unexpectedShape(
      component: "The noise predictor", argument: "timestep_cond", expected: "[2, 8]", found: [2, 7])
    #expect(throws: short) {
      let conditioning = Conditioning(hiddenStates: states, inputs: ["timestep_cond": Tensor(shape: [2, 7])])
      _ = try embedding.predict(latents, timestep: 1, conditioning: conditioning, in: ExecutionContext())
    }
  }
}
