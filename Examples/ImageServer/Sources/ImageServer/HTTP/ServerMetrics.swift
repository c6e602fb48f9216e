import Foundation
import Synchronization

/// What a server counts, as Prometheus' text format has it.
final class ServerMetrics: Sendable {
  private struct Counts {
    var answers: [String: [Int: Int]] = [:]
    var jobs: [Job.State: Int] = [:]
    var refused: [String: Int] = [:]
    var seconds: [Int] = Array(repeating: 0, count: ServerMetrics.bounds.count)
    var secondsSum = 0.0
    var secondsCount = 0
  }

  /// Upper bounds of the histogram of jobs' seconds.
  private static let bounds = [0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800]
  private let counts = Mutex(Counts())

  /// - Parameter route: the path's pattern, never what a client wrote, so that there are only so many.
  func count(answer status: Int, of route: String) { counts.withLock { $0.answers[route, default: [:]][status, default: 0] += 1 } }

  func count(refused reason: String) { counts.withLock { $0.refused[reason, default: 0] += 1 } }

  func count(job state: Job.State, seconds: Double?) {
    counts.withLock { counts in
      counts.jobs[state, default: 0] += 1
      guard let seconds, state == .done else { return }
      for (index, bound) in Self.bounds.enumerated() where seconds <= bound { counts.seconds[index] += 1 }
      counts.secondsSum += seconds
      counts.secondsCount += 1
    }
  }

  /// - Parameters:
  ///   - waiting: jobs that wait.
  ///   - isDrawing: whether one is drawn.
  ///   - models: the names of those that are loaded.
  func text(waiting: Int, isDrawing: Bool, models: [String]) -> String {
    let counts = counts.withLock { $0 }
    var lines: [String] = []
    func metric(_ name: String, _ kind: String, _ help: String, _ values: [(labels: String, value: String)]) {
      lines += ["# HELP \(name) \(help)", "# TYPE \(name) \(kind)"] + values.map { "\(name)\($0.labels) \($0.value)" }
    }
    metric(
      "imageserver_http_responses_total", "counter", "Answers by route and status.",
      counts.answers.sorted { $0.key < $1.key }.flatMap { route, statuses in
        statuses.sorted { $0.key < $1.key }.map { ("{route=\"\(route)\",status=\"\($0.key)\"}", "\($0.value)") }
      })
    let states = [Job.State.done, .failed, .cancelled]
    metric(
      "imageserver_jobs_total", "counter", "Jobs that are over, by how they ended.",
      states.map { ("{state=\"\($0.rawValue)\"}", "\(counts.jobs[$0] ?? 0)") })
    metric(
      "imageserver_refused_total", "counter", "Requests that were refused because of the load, by reason.",
      ["queue", "bodies"].map { ("{reason=\"\($0)\"}", "\(counts.refused[$0] ?? 0)") })
    metric(
      "imageserver_job_seconds", "histogram", "Seconds that jobs took from their turn to their end.",
      [])
    for (bound, count) in zip(Self.bounds, counts.seconds) { lines.append("imageserver_job_seconds_bucket{le=\"\(bound)\"} \(count)") }
    lines.append("imageserver_job_seconds_bucket{le=\"+Inf\"} \(counts.secondsCount)")
    lines.append("imageserver_job_seconds_sum \(counts.secondsSum)")
    lines.append("imageserver_job_seconds_count \(counts.secondsCount)")
    metric("imageserver_jobs_waiting", "gauge", "Jobs that wait.", [("", "\(waiting)")])
    metric("imageserver_jobs_drawing", "gauge", "Jobs that are drawn.", [("", isDrawing ? "1" : "0")])
    metric("imageserver_model_loaded", "gauge", "Models that are loaded.", models.map { ("{model=\"\(Self.escaped($0))\"}", "1") })
    if let bytes = Self.residentBytes {
      metric("process_resident_memory_bytes", "gauge", "Resident memory.", [("", "\(bytes)")])
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private static func escaped(_ label: String) -> String {
    label.replacing("\\", with: "\\\\").replacing("\"", with: "\\\"").replacing("\n", with: "\\n")
  }

  /// Of the process. Nil where the system does not say it in this way.
  static var residentBytes: Int? {
    guard let text = try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8) else { return nil }
    return text.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 * 4096 }
  }
}
