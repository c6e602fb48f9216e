import EmojiModel
import Foundation
import InMemoryLogging
import LatentDiffusion
import LatentDiffusionLogging
import LatentDiffusionMetrics
import Logging
import MetricsTestKit
import Testing

/// What is loaded and drawn with an observer in the context.
private func drawn(with observer: any WorkObserver, _ change: (inout GenerationRequest) -> Void = { _ in }) async throws {
  var context = ExecutionContext()
  context.workObserver = observer
  let model = try await StableDiffusion.loaded(from: EmojiModel.folder(), in: context)
  var request = model.request("a red apple", seed: 1)
  request.steps = 3
  change(&request)
  _ = try await model.pipeline.images(for: request, in: context)
}

private let long = Prompt(Array(repeating: "apple", count: 100).joined(separator: " "))

@Suite struct LoggingTests {
  private func logger(_ handler: InMemoryLogHandler, _ level: Logger.Level) -> Logger {
    var logger = Logger(label: "test") { _ in handler }
    logger.logLevel = level
    return logger
  }

  @Test func whatIsDrawnIsLogged() async throws {
    let handler = InMemoryLogHandler()
    try await drawn(with: LoggingObserver(logger(handler, .debug)))
    let entries = handler.entries
    #expect(entries.count(where: { $0.metadata["work"] == "step" && $0.level == .debug }) == 3)
    #expect(entries.filter { $0.level == .info }.map { $0.metadata["work"] } == ["loading_model", "generation"])
    #expect(
      entries.compactMap { $0.metadata["work"] == "loading_component" ? $0.metadata["name"]?.description : nil }.sorted() == [
        "text_encoder", "unet", "vae",
      ])
    for entry in entries {
      let seconds = try #require(entry.metadata["seconds"].flatMap { Double($0.description) }, "\(entry)")
      #expect(seconds > 0 && seconds < 600, "\(entry)")
    }
    let steps = entries.filter { $0.metadata["work"] == "step" }
    #expect(steps.map { $0.metadata["index"] } == ["0", "1", "2"])
    #expect(steps.first?.message.description.hasPrefix("step 1 of 3 took ") == true)
  }

  @Test func beginningsWarningsAndErrorsAreLogged() async throws {
    let handler = InMemoryLogHandler()
    try await drawn(with: LoggingObserver(logger(handler, .trace))) { $0.prompts = [long] }
    let beginnings = handler.entries.filter { $0.level == .trace }, ends = handler.entries.filter { $0.metadata["seconds"] != nil }
    #expect(beginnings.count == ends.count && !ends.isEmpty)
    #expect(handler.entries.count { $0.level == .warning && $0.message.description.contains("left out is: apple") } == 1)
    var context = ExecutionContext()
    context.workObserver = LoggingObserver(logger(handler, .info))
    await #expect(throws: ModelFilesError.self) { try await StableDiffusion.loaded(from: URL(filePath: "/none"), in: context) }
    let error = try #require(handler.entries.last)
    #expect(error.level == .error && error.metadata["work"] == "loading_model" && error.metadata["name"] == "none")
    #expect(error.metadata["error"]?.description.contains("/none") == true)
  }

  @Test func whatIsCancelledIsANotice() async throws {
    let handler = InMemoryLogHandler(), logger = logger(handler, .info)
    let drawing = Task { try await drawn(with: LoggingObserver(logger)) { $0.steps = 500 } }
    while !handler.entries.contains(where: { $0.metadata["work"] == "loading_model" }) { try await Task.sleep(for: .milliseconds(5)) }
    try await Task.sleep(for: .milliseconds(50))
    drawing.cancel()
    await #expect(throws: CancellationError.self) { try await drawing.value }
    #expect(handler.entries.contains { $0.level == .notice && $0.metadata["work"] == "generation" })
    #expect(!handler.entries.contains { $0.level == .error })
  }
}

@Suite struct MetricsTests {
  @Test func whatIsDrawnIsMeasured() async throws {
    let metrics = TestMetrics()
    try await drawn(with: MetricsObserver(factory: metrics)) {
      $0.prompts = [long]
      $0.imagesPerPrompt = 2
    }
    func values(_ work: Work.Kind) throws -> [Int64] { try metrics.expectTimer("latent_diffusion_work", [("work", work.rawValue)]).values }
    #expect(try values(.step).count == 3)
    #expect(try values(.decoding).count == 2)
    #expect(try values(.loadingModel).count == 1 && values(.loadingComponent).count == 3 && values(.encodingPrompts).count == 1)
    let (steps, whole) = (try values(.step).reduce(0, +), try values(.generation))
    #expect(whole.count == 1 && steps > 0 && steps < whole[0])
    #expect(try metrics.expectCounter("latent_diffusion_images").totalValue == 2)
    #expect(try metrics.expectCounter("latent_diffusion_warnings").totalValue == 1)
    #expect(metrics.counterTotal(label: "latent_diffusion_failures") == 0)
  }

  @Test func failuresAreCounted() async throws {
    let metrics = TestMetrics()
    var context = ExecutionContext()
    context.workObserver = MetricsObserver(factory: metrics)
    await #expect(throws: ModelFilesError.self) { try await StableDiffusion.loaded(from: URL(filePath: "/none"), in: context) }
    #expect(try metrics.expectCounter("latent_diffusion_failures", [("work", "loading_model")]).totalValue == 1)
    #expect(try metrics.expectTimer("latent_diffusion_work", [("work", "loading_model")]).values.isEmpty)
  }
}
