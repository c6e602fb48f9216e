import LatentDiffusion

/// A sampler by the webui's name.
struct WebUISampler: Encodable {
  let name: String
  let aliases: [String]
  let options: [String: String]

  private init(_ name: String, _ aliases: [String], schedule: String? = nil) {
    (self.name, self.aliases, options) = (name, aliases, schedule.map { ["scheduler": $0] } ?? [:])
  }

  static let all =
    SchedulerKind.allCases.filter(\.leadsToPictures).map { WebUISampler($0.label, [$0.rawValue], schedule: usualSchedules[$0.label]) }
    + ["DPM++ 2M SDE", "DPM++ 2M SDE Heun"].map { WebUISampler($0, [], schedule: usualSchedules[$0]) }

  /// What the webui's schedule "Automatic" is with its samplers; those that are not here have none of their own.
  private static let usualSchedules = [
    "DPM++ 2M": "karras", "DPM++ SDE": "karras", "DPM++ 2M SDE": "karras", "DPM++ 2M SDE Heun": "karras", "DPM++ 2S a": "karras",
    "DPM++ 3M SDE": "exponential", "DPM2": "karras", "DPM2 a": "karras", "Restart": "karras",
  ]

  /// The name of this library for a sampler and a schedule of the webui.
  ///
  /// - Parameter schedule: nil, empty or "Automatic": the sampler's usual one.
  /// - Throws: `ServerError` where there is no such sampler, or it cannot have the schedule.
  static func named(_ name: String, schedule: String?) throws(ServerError) -> String {
    let isAutomatic = ["", "automatic"].contains(schedule?.lowercased() ?? "")
    let plain: NamedScheduler
    do {
      plain = try NamedScheduler(name)
    } catch {
      throw .field("sampler_name", "\(error)")
    }
    let words = isAutomatic ? plain.spacing == nil ? usualSchedules[name] : nil : WebUISchedule.word(schedule ?? "")
    guard let words else { return name }
    do {
      _ = try NamedScheduler("\(name) \(words)")
      return "\(name) \(words)"
    } catch {
      throw .field("scheduler", "The sampler \(name) has no schedule \(schedule ?? words); see /sdapi/v1/schedulers.")
    }
  }
}

/// A schedule by the webui's name.
struct WebUISchedule: Encodable {
  let name: String
  let label: String
  let aliases: [String]
  let defaultRho: Double
  let needInnerModel = false

  private init(_ name: String, _ label: String, rho: Double = -1, aliases: [String] = []) {
    (self.name, self.label, self.aliases, defaultRho) = (name, label, aliases, rho)
  }

  static let all =
    [WebUISchedule("automatic", "Automatic"), WebUISchedule("uniform", "Uniform")]
    + SigmaSpacing.allCases.map { spacing in
      let name = spacing.rawValue.replacing("-", with: "_")
      let label = spacing.rawValue.split(separator: "-").map {
        $0 == "sgm" ? "SGM" : $0 == "kl" ? "KL" : $0.prefix(1).uppercased() + $0.dropFirst()
      }
      return WebUISchedule(name, label.joined(separator: " "), rho: spacing == .karras ? 7 : spacing == .polyexponential ? 1 : -1)
    }

  /// A schedule's name as `NamedScheduler` reads it after a sampler's; nil: σ follow the training table.
  static func word(_ schedule: String) -> String? { ["uniform", "normal"].contains(schedule.lowercased()) ? nil : schedule }
}

struct WebUIModel: Encodable {
  let title: String
  let modelName: String
  let hash = JSONValue.null
  let sha256 = JSONValue.null
  let filename: String
  let config = JSONValue.null

  init(name: String) { (title, modelName, filename) = (name, name, name) }
}

struct WebUILora: Encodable {
  let name: String
  let alias: String
  let path: String
  let metadata: [String: String] = [:]

  init(name: String) { (self.name, alias, path) = (name, name, name) }
}
