import LatentDiffusionLayers
import Tensor

/// What passes of `AutoencoderKL` take.
extension AutoencoderKLShape {
  /// Follows a decoding of one picture, or of its largest tile.
  ///
  /// - Parameter height: of the latents; as `width`.
  package func followDecoder(_ work: inout WorkEstimate, height: Int, width: Int) {
    var (h, w) = (height, width)
    let levels = Array(channels.reversed())
    var entering = levels[0]
    work.convolution(n: 1, height: h, width: w, channels: latentChannels, outputs: entering, kernel: 3)
    followMiddle(&work, height: h, width: w, channels: entering)
    for (index, outputs) in levels.enumerated() {
      for _ in 0...resnets {
        work.resnet(n: 1, height: h, width: w, channels: entering, outputs: outputs, timeChannels: nil, owned: true)
        entering = outputs
      }
      guard index < levels.count - 1 else { continue }
      (h, w) = (2 * h, 2 * w)
      work.convolution(n: 1, height: h, width: w, channels: entering, outputs: entering, kernel: 3, dropping: h * w / 4 * entering)
    }
    work.convolution(n: 1, height: h, width: w, channels: entering, outputs: 3, kernel: 3, dropping: h * w * entering)
  }

  /// Follows an encoding of one picture, or of its largest tile.
  ///
  /// - Parameter height: of the picture; as `width`.
  package func followEncoder(_ work: inout WorkEstimate, height: Int, width: Int) {
    var (h, w) = (height, width)
    var entering = channels[0]
    work.convolution(n: 1, height: h, width: w, channels: 3, outputs: entering, kernel: 3)
    for (index, outputs) in channels.enumerated() {
      for _ in 0..<resnets {
        work.resnet(n: 1, height: h, width: w, channels: entering, outputs: outputs, timeChannels: nil, owned: true)
        entering = outputs
      }
      guard index < channels.count - 1 else { continue }
      let before = h * w * entering
      (h, w) = (h / 2, w / 2)
      work.convolution(n: 1, height: h, width: w, channels: entering, outputs: entering, kernel: 3, stride: 2)
      work.drop(before)
    }
    followMiddle(&work, height: h, width: w, channels: entering)
    work.convolution(n: 1, height: h, width: w, channels: entering, outputs: 2 * latentChannels, kernel: 3, dropping: h * w * entering)
  }

  private func followMiddle(_ work: inout WorkEstimate, height: Int, width: Int, channels: Int) {
    let pixels = height * width
    for index in 0..<2 {
      work.resnet(n: 1, height: height, width: width, channels: channels, outputs: channels, timeChannels: nil, owned: true)
      guard index == 0, hasAttention else { continue }
      work.hold(pixels * channels)
      for _ in 0..<3 { work.linear(rows: pixels, inputs: channels, outputs: channels) }
      work.attention(n: 1, length: pixels, others: pixels, heads: 1, width: channels)
      for _ in 0..<3 { work.drop(pixels * channels) }
      work.linear(rows: pixels, inputs: channels, outputs: channels)
      // What was mixed, what was normalised, and what entered.
      for _ in 0..<3 { work.drop(pixels * channels) }
    }
  }
}
