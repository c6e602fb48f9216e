import ArgumentParser
import Foundation
import LatentDiffusion

extension WeightFileFormat: @retroactive ExpressibleByArgument {}

struct Convert: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "convert", abstract: "Writes a model with its weights in another form: half the size, a quarter, or less.",
    discussion: """
      A folder becomes a folder, whose weights are GGUF files with --format gguf; a single file becomes a single file, a GGUF file if its name ends in .gguf. \
      The forms: f32; f16 and bf16, half of it; \
      q8 and q4_0, 8 and 4 bits in blocks of 32 with a common scale where the picture bears it, and 16 bits elsewhere. Other programs read \
      such blocks from GGUF files only.

      Example: ldm convert models/sd15 models/sd15-q8 --to q8
      """)

  @Argument(help: "A folder in diffusers' layout, or a .safetensors, .gguf or .ckpt file.")
  var path: String

  @Argument(help: "Where the new model goes: a name that is not taken.")
  var output: String

  @Option(parsing: .unconditional, help: "The form: \(WeightForm.allCases.map(\.rawValue).joined(separator: ", ")).")
  var to: WeightForm

  @Option(
    parsing: .unconditional,
    help:
      "The format of the new files: \(WeightFileFormat.allCases.map(\.rawValue).joined(separator: ", ")). Without it, safetensors in a folder."
  )
  var format: WeightFileFormat?

  @Option(parsing: .unconditional, help: "Threads to compute on. Without it, one for each processor.")
  var threads: Int?

  func validate() throws {
    guard (1...1024).contains(threads ?? 1) else { throw ValidationError("--threads must be from 1 to 1024.") }
    guard !path.isEmpty, !output.isEmpty else { throw ValidationError("Name the model, and the place for the new one.") }
  }

  func run() async throws {
    let progress = Progress()
    do {
      let (files, url, form, format) = (try ModelFiles.open(URL(filePath: path)), URL(filePath: output), to, format)
      progress.begin("Checking \(path)")
      guard files.layout != .singleFile || ["safetensors", "gguf"].contains(url.pathExtension.lowercased()) else {
        throw Failure("\(output) would be a single file, as \(path) is; give a name that ends in .safetensors or .gguf.")
      }
      let context = threads.map { ExecutionContext(threads: $0) } ?? ExecutionContext()
      let made = try await context.run { context in
        try Signals.whole {
          try StableDiffusion.convert(files.url, to: form, as: format, at: url, in: context) { progress.begin("Converting \($0)") }
        }
      }
      let sizes = [made.bytesRead, made.bytesWritten].map { String(format: "%.1f MB", Double($0) / 1e6) }
      let leftOut = made.leftOut.isEmpty ? "" : ", without the weights of \(made.leftOut.joined(separator: " and "))"
      progress.end("\(output): \(sizes[1]) of weights from \(sizes[0])\(leftOut)")
    } catch {
      progress.clear()
      throw error
    }
  }
}
