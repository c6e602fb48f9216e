import LatentDiffusion

/// Tokens times the weights of linear layers, as Stable Diffusion's U-Net has them at 512×512.
func products() {
  for (rows, inputs, outputs) in [(4096, 320, 320), (4096, 320, 2560), (1024, 640, 640), (256, 1280, 1280)] {
    measure("product, \(rows)x\(inputs) to \(outputs)") { context -> Work in
      let (x, weights) = (noise([rows, inputs]), try randomMatrix([outputs, inputs], in: context))
      return { try x.multiplied(by: weights, in: $0) }
    }
  }
}

/// 3×3 windows at the U-Net's resolutions and at one of the decoder's, by both methods.
func convolutions() {
  for (side, channels) in [(64, 320), (32, 640), (16, 1280), (256, 256)] {
    for (name, method) in [("direct", ConvolutionMethod.direct), ("Winograd", .winograd)] {
      measure("convolution, \(name), \(side)x\(side) of \(channels) to \(channels)") { context -> Work in
        let (x, weights) = (noise([1, side, side, channels]), try randomMatrix([channels, channels, 3, 3], in: context))
        let geometry = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
        return { try Tensor.convolution([x], weights: weights, geometry: geometry, method: method, in: $0) }
      }
    }
  }
}

func normalizations() {
  for (side, channels) in [(64, 320), (32, 640), (512, 128)] {
    measure("group norm and SiLU, \(side)x\(side) of \(channels)") { _ -> Work in
      let x = noise([1, side, side, channels])
      let (one, zero) = (Tensor(repeating: 1, shape: [channels]), Tensor(shape: [channels]))
      let norm = GroupNormalization(groups: 32, epsilon: 1e-5, weight: one, bias: zero)
      return { try norm([x], activation: .silu, in: $0) }
    }
  }
}

/// Of tokens to each other, and of tokens to the 77 of a prompt.
func attentions() {
  let heads = 8
  for (tokens, size) in [(4096, 40), (1024, 80)] {
    for keys in [tokens, 77] {
      measure("attention, \(tokens) tokens to \(keys), \(heads) heads of \(size)") { _ -> Work in
        let (queries, keys) = (noise([1, tokens, heads * size]), noise([1, keys, heads * size]))
        let scale = 1 / Float(size).squareRoot()
        return { try Tensor.attention(queries: queries, keys: keys, values: keys, heads: heads, scale: scale, in: $0) }
      }
    }
  }
}
