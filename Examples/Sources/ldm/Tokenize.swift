import ArgumentParser
import Foundation
import LatentDiffusion

struct Tokenize: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tokenize", abstract: "Prints the padded token ids of a text as a JSON array.")
  @OptionGroup var model: ModelOptions

  @Argument(help: "The text.")
  var text: String

  func run() throws {
    try printJSON(try StableDiffusion.tokenizer(from: model.files.base, replacing: model.files.parts).encodePadded(text), isPretty: false)
  }
}
