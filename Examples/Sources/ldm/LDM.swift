import ArgumentParser
import Foundation

/// `ldm`: latent diffusion from a command line.
///
/// Exit status: 0 done, 1 a failure that one sentence on standard error tells, 64 a command line that makes no sense, 130 and 143
/// stopped by an interrupt or termination signal.
@main struct LDM: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ldm", abstract: "Makes and changes pictures by latent diffusion, on the CPU.",
    subcommands: [
      TextToImage.self, ImageToImage.self, Inpaint.self, Outpaint.self, Edit.self, Encode.self, Decode.self, Tokenize.self,
      ScheduleCommand.self, Inspect.self, Bench.self,
    ])

  static func main() async {
    let work = Task {
      var command = try parseAsRoot()
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
      exit(withError: error)
    }
  }
}

/// A failure in one sentence that says what to do.
struct Failure: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}
