import LatentDiffusionComponents
import Pipeline
import Synchronization
import Tensor
import Testing

/// What a control is told, and what a predictor is told of it: which steps, which rows.
@Suite struct ControlTests {
  /// Says, for each row, one more than the mean of its text.
  private struct ToyControl: ControlModel {
    final class Diary: Sendable {
      private let state = Mutex<[Shape]>([])
      var latents: [Shape] { state.withLock { $0 } }
      func note(_ shape: Shape) { state.withLock { $0.append(shape) } }
    }
    var seesPromptsAlone = false
    let diary = Diary()
    var name: String { "The toy" }
    var pictureChannels: Int { 3 }
    var hasGuessMode: Bool { true }
    func check(_ predictor: any NoisePredictor) throws {}
    func features(of picture: Tensor, in context: ExecutionContext) throws -> [Tensor] { [picture] }

    func residuals(_ pass: ControlPass, cache: inout (any Sendable)?, in context: ExecutionContext) throws -> FeatureResiduals {
      diary.note(pass.latents.shape)
      let rows = pass.conditioning.rows, pixels = pass.features[0].count / pass.features[0].shape[0]
      // The first pixel of each picture's row, so that pictures are known again.
      let said = (0..<rows).map {
        pass.weight * (1 + pass.features[0].elements[$0 % pass.latents.shape[0] % pass.features[0].shape[0] * pixels])
      }
      return FeatureResiduals(middle: Tensor(said, shape: [rows, 1]))
    }
  }

  /// Writes down what it is told by controls.
  private struct Listener: NoisePredictor {
    final class Diary: Sendable {
      private let state = Mutex<[[Float]?]>([])
      var said: [[Float]?] { state.withLock { $0 } }
      func note(_ said: [Float]?) { state.withLock { $0.append(said) } }
    }
    var inputChannels = 4
    let diary = Diary()
    var outputChannels: Int { 4 }
    var sampleSize: Int? { 4 }

    func predict(_ latents: Tensor, timestep: Float, conditioning: Conditioning, in context: ExecutionContext) throws -> Tensor {
      diary.note(conditioning.residuals?.middle?.elements)
      return Tensor(shape: Shape([conditioning.rows] + latents.shape.dimensions[1..<3] + [4]))
    }
  }

  private func said(
    by controls: [Control], guidance: Double, steps: Int = 10, channels: Int = 4, _ change: (inout GenerationRequest) -> Void = { _ in }
  ) async throws -> [[Float]?] {
    let listener = Listener(inputChannels: channels)
    let pipeline = DiffusionPipeline(predictor: listener, autoencoder: ToyAutoencoder(), conditioner: ToyConditioner()) {
      ToyScheduler(steps: $0)
    }
    var request = GenerationRequest("a", seed: 1)
    (request.controls, request.guidance, request.steps) = (controls, guidance, steps)
    change(&request)
    _ = try await pipeline.images(for: request)
    return listener.diary.said
  }

  private static func picture(_ values: Float...) -> Tensor {
    Tensor(values.flatMap { Array(repeating: $0, count: 16 * 16 * 3) }, shape: [values.count, 16, 16, 3])
  }

  /// Step i of n is steered if i/n is not below the start and (i + 1)/n is not above the end.
  @Test func steersItsPartOfTheSteps() async throws {
    let said = try await said(
      by: [
        Control(ToyControl(), picture: Self.picture(0), start: 0.2, end: 0.5),
        Control(ToyControl(), picture: Self.picture(1), weight: 0.5, start: 0.41),
      ], guidance: 1)
    #expect(said == [nil, nil, [1], [1], [1], [1], [1], [1], [1], [1]])
    let both = try await self.said(
      by: [
        Control(ToyControl(), picture: Self.picture(0)), Control(ToyControl(), picture: Self.picture(1), weight: 0.5, end: 0.5),
      ], guidance: 1, steps: 4)
    #expect(both == [[2], [2], [1], [1]])
  }

  /// In guess mode the rows without the prompt get zeros, and are not computed.
  @Test func guessingSeesPromptsAlone() async throws {
    let control = ToyControl()
    #expect(try await said(by: [Control(control, picture: Self.picture(0))], guidance: 3, steps: 1) == [[1, 1]])
    #expect(try await said(by: [Control(control, picture: Self.picture(0), isGuessing: true)], guidance: 3, steps: 1) == [[0, 1]])
    #expect(try await said(by: [Control(control, picture: Self.picture(0), isGuessing: true)], guidance: 1, steps: 1) == [[1]])
    let pooled = ToyControl(seesPromptsAlone: true)
    #expect(try await said(by: [Control(pooled, picture: Self.picture(0))], guidance: 3, steps: 1) == [[0, 1]])
    #expect(control.diary.latents.allSatisfy { $0[0] == 1 })
    // Texts of different lengths have passes of their own, of which one has no prompt.
    let apart = try await said(by: [Control(control, picture: Self.picture(0), isGuessing: true)], guidance: 3, steps: 1) {
      $0.conditioning = Conditioning(hiddenStates: Tensor(shape: [1, 4, 3]))
    }
    #expect(apart == [nil, [1]])
    // Of an edit's three rows, each of which sees latents of its own, the first has the prompt.
    let edit = try await said(by: [Control(control, picture: Self.picture(0), isGuessing: true)], guidance: 3, steps: 1, channels: 8) {
      $0.task = InstructionEditing(Self.picture(0.5))
    }
    #expect(edit == [[1, 0, 0]])
    #expect(control.diary.latents.last?[0] == 1)
  }

  /// One picture for all, one for each prompt, or one for each picture.
  @Test func picturesBelongToPrompts() async throws {
    func rows(_ picture: Tensor) async throws -> [Float]? {
      try await said(by: [Control(ToyControl(), picture: picture)], guidance: 1, steps: 1) {
        $0.prompts = ["a", "b"]
        $0.imagesPerPrompt = 2
      }[0]
    }
    #expect(try await rows(Self.picture(1)) == [2, 2, 2, 2])
    #expect(try await rows(Self.picture(0, 1)) == [1, 1, 2, 2])
    #expect(try await rows(Self.picture(0, 1, 0, 1)) == [1, 2, 1, 2])
  }
}
