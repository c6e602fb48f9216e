import Foundation
import LatentDiffusionComponents
import Tensor

/// `algorithm_type`.
enum DPMSolverAlgorithm: String, CaseIterable, Codable {
  /// The ODE, solved for predictions of x₀.
  case plusPlus = "dpmsolver++"
  /// The ODE, solved for predictions of ε.
  case plain = "dpmsolver"
  /// The SDE, solved for predictions of x₀.
  case stochasticPlusPlus = "sde-dpmsolver++"
  /// The SDE, solved for predictions of ε.
  case stochastic = "sde-dpmsolver"
  /// The name of another solver. diffusers takes DPM-Solver++ in its place.
  case deis

  var isStochastic: Bool { self == .stochasticPlusPlus || self == .stochastic }
  var predictsOriginal: Bool { self != .plain && self != .stochastic }
}

/// `solver_type`: how the second-order term is integrated.
enum DPMSolverType: String, CaseIterable, Codable {
  case midpoint
  case heun
  /// Names that belong to other solvers. diffusers takes `midpoint` in their place.
  case logrho, bh1, bh2
}

/// What the sample, the prediction, its differences and fresh noise are multiplied by in a step of DPM-Solver, h = λ_t − λ_s long.
///
/// Source: equations 9 and 10 of arXiv 2211.01095, and its appendix for the others.
struct DPMSolverWeights {
  private var sample: Float
  private var output: Float
  private var slope: Float
  /// Of D₁ in a step of third order.
  private var slopeByHeun: Float
  private var curvature: Float
  private var noise: Float = 0

  init(_ algorithm: DPMSolverAlgorithm, _ solver: DPMSolverType, from here: NoiseLevel, to next: NoiseLevel) {
    let h = next.lambda - here.lambda
    switch algorithm {
    case .plusPlus, .deis:
      let phi = exp(-h) - 1
      (sample, output, slope) = (next.sigma / here.sigma, -(next.alpha * phi), -(0.5 * (next.alpha * phi)))
      (slopeByHeun, curvature) = (next.alpha * (phi / h + 1), -(next.alpha * ((phi + h) / (h * h) - 0.5)))
    case .plain:
      let phi = exp(h) - 1
      (sample, output, slope) = (next.alpha / here.alpha, -(next.sigma * phi), -(0.5 * (next.sigma * phi)))
      (slopeByHeun, curvature) = (-(next.sigma * (phi / h - 1)), -(next.sigma * ((phi - h) / (h * h) - 0.5)))
    case .stochasticPlusPlus:
      let phi = 1 - exp(-2 * h)
      (sample, output, slope) = (next.sigma / here.sigma * exp(-h), next.alpha * phi, 0.5 * (next.alpha * phi))
      (slopeByHeun, curvature) = (next.alpha * (phi / (-2 * h) + 1), next.alpha * ((phi - 2 * h) / (2 * h * (2 * h)) - 0.5))
      noise = next.sigma * phi.squareRoot()
    case .stochastic:
      let phi = exp(h) - 1
      (sample, output, slope) = (next.alpha / here.alpha, -2 * (next.sigma * phi), -(next.sigma * phi))
      (slopeByHeun, curvature) = (-2 * (next.sigma * (phi / h - 1)), 0)
      noise = next.sigma * (exp(2 * h) - 1).squareRoot()
    }
    if solver == .heun { slope = slopeByHeun }
  }

  /// The sample at the step's end. What is nil has no part in it.
  /// - Parameters:
  ///   - start: the sample at the step's start.
  ///   - prediction: x₀ or ε, whichever the algorithm solves for.
  ///   - first: its difference D₁, in units of the step.
  ///   - second: its difference D₂.
  ///   - byHeun: whether D₁ is integrated by Heun's rule whatever `solver_type` says.
  ///   - drawn: standard normal noise.
  func combined(
    _ start: Tensor, output prediction: Tensor, slope first: Tensor?, curvature second: Tensor?, byHeun: Bool = false, noise drawn: Tensor?
  ) -> Tensor {
    var result = sample * start + output * prediction
    if let first { result = result + (byHeun || second != nil ? slopeByHeun : slope) * first }
    if let second { result = result + curvature * second }
    if let drawn { result = result + noise * drawn }
    return result
  }
}
