import ArgumentParser
import Foundation
import ImageServer
import LatentDiffusion
import Logging

extension WeightForm: @retroactive ExpressibleByArgument {}

@main
struct ImageServerProgram: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "image-server",
    abstract: "Draws pictures for clients of OpenAI's interface and the webui's, and for a page.",
    discussion: """
      Example: image-server --model sd15=models/stable-diffusion-v1-5 --state ~/pictures
      The key that clients must send is read from the environment's IMAGE_SERVER_KEY, or from --key-file.
      """)

  @Option(help: "Where to listen. 0.0.0.0 lets other machines come in; then set a key.") var host = "127.0.0.1"
  @Option(help: "The port; 0 takes any that is free.") var port = 7860
  @Option(
    help: "A model: a folder in diffusers' layout, or a file. The first one is for clients that name none.", transform: { try Named($0) })
  var model: [Named] = []
  @Option(help: "A folder of models.") var modelFolder: [String] = []
  @Flag(name: .customLong("no-embedded"), help: "Leaves out the model that comes with the program.") var leavesOutEmbedded = false
  @Option(help: "A folder of LoRAs.") var loraFolder: [String] = []
  @Option(help: "The folder in which jobs and pictures are kept. Without it, a temporary one, which is removed at the end.") var state:
    String?
  @Option(help: "A file with the key that clients must send.") var keyFile: String?
  @Option(help: "A site whose pages may use the server: http://example.org, or * for all.") var corsOrigin: [String] = []
  @Option(help: "A name by which clients call the server, beside its address; * for any.") var hostName: [String] = []
  @Option(help: "Bytes that the server may have resident, such as 4GB: models are streamed, or let go.", transform: { try parsedBytes($0) })
  var memoryLimit: Int?
  @Option(help: "The form in which weights are held: \(WeightForm.allCases.map(\.rawValue).joined(separator: ", ")).") var weights:
    WeightForm?
  @Option(help: "Threads to compute on. Without it, one for each processor.") var threads: Int?
  @Option(help: "Pixels of a picture's longer side at most.") var maxSide = ServerLimits().side
  @Option(help: "Pixels of a picture at most.") var maxPixels = ServerLimits().pixels
  @Option(help: "Steps at most.") var maxSteps = ServerLimits().steps
  @Option(help: "Letters of a prompt at most.") var maxPrompt = ServerLimits().promptCharacters
  @Option(help: "Pictures of a request at most.") var maxCount = ServerLimits().count
  @Option(help: "Bytes of a request at most, such as 32MB.", transform: { try parsedBytes($0) }) var maxBody = ServerLimits().bodyBytes
  @Option(help: "Seconds in which a request's body must have come.") var bodySeconds = ServerLimits().bodySeconds
  @Option(help: "Jobs that wait at most; further ones are refused.") var queue = ServerLimits().queue
  @Option(help: "Finished jobs that are remembered with their pictures at most.") var keep = ServerLimits().kept
  @Option(help: "Connections at once at most.") var connections = ServerLimits().connections
  @Option(help: "Seconds that a running job may take to end when the server stops, before it is parked.") var grace = 10
  @Option(help: "What is logged: trace, debug, info, notice, warning or error.") var logLevel = Logger.Level.notice

  func validate() throws {
    let most = GenerationRequest.maximumPixels
    for (name, value, range) in [
      ("port", port, 0...65535), ("threads", threads ?? 1, 1...1024), ("max-side", maxSide, 1...16384), ("max-pixels", maxPixels, 1...most),
      ("max-steps", maxSteps, 1...100_000), ("max-prompt", maxPrompt, 1...GenerationRequest.maximumPromptBytes),
      ("max-count", maxCount, 1...1000),
      ("max-body", maxBody, 1024...1 << 30), ("queue", queue, 1...100_000), ("keep", keep, 1...1_000_000),
      ("connections", connections, 1...100_000),
      ("grace", grace, 0...3600),
    ] where !range.contains(value) {
      throw ValidationError("--\(name) must be from \(range.lowerBound) to \(range.upperBound).")
    }
    guard (1...3600).contains(bodySeconds) else { throw ValidationError("--body-seconds must be from 1 to 3600.") }
  }

  func run() async throws {
    if memoryLimit != nil { Self.shareOneArena() }
    var logger = Logger(label: "image-server", factory: { StreamLogHandler.standardError(label: $0) })
    logger.logLevel = logLevel
    let temporary = state == nil ? FileManager.default.temporaryDirectory.appending(path: "image-server-\(UUID().uuidString)") : nil
    defer { if let temporary { try? FileManager.default.removeItem(at: temporary) } }
    let folder = state.map { URL(filePath: $0) } ?? temporary ?? URL(filePath: ".")
    let configuration = try configuration(folder)
    if configuration.key == nil, !["127.0.0.1", "localhost", "::1"].contains(host) {
      logger.warning("Everybody who reaches \(host) can use the server: set IMAGE_SERVER_KEY or --key-file.")
    }
    let server = try ImageServer(configuration, logger: logger)
    let kept =
      state.map { "Pictures are kept in \($0)." } ?? "Pictures are kept until the server stops; --state FOLDER keeps them for good."
    try await server.run { address in
      print(
        "The page: \(address)/\nFor programs: \(address)/v1 (OpenAI), \(address)/sdapi/v1 (webui), \(address)/openapi.json\n\(kept) Stop with Ctrl-C."
      )
      fflush(nil)
    }
  }

  /// Begins again with one arena for all threads. Otherwise glibc keeps an arena for each, and in it the memory of models that were let go, which would
  /// go beyond the limit. Only the environment says so, and only before a program starts.
  private static func shareOneArena() {
    #if os(Linux)
      let name = "MALLOC_ARENA_MAX"
      guard ProcessInfo.processInfo.environment[name] == nil, setenv(name, "1", 1) == 0 else { return }
      var arguments: [UnsafeMutablePointer<CChar>?] = CommandLine.arguments.map { strdup($0) }
      arguments.append(nil)
      // Where this fails the server goes on as it is.
      execv("/proc/self/exe", &arguments)
    #endif
  }

  private func configuration(_ folder: URL) throws -> ServerConfiguration {
    var configuration = ServerConfiguration(state: folder)
    (configuration.host, configuration.port) = (host, port)
    configuration.models = try model.map(\.file) + modelFolder.flatMap { try NamedFile.models(in: URL(filePath: $0)) }
    if !leavesOutEmbedded { configuration.models.append(try .embedded()) }
    configuration.loras = try loraFolder.flatMap { try NamedFile.loras(in: URL(filePath: $0)) }
    configuration.key = try key()
    (configuration.allowedOrigins, configuration.hostNames) = (corsOrigin, hostName.contains("*") ? nil : hostName)
    (configuration.memoryLimit, configuration.weights, configuration.threads) = (memoryLimit, weights, threads)
    configuration.grace = .seconds(grace)
    var limits = ServerLimits()
    (limits.side, limits.pixels, limits.steps, limits.promptCharacters) = (maxSide, maxPixels, maxSteps, maxPrompt)
    (limits.count, limits.bodyBytes, limits.bodySeconds) = (maxCount, maxBody, bodySeconds)
    (limits.queue, limits.kept, limits.connections) = (queue, keep, connections)
    configuration.limits = limits
    return configuration
  }

  private func key() throws -> String? {
    guard let keyFile else { return ProcessInfo.processInfo.environment["IMAGE_SERVER_KEY"].flatMap { $0.isEmpty ? nil : $0 } }
    guard let text = try? String(contentsOfFile: keyFile, encoding: .utf8) else {
      throw ValidationError("--key-file \(keyFile) cannot be read.")
    }
    let key = text.trimmingCharacters(in: .whitespacesAndNewlines)
    guard !key.isEmpty else { throw ValidationError("--key-file \(keyFile) is empty.") }
    return key
  }
}

/// `NAME=PATH`, or a path whose last part is the name.
struct Named {
  let file: NamedFile

  init(_ text: String) throws {
    let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
    guard let path = parts.last, !path.isEmpty else { throw ValidationError("--model must be NAME=PATH, or a path.") }
    let url = URL(filePath: path)
    guard FileManager.default.fileExists(atPath: path) else { throw ValidationError("--model: there is no \(path).") }
    file = NamedFile(name: parts.count == 2 ? parts[0] : url.deletingPathExtension().lastPathComponent, url: url)
  }
}

extension Logger.Level: @retroactive ExpressibleByArgument {}

/// `4GB`, `512MB`, `2GiB`, or bytes: the units of `ldm`.
func parsedBytes(_ text: String) throws -> Int {
  let units = [("GIB", 0x1p30), ("MIB", 0x1p20), ("GB", 1e9), ("MB", 1e6), ("", 1)]
  let words = text.uppercased()
  guard let (unit, factor) = units.first(where: { words.hasSuffix($0.0) }), let number = Double(words.dropLast(unit.count)),
    (1...1e15).contains(number * factor)
  else { throw ValidationError("\(text) is no number of bytes such as 4GB, 512MB, 2GiB or 1000000.") }
  return Int(number * factor)
}
