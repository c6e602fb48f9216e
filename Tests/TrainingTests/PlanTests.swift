import EmojiModel
import Foundation
import LatentDiffusionTestSupport
import LatentDiffusionTraining
import Testing

/// What a plan of a training says. How near it comes to what a process takes is measured in `Docs/Performance.md`.
@Suite struct PlanTests {
  private func plan(
    _ subject: TrainingPlan.Subject, batch: Int = 2, recomputes: Bool? = nil, limit: Int? = nil
  ) throws -> TrainingPlan {
    try TrainingPlan(
      for: EmojiModel.folder(), subject, size: PixelSize(width: 64, height: 64), batch: batch, optimizer: AdamW(), recomputes: recomputes,
      limit: limit, threads: 2)
  }

  @Test func growsWithWhatIsTrained() throws {
    let lora = try plan(.lowRank(rank: 4, .attention)), both = try plan(.lowRank(rank: 4, .convolutions, textEncoders: true))
    let unet = try plan(.parameters(of: ["unet"])), all = try plan(.parameters(of: ["unet", "text_encoder"]))
    #expect(lora.predictedPeakBytes < both.predictedPeakBytes)
    #expect(both.predictedPeakBytes < unet.predictedPeakBytes)
    // Values, packed values, two moments and gradients of 5.8 million numbers.
    #expect(unet.predictedPeakBytes - lora.predictedPeakBytes > 5 * 4 * 5_800_000 * 9 / 10)
    #expect(unet.predictedPeakBytes < all.predictedPeakBytes)
    #expect(try lora.predictedPeakBytes < plan(.lowRank(rank: 4, .attention), batch: 16).predictedPeakBytes)
  }

  @Test func aLimitLetsLayersBeComputedAgain() throws {
    let subject = TrainingPlan.Subject.lowRank(rank: 4, .attention)
    let kept = try plan(subject, batch: 16), again = try plan(subject, batch: 16, recomputes: true)
    #expect(!kept.recomputes && again.recomputes && again.predictedPeakBytes < kept.predictedPeakBytes)
    let between = try plan(subject, batch: 16, limit: (kept.predictedPeakBytes + again.predictedPeakBytes) / 2)
    #expect(between.recomputes && between.predictedPeakBytes == again.predictedPeakBytes)
    #expect(throws: TrainingError.self) { try plan(subject, batch: 16, limit: again.predictedPeakBytes - 1_000_000) }
  }
}
