import ArgumentParser
import Foundation
import LatentDiffusion

struct Inspect: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Prints what a model is, as JSON: family, components, parameters, types, sizes, unused and missing keys.",
    discussion: "The exit status is 0 where there is a model at all; what is wrong with a component stands in its \"problem\".")

  @Argument(help: "A folder in diffusers' layout or a .safetensors file.")
  var path: String

  func run() async throws {
    let url = URL(filePath: path)
    try printJSON(try await ExecutionContext().run { try StableDiffusion.inspect(url, in: $0) }, isPretty: true)
  }
}
