/// A job whose client waits for it on its connection: it ends when the client goes away.
struct AttendedJob: Sendable {
  let id: String
  let queue: JobQueue
  /// From its beginning.
  let events: AsyncStream<JobEvent>

  /// Waits for the end.
  ///
  /// - Parameter hear: told of what happens on the way.
  /// - Throws: `ServerError` where the job fails; `CancellationError`.
  func outcome(
    _ hear: @Sendable (JobEvent) async throws -> Void = { _ in }
  ) async throws -> (job: Job, pictures: [DrawnPicture]) {
    var pictures: [DrawnPicture] = [], last: Job?
    do {
      for await event in events {
        if case .picture(let picture) = event { pictures.append(picture) }
        if case .over(let job) = event { last = job }
        try await hear(event)
      }
      try Task.checkCancellation()
    } catch {
      await queue.cancel(id)
      throw error
    }
    guard let last else { throw ServerError.stopping }
    if let failure = last.failure { throw failure }
    return (last, pictures)
  }
}
