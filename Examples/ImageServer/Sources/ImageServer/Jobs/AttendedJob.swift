import Foundation
import ImageFiles

/// A job whose client waits for it on its connection: it ends when the client goes away.
struct AttendedJob: Sendable {
  let queue: JobQueue
  let request: PictureRequest
  let files: RequestFiles
  /// Whether its pictures go into the gallery.
  var keeps = false

  /// Puts it into the queue.
  /// - Throws: `ServerError` where it is not taken.
  func accepted() async throws -> Job { try await queue.accept(request, files, isAttended: true, keeps: keeps) }

  /// Waits for the end.
  ///
  /// - Parameters:
  ///   - accepted: the job that `accepted` gave.
  ///   - hear: told of what happens on the way.
  /// - Throws: `ServerError` where the job fails; `CancellationError`.
  func outcome(
    of accepted: Job, _ hear: @Sendable (JobEvent) async throws -> Void = { _ in }
  ) async throws -> (job: Job, pictures: [DrawnPicture]) {
    var pictures: [DrawnPicture] = [], last: Job?
    do {
      for await event in await queue.events(of: accepted.id, buffered: nil) ?? AsyncStream(unfolding: { nil }) {
        if case .picture(let picture) = event { pictures.append(picture) }
        if case .over(let job) = event { last = job }
        try await hear(event)
      }
      try Task.checkCancellation()
    } catch {
      await queue.cancel(accepted.id)
      throw error
    }
    guard let last else { throw ServerError.stopping }
    if let failure = last.failure { throw failure }
    return (last, pictures)
  }
}
