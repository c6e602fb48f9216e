import CLatentDiffusionKernels

/// The gradients of normalisations.
extension CPUEngine {
  /// With x̂ = (x − μ) / σ, h = gradient · activation'(γ x̂ + β) and means over a group: dβ = Σ h, dγ = Σ h x̂ and
  /// dx = (γ h − mean(γ h) − x̂ · mean(γ h x̂)) / σ. Source: Ioffe and Szegedy 2015, PyTorch's `native_group_norm_backward`.
  public func groupNormalizationGradient(
    _ inputs: [Tensor], by normalization: GroupNormalization, activation: Activation, gradient: Tensor, in context: ExecutionContext
  ) throws -> (inputs: [Tensor], weight: Tensor, bias: Tensor) {
    precondition(activation == .none || activation == .silu, "A normalisation ends with SiLU or nothing.")
    let affine = try normalization.affine(of: inputs, in: context)
    let channels = normalization.channels, batch = inputs[0].shape[0], pixels = inputs[0].shape.rows / max(batch, 1)
    let run = GroupNormalization.run(channels), runs = (pixels + run - 1) / run
    let results = inputs.map { Tensor(uninitialized: $0.shape) }
    let sums = Tensor(uninitialized: [batch * runs, 2, channels])
    try context.parallel(batch * runs) { task in
      let image = task / runs, begin = task % runs * run
      forChannels(of: inputs) { index, channel, width in
        let first = (image * pixels + begin) * width, place = image * channels + channel
        var numbers = ck_normalization(
          scale: affine.scale.pointer + place, shift: affine.shift.pointer + place, rate: affine.rate.pointer + place,
          offset: affine.offset.pointer + place)
        let target = sums.mutablePointer + task * 2 * channels + channel
        Kernels.active.norm_back(
          activation.code, min(run, pixels - begin), width, inputs[index].pointer + first, &numbers,
          gradient.pointer + (image * pixels + begin) * channels + channel, channels, results[index].mutablePointer + first, target,
          target + channels)
      }
    }
    let parts = normalization.gradientParts(sums, affine: affine, runs: runs, count: pixels)
    try context.parallel(batch * runs) { task in
      let image = task / runs, begin = task % runs * run
      forChannels(of: inputs) { index, channel, width in
        let first = (image * pixels + begin) * width, place = 3 * image * channels + channel
        let result = results[index].mutablePointer + first, factors = parts.factors.pointer + place
        Kernels.active.combine(
          min(run, pixels - begin), width, result, factors, inputs[index].pointer + first, factors + channels, factors + 2 * channels,
          result)
      }
    }
    return (results, parts.weight, parts.bias)
  }

  /// Calls `body` for the channels of each input: its index, its first channel among those of all, and how many it has.
  private func forChannels(of inputs: [Tensor], _ body: (_ index: Int, _ channel: Int, _ width: Int) -> Void) {
    var channel = 0
    for (index, input) in inputs.enumerated() {
      body(index, channel, input.shape.columns)
      channel += input.shape.columns
    }
  }

  /// As for groups, with one group a row. Source: Ba, Kiros and Hinton 2016, PyTorch's `native_layer_norm_backward`.
  public func layerNormalizationGradient(
    _ x: Tensor, weight: Tensor, epsilon: Float, gradient: Tensor, in context: ExecutionContext
  ) throws -> (x: Tensor, weight: Tensor, bias: Tensor) {
    let columns = x.shape.columns, rows = x.shape.rows, run = GroupNormalization.run(columns), runs = (rows + run - 1) / run
    let result = Tensor(uninitialized: x.shape), parts = Tensor(repeating: 0, shape: [runs, 2 * columns])
    try context.parallel(runs) { task in
      let begin = task * run, first = begin * columns, sums = parts.mutablePointer + task * 2 * columns
      Kernels.active.layer_norm_back(
        min(run, rows - begin), columns, epsilon, x.pointer + first, weight.pointer, gradient.pointer + first,
        result.mutablePointer + first,
        sums, sums + columns)
    }
    let both = try columnSums(parts, groups: 1, in: context).reshaped([2, columns])
    return (result, both.rows(0..<1).reshaped([columns]), both.rows(1..<2).reshaped([columns]))
  }
}

extension GroupNormalization {
  /// - Parameters:
  ///   - sums: `[N · runs, 2, C]`: Σ h and Σ h x̂ of each run.
  ///   - count: the number of pixels of a picture.
  /// - Returns: dγ, dβ, and `[N, 3, C]`: the factors a, b and c of dx = a h + b x + c.
  fileprivate func gradientParts(
    _ sums: Tensor, affine: Affine, runs: Int, count: Int
  ) -> (weight: Tensor, bias: Tensor, factors: Tensor) {
    let (batch, width) = (affine.scale.shape[0], channels / groups)
    let gammas = Tensor(repeating: 0, shape: weight.shape), betas = Tensor(repeating: 0, shape: bias.shape)
    let factors = Tensor(uninitialized: [batch, 3, channels])
    for image in 0..<batch {
      // Where the parameters of a picture begin.
      let first = weight.shape.rank == 1 ? 0 : image * channels
      // Σ h and Σ h x̂ of each channel of the picture.
      var own = [Double](repeating: 0, count: 2 * channels)
      for task in image * runs..<(image + 1) * runs {
        for i in 0..<2 * channels { own[i] += Double(sums.pointer[task * 2 * channels + i]) }
      }
      for group in 0..<groups {
        let range = group * width..<(group + 1) * width
        var (h, product) = (0.0, 0.0)
        for channel in range {
          h += Double(weight.pointer[first + channel]) * own[channel]
          product += Double(weight.pointer[first + channel]) * own[channels + channel]
          betas.mutablePointer[first + channel] += Float(own[channel])
          gammas.mutablePointer[first + channel] += Float(own[channels + channel])
        }
        (h, product) = (h / Double(count * width), product / Double(count * width))
        for channel in range {
          let rate = Double(affine.rate.pointer[image * channels + channel]),
            offset = Double(affine.offset.pointer[image * channels + channel])
          let target = factors.mutablePointer + 3 * image * channels + channel
          target[0] = affine.scale.pointer[image * channels + channel]
          target[channels] = Float(-rate * rate * product)
          target[2 * channels] = Float(-rate * (h + offset * product))
        }
      }
    }
    return (gammas, betas, factors)
  }
}
