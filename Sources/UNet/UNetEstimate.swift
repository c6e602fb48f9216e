import Tensor
import LatentDiffusionLayers

extension UNet2DShape {
  /// Follows one pass of `UNet2DConditionModel`.
  ///
  /// - Parameters:
  ///   - n: rows of the pass.
  ///   - height: of the latents; as `width`.
  ///   - tokens: of the text.
  package func follow(_ work: inout WorkEstimate, n: Int, height: Int, width: Int, tokens: Int) {
    let time = 4 * levels[0].channels
    work.hold(n * tokens * textProjections)
    var (h, w) = (height, width)
    // Channels and sizes of what the way down leaves.
    var skips = [(channels: levels[0].channels, h, w)]
    work.convolution(n: n, height: h, width: w, channels: inChannels, outputs: levels[0].channels, kernel: inputKernel)
    func attend(_ level: Level, _ block: Block, _ work: inout WorkEstimate) {
      guard block == .crossAttention else { return }
      work.transformer(
        n: n, height: h, width: w, channels: level.channels, contextChannels: level.contextChannels, tokens: tokens, heads: level.heads,
        layers: level.transformerLayers, onlyCrossAttention: level.onlyCrossAttention)
      work.drop(n * h * w * level.channels)
    }
    var channels = levels[0].channels
    for (index, level) in levels.enumerated() {
      for _ in 0..<level.resnets {
        work.resnet(n: n, height: h, width: w, channels: channels, outputs: level.channels, timeChannels: time, owned: false)
        channels = level.channels
        attend(level, level.down, &work)
        skips.append((channels, h, w))
      }
      guard index < levels.count - 1 else { continue }
      (h, w) = ((h + 1) / 2, (w + 1) / 2)
      work.convolution(n: n, height: h, width: w, channels: channels, outputs: channels, kernel: 3, stride: 2)
      skips.append((channels, h, w))
    }
    // From here on there is an x besides the skips.
    work.hold(n * h * w * channels)
    if hasMiddle, let level = levels.last {
      for index in 0..<2 {
        work.resnet(n: n, height: h, width: w, channels: channels, outputs: channels, timeChannels: time, owned: false)
        work.drop(n * h * w * channels)
        if index == 0 { attend(level, .crossAttention, &work) }
      }
    }
    for (index, level) in levels.reversed().enumerated() {
      for _ in 0...level.resnets {
        let skip = skips.removeLast()
        work.resnet(
          n: n, height: h, width: w, channels: channels + skip.channels, outputs: level.channels, timeChannels: time, owned: false,
          hasOneInput: false)
        work.drop(n * h * w * channels)
        work.drop(n * h * w * skip.channels)
        channels = level.channels
        attend(level, level.up, &work)
      }
      guard index < levels.count - 1, let next = skips.last else { continue }
      let before = n * h * w * channels
      (h, w) = (next.1, next.2)
      work.convolution(n: n, height: h, width: w, channels: channels, outputs: channels, kernel: 3)
      work.drop(before)
    }
    work.hold(n * h * w * channels)
    work.convolution(n: n, height: h, width: w, channels: channels, outputs: outChannels, kernel: outputKernel)
  }

  /// Floats for each token of a text: the keys and values of all layers that attend to it.
  private var textProjections: Int {
    levels.indices.reduce(0) { sum, index in
      let level = levels[index]
      let transformers =
        (level.down == .crossAttention ? level.resnets : 0) + (level.up == .crossAttention ? level.resnets + 1 : 0)
        + (hasMiddle && index == levels.count - 1 ? 1 : 0)
      let attentions = level.transformerLayers * (level.onlyCrossAttention ? 2 : 1)
      return sum + transformers * attentions * 2 * (level.channels / level.heads * level.heads)
    }
  }
}
