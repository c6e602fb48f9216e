import LatentDiffusionComponents
import Tensor

/// A prompt of one frame of a clip. Between two such frames, texts are interpolated on a straight line.
///
/// Source: the prompts with frame numbers of diffusers' `AnimateDiffFreeNoiseMixin`.
public struct FramePrompt: Sendable, Equatable {
  /// From 1: frame 0 has the request's prompt.
  public var frame: Int
  /// What the frame should show.
  public var prompt: Prompt

  /// - Parameters:
  ///   - frame: from 1.
  ///   - prompt: what the frame should show.
  public init(_ frame: Int, _ prompt: Prompt) { (self.frame, self.prompt) = (frame, prompt) }
}

extension Plan {
  /// - Throws: `GenerationError.outOfRange` for frames that the clip has not or that are named twice, and more than one prompt that they could follow.
  func checkLaterPrompts() throws {
    guard !request.laterPrompts.isEmpty else { return }
    guard let frames else { throw GenerationError.drawsPictures(task: "a walk from prompt to prompt") }
    try checkNumber("The number of prompts that change from frame to frame", request.prompts.count, in: 1...1)
    guard request.conditioning == nil, request.negativeConditioning == nil else {
      throw ComponentError.unsupported(component: "A clip whose prompts change from frame to frame", option: "conditioning of its own")
    }
    let places = request.laterPrompts.map(\.frame).sorted()
    for (index, frame) in places.enumerated() where !(1..<max(frames, 1)).contains(frame) || index > 0 && places[index - 1] == frame {
      throw GenerationError.outOfRange(
        name: "The frame of a prompt", value: "\(frame)", allowed: "from 1 to \(frames - 1), and each only once")
    }
  }

  /// A text for each frame, from the request's prompt on.
  func travelling(over frames: Int, in context: ExecutionContext) throws -> Conditioning {
    let keys = [FramePrompt(0, request.prompts[0])] + request.laterPrompts.sorted { $0.frame < $1.frame }
    let encoded = try conditioningOfEach(keys.map { try only($0.prompt, of: "A clip") }, in: context)
    guard !encoded.contexts.isEmpty else {
      throw ComponentError.unsupported(component: "This model", option: "prompts of frames, since it reads no text")
    }
    func row(_ index: Int) -> Conditioning { encoded.rows(index..<index + 1) }
    return try .ofFrames(
      (0..<frames).map { frame in
        let index = keys.lastIndex { $0.frame <= frame } ?? 0
        guard index + 1 < keys.count else { return row(index) }
        let (start, end) = (keys[index].frame, keys[index + 1].frame)
        return try row(index).interpolated(to: row(index + 1), at: Double(frame - start) / Double(end - start))
      })
  }
}
