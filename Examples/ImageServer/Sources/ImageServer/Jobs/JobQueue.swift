import Foundation
import ImageFiles
import LatentDiffusion
import Logging
import ServiceLifecycle

/// The jobs of a server: one is drawn at a time, since a single drawing keeps all processors busy; others wait in the order in which they came.
///
/// Every job that is accepted ends: done, failed with a sentence, or cancelled. Those of clients that do not wait are written down, and outlive the program.
actor JobQueue: Service {
  /// A job that is not over.
  private struct Live {
    var job: Job
    /// Whether the client waits for it: then it ends with the client's connection, and is not written down.
    let isAttended: Bool
    /// Whether its pictures go into the gallery.
    let keeps: Bool
    var progress: JobProgress?
    var preview: (step: Int, picture: Picture)?
    let sign = StopSign()
    var drawing: Task<Void, any Error>?
    var began: ContinuousClock.Instant?
  }

  private let shelf: ModelShelf
  private let store: JobStore
  private let limits: ServerLimits
  private let context: ExecutionContext
  private let grace: Duration
  private let metrics: ServerMetrics
  private let logger: Logger

  private var live: [String: Live] = [:]
  private var waiting: [String] = []
  private var drawn: String?
  /// Jobs that are over, the oldest first.
  private var over: [Job] = []
  private var listeners: [String: [UUID: AsyncStream<JobEvent>.Continuation]] = [:]
  private var isStopping = false
  /// Of a job, averaged over the last ones.
  private var usualSeconds = 5.0
  private let (work, workArrived) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))

  init(
    shelf: ModelShelf, store: JobStore, limits: ServerLimits, context: ExecutionContext, grace: Duration, metrics: ServerMetrics,
    logger: Logger
  ) {
    (self.shelf, self.store, self.limits, self.context) = (shelf, store, limits, context)
    (self.grace, self.metrics, self.logger) = (grace, metrics, logger)
    let (jobs, unreadable) = store.jobs()
    for name in unreadable { logger.warning("a job cannot be read, and is left as it is", metadata: ["file": "\(name)"]) }
    for job in jobs {
      guard !job.state.isOver else {
        over.append(job)
        continue
      }
      var job = job
      job.state = .waiting
      live[job.id] = Live(job: job, isAttended: false, keeps: true)
      waiting.append(job.id)
    }
    if !waiting.isEmpty { workArrived.yield() }
  }

  // MARK: - For clients

  /// Whether it takes jobs.
  var isOpen: Bool { !isStopping }
  var waitingCount: Int { waiting.count }
  var drawnID: String? { drawn }

  /// Takes a job.
  ///
  /// - Parameters:
  ///   - isAttended: whether the client waits for the result on its connection.
  ///   - keeps: whether the pictures go into the gallery.
  /// - Throws: `ServerError` where the request asks for more than is allowed, the queue is full, or nothing can be written down.
  func accept(
    _ request: PictureRequest, _ files: RequestFiles, isAttended: Bool = false, keeps: Bool = true
  ) throws(ServerError) -> Job {
    guard !isStopping else { throw .stopping }
    guard waiting.count < limits.queue else {
      metrics.count(refused: "queue")
      let seconds = Int((Double(waiting.count) * usualSeconds / 2).rounded(.up))
      throw ServerError(
        .tooManyRequests, "\(waiting.count) jobs wait already; ask again in \(max(1, seconds)) s.", retryAfter: min(max(1, seconds), 3600))
    }
    let job = Job(request)
    do {
      try store.write(files, of: job.id)
      if !isAttended { try store.write(job) }
    } catch {
      store.forgetWork(of: job.id)
      throw ServerError(.init(code: 507, reasonPhrase: "Insufficient Storage"), "The job cannot be kept: \(reason(error)).", retryAfter: 60)
    }
    live[job.id] = Live(job: job, isAttended: isAttended, keeps: keeps)
    waiting.append(job.id)
    workArrived.yield()
    return job
  }

  /// Takes a job whose client waits for it, with all that happens to it.
  ///
  /// - Parameter keeps: whether the pictures go into the gallery.
  /// - Throws: `ServerError`, as `accept`.
  func attend(_ request: PictureRequest, _ files: RequestFiles, keeps: Bool) throws(ServerError) -> AttendedJob {
    let job = try accept(request, files, isAttended: true, keeps: keeps)
    let (events, continuation) = AsyncStream.makeStream(of: JobEvent.self)
    // The client is gone, so its job ends. This does nothing to a job that is over.
    listen(to: job.id, continuation) { await $0.cancel(job.id) }
    return AttendedJob(id: job.id, queue: self, events: events)
  }

  /// A job, and its place among those that wait: 1 is next. Nil where nobody knows it, or where it belongs to a client that waits for it.
  func job(_ id: String) -> (job: Job, position: Int?, progress: JobProgress?)? {
    if let found = live[id] { return found.isAttended ? nil : (found.job, position(of: id), found.progress) }
    return over.last { $0.id == id }.map { ($0, nil, nil) }
  }

  /// The job that is drawn, whoever waits for it.
  var drawing: (job: Job, progress: JobProgress)? {
    drawn.flatMap { live[$0] }.map { ($0.job, $0.progress ?? JobProgress(pictures: $0.job.request.count)) }
  }

  /// The newest first: those that are not over, and the last that are.
  func jobs(most count: Int) -> [(job: Job, position: Int?, progress: JobProgress?)] {
    let now = live.values.filter { !$0.isAttended }.map { ($0.job, position(of: $0.job.id), $0.progress) }.sorted { $0.0.id > $1.0.id }
    return now + over.suffix(max(0, count - now.count)).reversed().map { ($0, nil, nil) }
  }

  /// The last preview of the job that is drawn.
  var preview: Picture? { drawn.flatMap { live[$0]?.preview?.picture } }

  /// What happens to a job from now on, beginning with how it is; nil where `job` gives none.
  ///
  /// - Parameter buffered: events that wait for a slow client at most; older ones are dropped, and the last one never is.
  func events(of id: String, buffered: Int) -> AsyncStream<JobEvent>? {
    guard let found = job(id) else { return nil }
    let (stream, continuation) = AsyncStream.makeStream(of: JobEvent.self, bufferingPolicy: .bufferingNewest(buffered))
    if found.job.state.isOver {
      continuation.yield(.over(found.job))
      continuation.finish()
    } else {
      listen(to: id, continuation)
    }
    return stream
  }

  /// - Parameter ended: done when nobody reads the events any more.
  private func listen(
    to id: String, _ continuation: AsyncStream<JobEvent>.Continuation, ended: @escaping @Sendable (JobQueue) async -> Void = { _ in }
  ) {
    guard let found = live[id] else { return continuation.finish() }
    continuation.yield(.job(found.job, position: position(of: id)))
    // While the server stops, a waiting job stays on disk and has no further events.
    guard !isStopping || drawn == id else { return continuation.finish() }
    if let progress = found.progress { continuation.yield(.progress(progress)) }
    if let preview = found.preview { continuation.yield(.preview(step: preview.step, preview.picture)) }
    let listener = UUID()
    listeners[id, default: [:]][listener] = continuation
    continuation.onTermination = { _ in
      Task {
        await self.forget(listener, of: id)
        await ended(self)
      }
    }
  }

  /// Ends a job that is not over.
  func cancel(_ id: String) {
    guard var found = live[id] else { return }
    if let drawing = found.drawing {
      drawing.cancel()
    } else {
      found.job.state = .cancelled
      live[id] = found
      waiting.removeAll { $0 == id }
      end(id)
      tellPositions()
    }
  }

  /// Lets the picture that is drawn, or the whole job, end with what there is of it.
  func stopDrawing(_ wish: StopSign.Wish) { if let drawn { live[drawn]?.sign.wish = wish } }

  /// Pictures of the gallery, the newest first.
  ///
  /// - Parameter name: that of the picture after which it begins; nil: at the newest.
  func pictures(before name: String?, most count: Int) -> [(picture: KeptPicture, job: Job)] {
    let all = over.reversed().lazy.flatMap { job in job.pictures.reversed().map { (picture: $0, job: job) } }
    guard let name else { return Array(all.prefix(count)) }
    // The picture itself may be gone by now.
    let last = Self.place(name)
    return Array(all.drop { Self.place($0.picture.name) >= last }.prefix(count))
  }

  /// Ids grow with time, and pictures of a job with their numbers.
  private static func place(_ name: String) -> (id: String, number: Int) {
    let parts = name.split(separator: "-", maxSplits: 1)
    return (parts.first.map(String.init) ?? "", parts.last.flatMap { Int($0.prefix { $0.isNumber }) } ?? 0)
  }

  /// The file of a picture of the gallery; nil where there is none of that name.
  func picture(_ name: String) -> URL? {
    let id = name.prefix { $0 != "-" }
    let job = live[String(id)]?.job ?? over.last { $0.id == id }
    return job?.pictures.contains { $0.name == name } == true ? store.picture(name) : nil
  }

  /// Removes a picture from the gallery, and its job with the last one.
  /// - Returns: whether there was one.
  /// - Throws: `ServerError` where its job is not over.
  func forget(picture name: String) throws(ServerError) -> Bool {
    guard !live.values.contains(where: { $0.job.pictures.contains { $0.name == name } }) else {
      throw ServerError(.conflict, "The job of this picture is not over; delete it then.")
    }
    guard let index = over.lastIndex(where: { $0.pictures.contains { $0.name == name } }) else { return false }
    over[index].pictures.removeAll { $0.name == name }
    store.forget(picture: name)
    if over[index].pictures.isEmpty { store.forget(over.remove(at: index)) } else { try? store.write(over[index]) }
    return true
  }

  // MARK: - Drawing

  /// Draws job after job until the service is told to stop: then the running job may end within the time of grace, or is parked.
  func run() async throws {
    await withGracefulShutdownHandler {
      // The first client should not wait for the model.
      do {
        _ = try await shelf.model(shelf.defaultModel, for: nil)
      } catch {
        logger.error("\(reason(error))", metadata: ["model": "\(shelf.defaultModel)"])
      }
      for await _ in work { await drawAll() }
    } onGracefulShutdown: {
      Task { await self.stop() }
    }
  }

  private func drawAll() async {
    while !isStopping, let id = waiting.first {
      waiting.removeFirst()
      tellPositions()
      await draw(id)
    }
  }

  private func draw(_ id: String) async {
    guard var found = live[id] else { return }
    drawn = id
    (found.job.state, found.began) = (.drawing, .now)
    let (job, sign, isAttended) = (found.job, found.sign, found.isAttended)
    let drawing = Task { [store, shelf, limits, context] in
      try await Drawing(
        request: job.request, files: store.files(of: job), shelf: shelf, limits: limits, context: context, sign: sign,
        first: job.pictures.count,
        checkpoint: isAttended ? nil : store.checkpoint(id), tell: { await self.heard($0, of: id) }
      ).run()
    }
    found.drawing = drawing
    live[id] = found
    send(.job(job, position: nil), to: id)
    let result = await withTaskCancellationHandler {
      await drawing.result
    } onCancel: {
      drawing.cancel()
    }
    drawn = nil
    finish(id, result)
  }

  private func finish(_ id: String, _ result: Result<Void, any Error>) {
    guard var found = live[id] else { return }
    let seconds = found.began.map { (ContinuousClock.now - $0) / .seconds(1) } ?? 0
    found.job.seconds = seconds
    switch result {
    case .success:
      (found.job.state, usualSeconds) = (found.job.error == nil ? .done : .failed, 0.7 * usualSeconds + 0.3 * seconds)
    case .failure(is Drawing.Parked) where !found.isAttended:
      // It waits on disk for the next program.
      return leave(id, found)
    case .failure(is CancellationError) where isStopping && !found.isAttended:
      // The time of grace is over while a model is loaded, or a picture decoded.
      return leave(id, found)
    case .failure(is Drawing.Parked):
      found.job.fail(with: ServerError.stopping, ServerError.stopping.message)
    case .failure(is CancellationError):
      found.job.state = .cancelled
    case .failure(let error):
      found.job.fail(with: error, shelf.withoutFolders(reason(error)))
      logger.warning("a job failed", metadata: ["job": "\(id)", "error": "\(reason(error))"])
    }
    live[id] = found
    end(id)
  }

  /// Takes a job that is over out of the queue, and tells whoever listens.
  private func end(_ id: String) {
    guard let found = live.removeValue(forKey: id) else { return }
    metrics.count(job: found.job.state, seconds: found.job.seconds)
    store.forgetWork(of: id)
    if !found.isAttended || found.keeps {
      do {
        try store.write(found.job)
      } catch {
        logger.error("a job cannot be written down", metadata: ["job": "\(id)", "error": "\(reason(error))"])
      }
      over.append(found.job)
      while over.count > limits.kept { store.forget(over.removeFirst()) }
    }
    close(id, with: .over(found.job))
  }

  /// A parked job: listeners learn that the server stops.
  private func leave(_ id: String, _ found: Live) {
    live[id] = nil
    var job = found.job
    (job.state, job.seconds) = (.waiting, nil)
    do {
      try store.write(job)
    } catch {
      logger.error("a job cannot be written down", metadata: ["job": "\(id)", "error": "\(reason(error))"])
    }
    close(id, with: .job(job, position: 1))
  }

  private func heard(_ event: DrawingEvent, of id: String) {
    guard live[id] != nil else { return }
    switch event {
    case .progress(let progress):
      live[id]?.progress = progress
      send(.progress(progress), to: id)
    case .preview(let step, let picture):
      live[id]?.preview = (step, picture)
      send(.preview(step: step, picture), to: id)
    case .warning(let warning): live[id]?.job.warnings.append(warning)
    case .picture(let picture):
      send(.picture(picture), to: id)
      if live[id]?.keeps == true { keep(picture, of: id) }
    }
  }

  private func keep(_ picture: DrawnPicture, of id: String) {
    guard var found = live[id] else { return }
    let name = "\(id)-\(picture.index + 1).\(found.job.request.format.fileExtension)"
    do {
      try picture.data.write(to: store.picture(name), options: .atomic)
      found.job.pictures.append(
        KeptPicture(name: name, width: picture.width, height: picture.height, seed: picture.seed, parameters: picture.parameters))
      if !found.isAttended { try store.write(found.job) }
    } catch {
      let sentence = "The picture cannot be kept: \(reason(error))."
      logger.error("a picture cannot be kept", metadata: ["job": "\(id)", "error": "\(reason(error))"])
      found.job.warnings.append(sentence)
      // The gallery would have been the only place of this picture, so the job fails.
      if !found.isAttended {
        found.job.error = sentence
        found.sign.wish = .interrupt
      }
    }
    live[id] = found
    send(.job(found.job, position: nil), to: id)
  }

  /// No job is taken any more; those that wait for the program stay on disk, those whose clients wait fail.
  private func stop() {
    isStopping = true
    for id in waiting {
      guard var found = live[id] else { continue }
      if found.isAttended {
        found.job.fail(with: ServerError.stopping, ServerError.stopping.message)
        live[id] = found
        end(id)
      } else {
        close(id, with: .job(found.job, position: position(of: id)))
      }
    }
    waiting = []
    workArrived.finish()
    guard let drawn else { return }
    logger.info("waiting for the job that is drawn", metadata: ["job": "\(drawn)", "seconds": "\(grace.components.seconds)"])
    Task {
      try? await Task.sleep(for: grace)
      live[drawn]?.sign.wish = .park
    }
  }

  // MARK: - Who listens

  private func position(of id: String) -> Int? { waiting.firstIndex(of: id).map { $0 + 1 } }

  private func tellPositions() {
    for (index, id) in waiting.enumerated() { if let found = live[id] { send(.job(found.job, position: index + 1), to: id) } }
  }

  private func send(_ event: JobEvent, to id: String) { for continuation in (listeners[id] ?? [:]).values { continuation.yield(event) } }

  private func close(_ id: String, with last: JobEvent) {
    let heard = listeners.removeValue(forKey: id) ?? [:]
    for continuation in heard.values {
      continuation.yield(last)
      continuation.finish()
    }
  }

  private func forget(_ listener: UUID, of id: String) {
    listeners[id]?[listener] = nil
    if listeners[id]?.isEmpty == true { listeners[id] = nil }
  }
}

/// One sentence for people about any error.
func reason(_ error: any Error) -> String {
  switch error {
  case let error as CocoaError: error.localizedDescription
  case let error as ServerError: error.message
  default: "\(error)"
  }
}
