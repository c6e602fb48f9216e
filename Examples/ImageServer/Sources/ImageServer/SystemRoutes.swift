import Foundation
import HTTPTypes
import Hummingbird

/// The page, the description of the interfaces, and what those who run the server look at.
struct SystemRoutes: Sendable {
  let queue: JobQueue
  let shelf: ModelShelf
  let metrics: ServerMetrics
  let page: [PageFile]
  let description: InterfaceDescription

  func add(to router: Router<BasicRequestContext>) {
    router.get("/health") { _, _ in Response.json(["status": "alive"]) }
    router.get("/ready") { _, _ in
      let isOpen = await queue.isOpen
      return Response.json(["status": isOpen ? "ready" : "stopping"], status: isOpen ? .ok : .serviceUnavailable)
    }
    router.get("/metrics") { _, _ in
      let text = metrics.text(waiting: await queue.waitingCount, isDrawing: await queue.drawnID != nil, models: await shelf.loadedNames)
      return Response.bytes(Data(text.utf8), type: "text/plain; version=0.0.4")
    }
    let described = description.data
    router.get("/openapi.json") { _, _ in Response.bytes(described, type: "application/json") }
    for file in page {
      router.get(RouterPath(file.path)) { _, _ in Response.bytes(file.data, type: file.type, headers: Self.pageHeaders) }
    }
  }

  /// Nothing but the server's own files, and no page around it.
  private static let pageHeaders: HTTPFields = [
    .contentSecurityPolicy:
      "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    .cacheControl: "no-cache",
  ]
}

/// A file of the page.
struct PageFile: Sendable {
  /// `/page.css`; the page itself is `/`.
  let path: String
  let type: String
  let data: Data

  /// The files that were built into the program.
  /// - Throws: `ServerSetupError`.
  static func all() throws(ServerSetupError) -> [PageFile] {
    let types = [
      "html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml",
    ]
    return try Resources.files(in: "Page").filter { types[$0.pathExtension] != nil }.map { url throws(ServerSetupError) in
      let name = url.lastPathComponent
      return PageFile(path: name == "index.html" ? "/" : "/\(name)", type: types[url.pathExtension] ?? "", data: try Resources.data(url))
    }
  }
}

/// Files beside the program.
enum Resources {
  /// - Throws: `ServerSetupError.missingResources`.
  static func files(in folder: String) throws(ServerSetupError) -> [URL] {
    guard let base = base(),
      let urls = try? FileManager.default.contentsOfDirectory(at: base.appending(path: folder), includingPropertiesForKeys: nil)
    else { throw .missingResources }
    return urls.sorted { $0.path < $1.path }
  }

  /// - Throws: `ServerSetupError.missingResources`.
  static func data(_ url: URL) throws(ServerSetupError) -> Data {
    guard let data = try? Data(contentsOf: url) else { throw .missingResources }
    return data
  }

  /// - Throws: `ServerSetupError.missingResources`.
  static func data(_ name: String) throws(ServerSetupError) -> Data {
    guard let base = base() else { throw .missingResources }
    return try data(base.appending(path: name))
  }

  /// Beside the program, wherever it was moved to, or else in the sources. (The accessor that SwiftPM generates ends the process where there is none.)
  private static func base(sources: String = #filePath) -> URL? {
    let program = Bundle.main.executableURL?.resolvingSymlinksInPath().deletingLastPathComponent()
    let places = [Bundle.main.resourceURL, Bundle.main.bundleURL, program].compactMap { $0 }
    let folders = places.flatMap { place in ["resources", "bundle"].map { place.appending(path: "ImageServer_ImageServer.\($0)") } }
    let all = folders + [URL(filePath: sources).deletingLastPathComponent().appending(path: "Resources")]
    return all.first { FileManager.default.fileExists(atPath: $0.appending(path: "openapi.json").path(percentEncoded: false)) }
  }
}
