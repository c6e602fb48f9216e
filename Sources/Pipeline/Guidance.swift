import LatentDiffusionComponents
import Tensor

/// How many rows a picture takes in a pass, and how their predictions become one.
enum Guidance: Sendable {
  /// One row.
  case none
  /// Two: negative prompt, prompt.
  case text(scale: Float, rescale: Float)
  /// Three: prompt with the picture, negative prompt with the picture, negative prompt without it (arXiv:2211.09800, equation 3).
  case textAndImage(text: Float, image: Float)

  var rows: Int {
    switch self {
    case .none: 1
    case .text: 2
    case .textAndImage: 3
    }
  }

  /// The conditioning of a pass.
  func conditioning(prompt: Conditioning, negative: () throws -> Conditioning) rethrows -> Conditioning {
    switch self {
    case .none: return prompt
    case .text: return .concatenated([try negative(), prompt])
    case .textAndImage:
      let negative = try negative()
      return .concatenated([prompt, negative, negative])
    }
  }

  /// - Parameter prediction: `[rows · N, h, w, C]`.
  /// - Returns: `[N, h, w, C]`.
  func combined(_ prediction: Tensor) -> Tensor {
    let count = prediction.shape[0] / rows
    func part(_ index: Int) -> Tensor { prediction.rows(index * count..<(index + 1) * count) }
    switch self {
    case .none:
      return prediction
    case .text(let scale, let rescale):
      let (negative, text) = (part(0), part(1))
      let guided = negative + scale * (text - negative)
      return rescale > 0 ? rescaled(guided, to: text, by: rescale) : guided
    case .textAndImage(let textScale, let imageScale):
      let (text, image, neither) = (part(0), part(1), part(2))
      return neither + textScale * (text - image) + imageScale * (image - neither)
    }
  }

  /// Guidance spreads the prediction; this takes a part of it back (`rescale_noise_cfg`).
  private func rescaled(_ guided: Tensor, to text: Tensor, by factor: Float) -> Tensor {
    let rows = (0..<guided.shape[0]).map { row in
      let (guided, text) = (guided.rows(row..<row + 1), text.rows(row..<row + 1))
      // A prediction without any spread has nothing to take back.
      let spread = guided.standardDeviation
      guard spread > 0 else { return guided }
      return factor * (guided * (text.standardDeviation / spread)) + (1 - factor) * guided
    }
    return Tensor.concatenated(rows, axis: 0)
  }
}

extension Tensor {
  /// Over all elements, with n - 1 in the denominator, as `torch.std` has it.
  fileprivate var standardDeviation: Float {
    let values = elements.map(Double.init)
    guard values.count > 1 else { return 0 }
    let mean = values.reduce(0, +) / Double(values.count)
    let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
    return Float((squares / Double(values.count - 1)).squareRoot())
  }
}
