import Tensor

/// What layers take, followed step by step as their `callAsFunction` runs. Their inputs are held by whoever calls.
extension WorkEstimate {
  /// `ResnetBlock2D`, whose result is held from here on.
  ///
  /// - Parameter owned: whether the block is handed the only reference to a single input, and lets go of it.
  package mutating func resnet(
    n: Int, height: Int, width: Int, channels: Int, outputs: Int, timeChannels: Int?, owned: Bool, hasOneInput: Bool = true
  ) {
    let pixels = n * height * width
    let hasShortcut = channels != outputs || !hasOneInput
    if let timeChannels {
      linear(rows: n, inputs: timeChannels, outputs: outputs)
      drop(n * outputs)
    }
    let handsOver = owned && hasShortcut && hasOneInput
    convolution(
      n: n, height: height, width: width, channels: channels, outputs: outputs, kernel: 3, dropping: handsOver ? pixels * channels : 0,
      shortcut: hasShortcut ? outputs : 0, isNormalized: true)
    convolution(
      n: n, height: height, width: width, channels: outputs, outputs: outputs, kernel: 3, dropping: pixels * outputs, isNormalized: true,
      replacesResidual: hasShortcut || owned)
  }

  /// `Transformer2DModel`, whose result is held from here on.
  package mutating func transformer(
    n: Int, height: Int, width: Int, channels: Int, contextChannels: Int, tokens: Int, heads: Int, layers: Int, onlyCrossAttention: Bool
  ) {
    let length = height * width, rows = n * length
    let headChannels = channels / heads, inner = heads * headChannels
    hold(rows * channels)
    linear(rows: rows, inputs: channels, outputs: inner)
    drop(rows * channels)
    for _ in 0..<layers {
      for isCross in [onlyCrossAttention, true] {
        let (others, features) = isCross ? (tokens, contextChannels) : (length, inner)
        hold(rows * inner)
        linear(rows: rows, inputs: inner, outputs: inner)
        for _ in 0..<2 { linear(rows: n * others, inputs: features, outputs: inner) }
        attention(n: n, length: length, others: others, heads: heads, width: headChannels)
        drop(rows * inner)
        for _ in 0..<2 { drop(n * others * inner) }
        linear(rows: rows, inputs: inner, outputs: inner)
        // What was mixed, what was normalised, and what the block began with.
        for _ in 0..<3 { drop(rows * inner) }
      }
      hold(rows * inner)
      linear(rows: rows, inputs: inner, outputs: 8 * inner, isGated: true)
      linear(rows: rows, inputs: 4 * inner, outputs: inner)
      drop(rows * 4 * inner)
      for _ in 0..<2 { drop(rows * inner) }
    }
    linear(rows: rows, inputs: inner, outputs: channels)
    drop(rows * inner)
  }
}
