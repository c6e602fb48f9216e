import Tensor

/// How much the edges of two pictures differ, at several scales. It keeps pictures sharp where a loss of pixels alone blurs them.
///
/// With the error e₀ = prediction − target and its average pooling e_{s+1} = A e_s (squares of four pixels), the loss is
///
/// L = 1/S Σ_{s<S} ½ (mean |D_y e_s| + mean |D_x e_s|),
///
/// where D_y and D_x are the differences of neighbouring pixels below and beside one another. All maps are linear, so the error alone is pooled, and
/// gradients go back through the transposes: ∂L/∂e_s = (D_yᵀ sign(D_y e_s) / n_y + D_xᵀ sign(D_x e_s) / n_x) / 2S + Aᵀ ∂L/∂e_{s+1}.
///
/// Source: the multi-scale gradient matching of Ranftl and others, arXiv 1907.01341, with a mean at each scale and average pooling.
public struct MultiscaleGradientLoss: Sendable, Equatable {
  /// S: 1 compares neighbouring pixels, each further scale those of a picture of half the size.
  public let scales: Int

  /// - Parameter scales: S, from 1 to 16.
  /// - Throws: `TrainingError.unusableSetting`.
  public init(scales: Int = 4) throws(TrainingError) {
    try TrainingError.check("the number of scales", Double(scales), "from 1 to 16") { 1...16 ~= $0 }
    self.scales = scales
  }

  /// - Parameters:
  ///   - prediction: `[N, H, W, C]`, with at least two pixels a side at the smallest scale.
  ///   - target: of the same shape.
  /// - Throws: `TrainingError`.
  public func callAsFunction(_ prediction: Tensor, _ target: Tensor, in context: ExecutionContext) throws(TrainingError) -> Loss {
    try TrainingError.check("The target", target.shape, prediction.shape)
    let side = 2 << (scales - 1)
    guard prediction.shape.rank == 4, prediction.count > 0, prediction.shape[1] >= side, prediction.shape[2] >= side else {
      throw .unusableSetting(
        name: "the shape of the pictures for a loss with \(scales) scales", found: "\(prediction.shape)",
        needed: "[N, H, W, C] with sides of at least \(side)")
    }
    var error = prediction
    error.update(reading: [target], in: context) { run in
      let (error, target) = (run.target(0), run.source(0))
      for i in 0..<run.count { error[i] -= target[i] }
    }
    let (value, gradient) = loss(of: error, scales: scales, in: context)
    return try Loss(value, gradient: gradient)
  }

  /// The loss of an error at its own scale and at those below it.
  private func loss(of error: Tensor, scales rest: Int, in context: ExecutionContext) -> (value: Double, gradient: Tensor) {
    var (value, gradient) = (0.0, Tensor(zerosLike: error))
    for axis in Tensor.PixelAxis.allCases {
      let differences = error.differences(axis, in: context), zeros = Tensor(zerosLike: differences)
      let share = 0.5 / (Double(scales) * Double(differences.count))
      value += share * ElementLoss.meanAbsolute.sum(differences, zeros, in: context)
      ElementLoss.meanAbsolute.gradient(differences, zeros, scale: share, in: context).addDifferences(axis, to: &gradient, in: context)
    }
    if rest > 1 {
      let below = loss(of: error.averagePooled(in: context), scales: rest - 1, in: context)
      value += below.value
      below.gradient.addAveragePooled(to: &gradient, in: context)
    }
    return (value, gradient)
  }
}
