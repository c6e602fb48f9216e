import Tensor

/// Classifier-free guidance of a high scale with the spread of a lower one, so that colours do not burn.
///
/// Channel by channel, the guided prediction is cut at a percentile of its distance from its mean, and shrunk to the largest distance that the lower scale
/// gives. It sees predictions as the network makes them.
///
/// Source: the extension sd-dynamic-thresholding of stable-diffusion-webui and ComfyUI (`DynThresh`, with constant scales), after the thresholds of Imagen
/// (arXiv:2205.11487).
public struct DynamicThresholding: Guidance {
  /// w.
  public var scale: Float
  /// The scale whose spread is wanted (`mimic_scale`).
  public var mimicScale: Float
  /// 0…1: the part of the distances that are not cut (`threshold_percentile`).
  public var percentile: Double
  /// Whether each channel has its own spread (`separate_feature_channels`).
  public var separatesChannels: Bool
  /// How much of the result is taken, 0…1; the rest is plain guidance (`interpolate_phi`).
  public var phi: Float

  /// - Parameters:
  ///   - scale: w.
  ///   - mimicScale: the scale whose spread is wanted.
  ///   - percentile: 0…1.
  ///   - separatesChannels: whether each channel has its own spread.
  ///   - phi: 0…1.
  public init(scale: Float, mimicScale: Float = 7, percentile: Double = 1, separatesChannels: Bool = true, phi: Float = 1) {
    (self.scale, self.mimicScale, self.percentile) = (scale, mimicScale, percentile)
    (self.separatesChannels, self.phi) = (separatesChannels, phi)
  }

  public var rows: [GuidanceRow] { [GuidanceRow(.negativePrompt), GuidanceRow(.prompt)] }

  public func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    let (negative, text) = (predictions[0], predictions[1])
    let guided = negative + scale * (text - negative)
    guard scale != mimicScale else { return guided }
    let mimicked = negative + mimicScale * (text - negative)
    let pictures = (0..<text.shape[0]).map { row in
      let rows = row..<row + 1
      return limited(guided.rows(rows), to: mimicked.rows(rows))
    }
    let result = Tensor.concatenated(pictures, axis: 0)
    return phi == 1 ? result : phi * result + (1 - phi) * guided
  }

  /// One picture.
  private func limited(_ guided: Tensor, to mimicked: Tensor) -> Tensor {
    func channels(_ tensor: Tensor) -> [(mean: Float, values: [Float])] {
      (0..<tensor.shape.columns).map { channel in
        let values = tensor.channels(channel..<channel + 1).elements
        let mean = Float(values.reduce(0) { $0 + Double($1) } / Double(max(values.count, 1)))
        return (mean, values.map { $0 - mean })
      }
    }
    let own = channels(guided), wanted = channels(mimicked)
    func distances(_ channels: [(mean: Float, values: [Float])]) -> [[Float]] {
      let all = channels.map { $0.values.map(abs) }
      return separatesChannels ? all : Array(repeating: all.flatMap(\.self), count: all.count)
    }
    let limits = zip(distances(own), distances(wanted)).map { own, wanted in
      (cut: own.quantile(percentile), spread: wanted.max() ?? 0)
    }
    let results = zip(own, limits).map { channel, limit in
      // All distances are cut at the larger one, and shrunk to the spread.
      let most = max(limit.cut, limit.spread)
      let values = channel.values.map { most > 0 ? min(max($0, -most), most) / most * limit.spread + channel.mean : channel.mean }
      return Tensor(values, shape: Shape(guided.shape.dimensions.dropLast() + [1]))
    }
    return Tensor.concatenated(results, axis: -1)
  }
}

extension [Float] {
  /// Between the two values that the part lies between, as `torch.quantile`; 0 for nothing.
  fileprivate func quantile(_ part: Double) -> Float {
    guard !isEmpty else { return 0 }
    let part = part.isNaN ? 1 : Swift.min(Swift.max(part, 0), 1)
    let sorted = sorted(), place = part * Double(count - 1), lower = Int(place)
    let upper = Swift.min(lower + 1, count - 1)
    return sorted[lower] + Float(place - Double(lower)) * (sorted[upper] - sorted[lower])
  }
}
