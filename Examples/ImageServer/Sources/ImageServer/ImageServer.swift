import Foundation
import Hummingbird
import HummingbirdCore
import LatentDiffusion
import LatentDiffusionLogging
import Logging
import NIOCore
import ServiceLifecycle

/// How a server is set up.
public struct ServerConfiguration: Sendable {
  /// Where it listens.
  public var host = "127.0.0.1"
  /// 0: any that is free.
  public var port = 7860
  /// The first one is the one for clients that name none.
  public var models: [NamedFile] = []
  public var loras: [NamedFile] = []
  /// The folder in which jobs and pictures are kept.
  public var state: URL
  /// What clients must send as a bearer; nil: nothing.
  public var key: String?
  /// Sites whose pages may use the server; `*`: all.
  public var allowedOrigins: [String] = []
  /// Names by which clients may call the server beside its address; nil: any.
  public var hostNames: [String]? = []
  public var limits = ServerLimits()
  /// Bytes that the process may have resident; nil: no limit.
  public var memoryLimit: Int?
  /// The form in which weights are held; nil: as the files have them.
  public var weights: WeightForm?
  /// Nil: one for each processor.
  public var threads: Int?
  /// How long a running job may take to end when the server stops, before it is parked.
  public var grace = Duration.seconds(10)

  /// Everything else is as usual.
  public init(state: URL) { self.state = state }
}

/// A server for pictures: OpenAI's interface, the webui's, one of its own, and a page.
///
/// ```swift
/// var configuration = ServerConfiguration(state: folder)
/// configuration.models = [try .embedded()]
/// try await ImageServer(configuration, logger: logger).run { address in print(address) }
/// ```
public struct ImageServer: Sendable {
  private let configuration: ServerConfiguration
  private let logger: Logger
  private let queue: JobQueue
  private let responder: RouterResponder<BasicRequestContext>
  /// Of the interfaces.
  static let version = "0.1.0"

  /// - Throws: `ServerSetupError`.
  public init(_ configuration: ServerConfiguration, logger: Logger) throws {
    (self.configuration, self.logger) = (configuration, logger)
    var context = configuration.threads.map { ExecutionContext(threads: $0) } ?? ExecutionContext()
    context.workObserver = LoggingObserver(logger)
    let (limits, metrics) = (configuration.limits, ServerMetrics())
    let shelf = try ModelShelf(
      models: configuration.models, loras: configuration.loras, limit: configuration.memoryLimit, weights: configuration.weights,
      context: context,
      logger: logger)
    queue = JobQueue(
      shelf: shelf, store: try JobStore(configuration.state), limits: limits, context: context, grace: configuration.grace,
      metrics: metrics,
      logger: logger)
    let router = Router(context: BasicRequestContext.self, options: .autoGenerateHeadEndpoints)
    let description = try InterfaceDescription(
      Resources.data("openapi.json"), limits, names: ["models": shelf.models.map(\.name), "loras": shelf.loras.map(\.name)])
    let page = try PageFile.all(), reader = BodyReader(limits: limits, metrics: metrics)
    router.add(middleware: Self.gate(configuration, metrics, description, page))
    SystemRoutes(queue: queue, shelf: shelf, metrics: metrics, page: page, description: description)
      .add(to: router)
    JobRoutes(queue: queue, shelf: shelf, reader: reader, version: Self.version).add(to: router)
    OpenAIRoutes(queue: queue, shelf: shelf, reader: reader).add(to: router)
    WebUIRoutes(queue: queue, shelf: shelf, reader: reader).add(to: router)
    responder = router.buildResponder()
  }

  /// Serves until the process is told to end by SIGINT or SIGTERM: then the running job ends or is parked, and clients get their answers.
  ///
  /// - Parameter started: told of the address once clients can come.
  /// - Throws: what listening throws.
  public func run(_ started: @escaping @Sendable (_ address: String) -> Void = { _ in }) async throws {
    let host = configuration.host
    let application = Application(
      responder: responder,
      server: .http1(configuration.limits, idleTimeout: .seconds(60)),
      configuration: ApplicationConfiguration(
        address: .hostname(host, port: configuration.port), serverName: "ImageServer",
        availableConnectionsDelegate: MaximumAvailableConnections(configuration.limits.connections)),
      onServerRunning: { channel in
        let port = channel.localAddress?.port ?? 0
        started("http://\(host.contains(":") ? "[\(host)]" : host):\(port)")
      },
      logger: logger)
    // The last one is told to stop first: jobs end while their clients are still connected.
    var services = ServiceGroupConfiguration(
      services: [application, queue], gracefulShutdownSignals: [.sigterm, .sigint], logger: logger)
    // Clients that do not read, or send nothing more, must not hold it up.
    services.maximumGracefulShutdownDuration = configuration.grace + .seconds(5)
    let group = ServiceGroup(configuration: services)
    try await group.run()
  }

  private static func gate(
    _ configuration: ServerConfiguration, _ metrics: ServerMetrics, _ description: InterfaceDescription, _ page: [PageFile]
  ) -> Gate {
    let hosts = configuration.hostNames.map { names in Set((["localhost", configuration.host] + names).map { $0.lowercased() }) }
    let origins = configuration.allowedOrigins.map { $0.hasSuffix("/") ? String($0.dropLast()) : $0 }
    return Gate(
      key: configuration.key, allowedOrigins: origins, hosts: hosts,
      openPaths: Set(page.map(\.path) + ["/health", "/ready", "/openapi.json"]), metrics: metrics, description: description)
  }
}
