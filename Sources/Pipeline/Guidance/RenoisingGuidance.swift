import Tensor

/// Classifier-free guidance for what the picture is, while the noise of the negative prompt's prediction is put back (CFG++). λ is from 0 to 1.
///
/// With x₀(λ) from ε₋ + λ (ε₊ − ε₋), a step of DDIM goes to α′ x₀(λ) + σ′ ε₋. Source: Chung et al. 2024 (arXiv:2406.08070); `euler_cfg_pp` of ComfyUI.
public struct RenoisingGuidance: Guidance {
  /// λ.
  public var scale: Float

  /// - Parameter scale: λ, 0…1. The paper has 0.6 where plain guidance has 7.5.
  public init(scale: Float = 0.6) { self.scale = scale }

  public var rows: [GuidanceRow] { [GuidanceRow(.negativePrompt), GuidanceRow(.prompt)] }
  public func renoisingRow(at step: Int, of count: Int) -> Int? { 0 }

  public func combined(_ predictions: [Tensor], at step: GuidanceStep) -> Tensor {
    predictions[0] + scale * (predictions[1] - predictions[0])
  }
}
