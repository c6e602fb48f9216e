import ArgumentParser
import Foundation
import LatentDiffusion

/// `ldm`: latent diffusion from a command line.
///
/// Exit status: 0 for success, 1 for a failure that a sentence on standard error explains, 64 for an invalid command line, 130 and 143 after an interrupt or
/// termination signal.
@main struct LDM: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ldm", abstract: "Makes and changes pictures by latent diffusion, on the CPU.",
    version: "ldm \(version), kernels \(KernelSet.active)",
    subcommands: [
      Txt2Img.self, Img2Img.self, Inpaint.self, Outpaint.self, Edit.self, Variation.self, Depth2Img.self, Upscale.self, Unconditional.self,
      Class2Img.self, HiRes.self, Grid.self, Batch.self, Show.self, MorphCommand.self, Txt2Video.self, Video2Video.self, Img2Video.self,
      Train.self, Encode.self, Decode.self, Canny.self,
      Tokenize.self, PromptCommand.self,
      ScheduleCommand.self, SchedulersCommand.self, Inspect.self, Convert.self, Bench.self, ManPages.self,
    ])
  static let version = "0.16.0"

  static func main() async {
    let given = CommandLineArguments.separatingEmptyValues(Array(CommandLine.arguments.dropFirst()), of: Self.self)
    if let problem = KernelSet.problem { Progress.warn(problem) }
    let work = Task {
      let asked = try Like.expanded(ConfigFile.expanded(given), of: Self.self)
      let all = try Defaults.expanded(asked, of: Self.self)
      var command = try parseAsRoot(Fast.expanded(all, own: asked.count - 1, of: Self.self))
      if KernelSet.isDebugBuild, command is any AsyncParsableCommand {
        Progress.warn("This is a debug build, which is some ten times slower; build with -c release (make ldm does).")
      }
      if var command = command as? any AsyncParsableCommand {
        try await command.run()
      } else {
        try command.run()
      }
    }
    let signals = Signals { work.cancel() }
    do {
      try await work.value
    } catch is CancellationError {
      signals.exit()
    } catch {
      tell(error)
    }
  }

  /// Ends the program with one line on standard error, even if a path or a file put line breaks into the message. Help is printed unchanged.
  private static func tell(_ error: any Error) -> Never {
    let code = exitCode(for: error)
    guard code != .success else { exit(withError: error) }
    var sentence = ""
    for line in message(for: error).split(whereSeparator: \.isNewline) {
      // After a colon come the allowed values, one on each line.
      let item = line.firstRange(of: "  - ").map { line[$0.upperBound...] }
      sentence += (sentence.isEmpty ? "" : item == nil || sentence.hasSuffix(":") ? " " : ", ") + (item ?? line)
    }
    sentence.unicodeScalars.removeAll { $0.properties.generalCategory == .control }
    if sentence.last.map({ !".!?".contains($0) }) ?? true { sentence += "." }
    if code == .validationFailure, let hint = fullMessage(for: error).split(whereSeparator: \.isNewline).last {
      sentence += " " + hint.drop { $0 == " " }
    }
    try? FileHandle.standardError.write(contentsOf: Data("Error: \(sentence)\n".utf8))
    exit(withError: code)
  }
}

/// A failure in one sentence that says what to do.
struct Failure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
