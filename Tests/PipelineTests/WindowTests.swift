import LatentDiffusionComponents
import LatentDiffusionTestSupport
import Pipeline
import Tensor
import Testing

/// Windows of frames.
@Suite struct WindowTests {
  @Test(arguments: [FrameWindows.Method.passes, .loopedPasses]) func everyFrameCountsOnce(_ method: FrameWindows.Method) throws {
    for (frames, length, stride) in [(16, 16, nil), (32, 16, nil), (33, 16, 4), (7, 4, 1), (100, 16, 16), (5, 2, 2), (9, 1, 1)]
      as [(Int, Int, Int?)]
    {
      let windows = try FrameWindows(length: length, stride: stride, method: method)
      var starts: Set<[Int]> = []
      for pass in 0..<8 {
        let all = windows.windows(of: frames, pass: pass)
        var sums = Array(repeating: Float(0), count: frames)
        for window in all {
          #expect(window.frames.count == min(length, frames) && window.frames.allSatisfy { (0..<frames).contains($0) })
          if method == .passes { #expect(window.frames == Array(window.frames[0]..<window.frames[0] + length)) }
          for (frame, weight) in zip(window.frames, window.weights) { sums[frame] += weight }
        }
        #expect(sums.allSatisfy { abs($0 - 1) < 1e-6 }, "\(frames) frames in windows of \(length), pass \(pass): \(sums)")
        starts.insert(all.map { $0.frames[0] })
      }
      // Windows begin elsewhere from step to step.
      if frames > length + windows.stride, windows.stride > 1 { #expect(starts.count > 1, "\(frames), \(length), \(windows.stride)") }
    }
  }

  /// As diffusers' `FreeNoiseTransformerBlock` has them.
  @Test func windowsOfFreeNoise() throws {
    func windows(_ frames: Int, _ length: Int, _ stride: Int) throws -> [FrameWindow] {
      try FrameWindows(length: length, stride: stride, method: .freeNoise).windows(of: frames, pass: 3)
    }
    #expect(try windows(24, 16, 4).map(\.frames) == [Array(0..<16), Array(4..<20), Array(8..<24)])
    let rest = try windows(11, 6, 3)
    #expect(rest.map(\.frames) == [Array(0..<6), Array(3..<9), Array(5..<11)])
    // 1, 2, 3, 3, 2, 1 for each window; what only the last one has is divided by the first of its weights.
    #expect(rest[1].weights[0] == 1 / (1 + 3) && rest[0].weights[0] == 1 && rest[2].weights == [0, 0, 0, 0, 1, 0.5])
  }

  @Test func noiseHasNoNewFrames() throws {
    let windows = try FrameWindows(length: 6, stride: 4, method: .freeNoise)
    var noise: any NoiseSource = TorchGenerator(seed: 3)
    let order = windows.noiseOrder(17, drawing: &noise)
    #expect(order.count == 17 && Array(order[..<6]) == Array(0..<6) && order.allSatisfy { (0..<6).contains($0) })
    #expect(Set(order[6..<10]) == Set(0..<4))
  }

  @Test func impossibleWindowsAreRefused() {
    for (length, stride) in [(0, nil), (-3, nil), (4, 5), (4, 0), (4, -1)] as [(Int, Int?)] {
      #expect(throws: ComponentError.self, "\(length), \(String(describing: stride))") { try FrameWindows(length: length, stride: stride) }
    }
    #expect((try? FrameWindows(length: 1))?.stride == 1)
    #expect((try? FrameWindows())?.stride == 12)
    #expect((try? FrameWindows(method: .freeNoise))?.stride == 4)
  }
}
