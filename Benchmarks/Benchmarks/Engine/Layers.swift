import LatentDiffusion

/// The two layers of which a U-Net is made, at the resolutions of Stable Diffusion at 512×512.
func layers() {
  for (side, channels) in [(64, 320), (32, 640), (16, 1280)] {
    let size = "\(side)x\(side) of \(channels)"
    measure("ResnetBlock2D, \(size)") { context -> Work in
      let (x, time) = (noise([1, side, side, channels]), noise([1, 1280]))
      let block = try random(in: context) {
        try ResnetBlock2D(channels, channels, timeChannels: 1280, groups: 32, epsilon: 1e-5, weights: $0)
      }
      return { try block([x], time: time, in: $0) }
    }
    measure("Transformer2DModel, \(size)") { context -> Work in
      let (x, text) = (noise([1, side, side, channels]), noise([1, 77, 768]))
      let block = try random(in: context) {
        try Transformer2DModel(channels, contextChannels: 768, heads: 8, layers: 1, groups: 32, linearProjection: false, weights: $0)
      }
      return { try block(x, attendingTo: TextStates(text), in: $0) }
    }
  }
}
