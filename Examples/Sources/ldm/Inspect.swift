import ArgumentParser
import Foundation
import LatentDiffusion

struct Inspect: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect", abstract: "Prints what a model is, as JSON: family, components, parameters, unused and missing keys.")

  @Argument(help: "A folder in diffusers' layout or a .safetensors file.")
  var path: String

  func run() async throws {
    try printJSON(["path": path], isPretty: true)
  }
}
