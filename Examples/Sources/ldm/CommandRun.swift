import ArgumentParser
import LatentDiffusion
import Synchronization

/// A command that another one runs: its words are parsed as those of a command line, and what it tells goes to that one.
struct CommandRun {
  /// Commands that draw, by their names.
  static let drawing: [any AsyncParsableCommand.Type] = [
    Txt2Img.self, Img2Img.self, Inpaint.self, Outpaint.self, Edit.self, Variation.self, Depth2Img.self, Upscale.self, Unconditional.self,
    Class2Img.self, HiRes.self, MorphCommand.self, Txt2Video.self, Video2Video.self, Img2Video.self,
  ]
  private let command: any AsyncParsableCommand

  /// - Parameter words: the name of a command that draws, and its options.
  /// - Throws: a `Failure` for words that make no sense.
  init(_ words: [String]) throws {
    let name = words.first ?? ""
    guard let type = Self.drawing.first(where: { $0.configuration.commandName == name }) else {
      let names = Self.drawing.compactMap { $0.configuration.commandName }.joined(separator: ", ")
      throw Failure("\(name) is no command that draws; those are \(names).")
    }
    let given = CommandLineArguments.separatingEmptyValues(words, of: LDM.self)
    let asked = try Like.expanded(given, of: LDM.self)
    let expanded = try Fast.expanded(Defaults.expanded(asked, of: LDM.self), own: asked.count - 1, of: LDM.self)
    command = try Self.parsed(type, Array(expanded.dropFirst()))
  }

  private static func parsed(
    _ type: any AsyncParsableCommand.Type, _ words: [String]
  ) throws -> any AsyncParsableCommand {
    do { return try type.parse(words) } catch {
      throw Failure(type.message(for: error).split(whereSeparator: \.isNewline).joined(separator: " "))
    }
  }

  /// - Parameter told: of its steps and of the end.
  /// - Returns: what it drew, and what it warned of.
  /// - Throws: what the command throws.
  func drawn(_ told: @escaping @Sendable (_ done: Int, _ count: Int) -> Void) async throws -> (files: DrawnFiles, warnings: [String]) {
    let found = Mutex((files: DrawnFiles?.none, warnings: [String]()))
    let listener = Progress.Listener { event in
      switch event {
      case .step(let done, let count): told(done, count)
      case .warning(let warning): found.withLock { $0.warnings.append(warning) }
      case .drawn(let files): found.withLock { $0.files = files }
      }
    }
    var command = command
    try await Progress.$listener.withValue(listener) { try await command.run() }
    let (files, warnings) = found.withLock { $0 }
    guard let files else { throw Failure("The command has not told what it drew.") }
    return (files, warnings)
  }
}

/// Keeps the last model that was loaded, for commands that run one after the other.
final class ModelShelf: Sendable {
  @TaskLocal static var current: ModelShelf?
  private let last = Mutex<(description: String, model: StableDiffusion)?>(nil)

  /// - Parameter description: of everything that loading depends on.
  static func model(_ description: String, load: () async throws -> StableDiffusion) async rethrows -> StableDiffusion {
    guard let current else { return try await load() }
    if let known = current.last.withLock({ $0 }), known.description == description { return known.model }
    // The one before is let go first: two may not fit.
    current.last.withLock { $0 = nil }
    let model = try await load()
    current.last.withLock { $0 = (description, model) }
    return model
  }
}
