import ArgumentParser
import Foundation
import ImageFiles
import LatentDiffusionVideoFiles

struct Show: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Prints how a picture or clip was made, if its file says it.",
    discussion: """
      It reads what this tool, stable-diffusion-webui and ComfyUI write. The option --like FILE of the commands that draw takes the same.

      Example: ldm show apple.png
      """)

  @Argument(help: "A PNG, JPEG, WebP or GIF file.")
  var file: String

  @Flag(help: "As a JSON object: prompt, negative_prompt, settings.")
  var json = false

  func run() throws {
    let parameters = try GenerationParameters.found(in: file)
    guard json else { return print(parameters.text) }
    struct Object: Encodable {
      let prompt, negative_prompt: String
      let settings: [String: String]
    }
    let settings = Dictionary(parameters.settings.map { ($0.name, $0.value) }) { $1 }
    try printJSON(Object(prompt: parameters.prompt, negative_prompt: parameters.negativePrompt, settings: settings), isPretty: true)
  }
}

extension GenerationParameters {
  /// - Throws: a `Failure` for a file that does not say how it was made.
  static func found(in path: String) throws -> GenerationParameters {
    let url = URL(filePath: path)
    // A clip is read where a picture is not.
    let still: GenerationParameters?
    do { still = try GenerationParameters(contentsOf: url) } catch {
      guard let clip = try? Clip(contentsOf: url) else { throw error }
      still = clip.parameters.map { GenerationParameters(parsing: $0) }
    }
    guard let still else { throw Failure("\(path) does not say how it was made.") }
    return still
  }
}
