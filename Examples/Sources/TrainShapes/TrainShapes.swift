import ArgumentParser
import Foundation
import LatentDiffusion

@main struct TrainShapes: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "train-shapes", abstract: "Trains a text-to-image model from nothing on pictures that it draws itself.")

  @Flag(help: "Only check what checks the pictures.") var check = false

  func run() async throws {
    let (checks, failures) = SelfCheck.problems(scenes: 300)
    for failure in failures.prefix(20) { print(failure) }
    print("checks: \(checks), failed: \(failures.count)")
    guard failures.isEmpty else { throw ExitCode.failure }
  }
}
