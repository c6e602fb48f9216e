import LatentDiffusionComponents
import Foundation
import Schedulers
import Tensor
import LatentDiffusionTestSupport

/// A trajectory of diffusers, dumped by `Tests/Fixtures/schedulers/make_trajectories.py`.
struct Trajectory: Decodable {
  let steps: Int
  let begin: Int
  let eta: Double?
  let s_noise: Double?
  let churn: [String: Double]?
  let spacing: SigmaSpacing?
  let strength: Double?
  let timesteps: [Float]
  let sigmas: [Float?]?
  let initialNoiseScale: Float
  let hasOriginal: Bool
  let offset: Int

  /// A case with its configuration as it stood, and the samples: what the loop started from, and what each step gave.
  struct Case {
    let name: String
    let configuration: SchedulerConfiguration
    let trajectory: Trajectory
    let samples: [Tensor]
    let original: Tensor?
  }

  static func cases(of kind: SchedulerKind) throws -> [Case] {
    let folder = fixtures.appending(path: "schedulers")
    let text = try Data(contentsOf: folder.appending(path: "\(kind.rawValue).json"))
    let trajectories = try JSONDecoder().decode([Trajectory].self, from: text)
    let objects = try JSONSerialization.jsonObject(with: text) as? [[String: Any]] ?? []
    let floats = try Data(contentsOf: folder.appending(path: "\(kind.rawValue).f32")).withUnsafeBytes { bytes in
      stride(from: 0, to: bytes.count, by: 4).map { Float(bitPattern: bytes.loadUnaligned(fromByteOffset: $0, as: UInt32.self)) }
    }
    return try zip(trajectories, objects).map { trajectory, object in
      let config = try JSONSerialization.data(withJSONObject: object["config"] ?? [:], options: .sortedKeys)
      func sample(_ index: Int) -> Tensor {
        let start = trajectory.offset + index * Pseudo.shape.count
        return Tensor(Array(floats[start..<start + Pseudo.shape.count]), shape: Pseudo.shape).channelsLast()
      }
      let count = trajectory.timesteps.count - trajectory.begin + 1
      var configuration = try SchedulerConfiguration(json: config)
      configuration.spacing = trajectory.spacing
      configuration.sampling.eta = trajectory.eta
      configuration.sampling.noiseScale = trajectory.s_noise ?? trajectory.churn?["s_noise"]
      configuration.sampling.churn = trajectory.churn?["s_churn"]
      configuration.sampling.churnMinimum = trajectory.churn?["s_tmin"]
      configuration.sampling.churnMaximum = trajectory.churn?["s_tmax"]
      return Case(
        name:
          "\(trajectory.steps) steps from \(trajectory.begin), \(trajectory.spacing?.rawValue ?? "") \(String(decoding: config, as: UTF8.self))",
        configuration: configuration, trajectory: trajectory, samples: (0..<count).map(sample),
        original: trajectory.hasOriginal ? sample(count) : nil)
    }
  }
}

/// The formulas that stand in for a picture, a predictor and a random generator, the same as in `make_trajectories.py`.
enum Pseudo {
  /// NCHW.
  static let shape: Shape = [2, 4, 2, 3]
  static let noise = picture(0.6180339887498949)
  static let data = picture(0.7548776662466927)
  private static let pattern = picture(0.5698402909980532)

  private static func picture(_ step: Double) -> Tensor {
    Tensor(weyl(step, from: 0, count: shape.count), shape: shape).channelsLast()
  }

  static func weyl(_ step: Double, from start: Int, count: Int) -> [Float] {
    (start..<start + count).map { index in
      let product = Double(index + 1) * step
      return Float((product - product.rounded(.down) - 0.5) * 12.0.squareRoot())
    }
  }

  static func predict(_ sample: Tensor, timestep: Float) -> Tensor {
    sample * 0.5 + pattern * (timestep * 0.001) * 0.5
  }

  /// What a network that learned its variance says of it.
  static let variance = pattern.map { $0 * 0.5 + 0.9 }

  struct Source: NoiseSource {
    var position = 0

    mutating func normal(_ count: Int) -> [Float] {
      defer { position += count }
      return Pseudo.weyl(0.8191725133961645, from: position, count: count)
    }
  }
}
