import Tensor

/// Why a scheduler cannot be made, or cannot take a step.
public enum SchedulerError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The configuration is no JSON object, or a value has another type than its key takes.
  case unreadableConfiguration(String)
  /// The configuration does not say which scheduler it is for.
  case missingClassName
  /// There is no scheduler of this name.
  case unknownScheduler(String)
  /// A sampler of other programs that is left out here.
  case leftOut(String)
  /// A model's own scheduler cannot be used; `others` can, with its configuration.
  case unusableOwn(className: String?, reason: String, others: [String])
  /// A key has a value that is none of those known.
  case unknownValue(key: String, found: String, known: [String])
  /// A key has a value that nothing can be computed with.
  case unusableValue(key: String, found: String, needed: String)
  /// What a run is asked for cannot be done.
  case unusableSetting(String, found: String, needed: String)
  /// Two settings of a run that exclude each other.
  case conflictingSettings(String, String)
  /// A setting of a run that a scheduler has no use for.
  case missingSetting(String, scheduler: SchedulerKind)
  /// A setting of a run that changes nothing without another.
  case idleSetting(String, without: String)
  /// Keys that exclude each other are all on.
  case conflictingKeys([String])
  /// A scheduler does not have a spacing that somebody asks for; `known` have it.
  case missingSpacing(String, scheduler: SchedulerKind, known: [SchedulerKind])
  /// A spacing of timesteps would change nothing, as a scheduler's timesteps follow σ, which has a spacing of its own.
  case idleSpacing(String, scheduler: SchedulerKind, beside: String)
  /// A number of steps that the scheduler cannot make.
  case unusableSteps(Int, scheduler: SchedulerKind, needed: String)
  /// A step beyond the table.
  case stepOutOfRange(Int, count: Int)
  /// The prediction does not have the shape of the sample.
  case shapeMismatch(sample: Shape, prediction: Shape)
  /// The sample does not have the shape of those of the steps before, which the scheduler remembers.
  case historyMismatch(sample: Shape, remembered: Shape)

  public var description: String {
    switch self {
    case .unreadableConfiguration(let reason):
      "The scheduler's configuration cannot be read: \(reason)."
    case .missingClassName:
      "The scheduler's configuration has no _class_name; name a scheduler: \(SchedulerKind.names)."
    case .unknownScheduler(let name):
      "There is no scheduler named \"\(name.prefix(80))\"; known are \(SchedulerKind.names)."
    case .leftOut(let name):
      "\"\(name.prefix(80))\" is not among the schedulers, as it makes steps of its own choice; dpmpp-2m and dpmpp-singlestep solve the same equation in as "
        + "many steps as are asked for."
    case .unusableOwn(let className, let reason, let others):
      "The model's own scheduler\(className.map { ", \($0.prefix(80))," } ?? "") cannot be used. \(reason) "
        + "Choose another for it: \(others.joined(separator: ", "))."
    case .unknownValue(let key, let found, let known):
      "\(key) is \"\(found.prefix(80))\" in the scheduler's configuration; known are \(known.joined(separator: ", "))."
    case .unusableValue(let key, let found, let needed):
      "\(key) is \(found) in the scheduler's configuration; it must be \(needed)."
    case .unusableSetting(let name, let found, let needed):
      "\(name) is \(found.prefix(80)); it must be \(needed)."
    case .conflictingSettings(let one, let other):
      "\(one) and \(other) were both given; leave one of them out."
    case .missingSetting(let name, let scheduler):
      "The scheduler \(scheduler.rawValue) has no use for \(name); leave it out or choose another scheduler."
    case .idleSetting(let name, let other):
      "\(name) changes nothing without \(other); give both or none."
    case .conflictingKeys(let keys):
      "The scheduler's configuration turns on \(keys.joined(separator: " and ")); keep one of them."
    case .missingSpacing(let spacing, let scheduler, let known):
      "The scheduler \(scheduler.rawValue) does not have the spacing \(spacing); those that have it are "
        + "\(known.map(\.rawValue).joined(separator: ", "))."
    case .idleSpacing(let spacing, let scheduler, let other):
      "The spacing \(spacing) changes nothing, as the timesteps of \(scheduler.rawValue) follow its σ where those have the spacing \(other); "
        + "leave one of them out."
    case .unusableSteps(let steps, let scheduler, let needed):
      "The scheduler \(scheduler.rawValue) cannot make \(steps) steps; ask for \(needed)."
    case .stepOutOfRange(let step, let count):
      "Step \(step) does not exist; the scheduler has \(count) steps, counted from 0."
    case .shapeMismatch(let sample, let prediction):
      "The prediction has shape \(prediction), but the sample has \(sample); they must be equal."
    case .historyMismatch(let sample, let remembered):
      "The sample has shape \(sample), but those of the steps before had \(remembered); a generation keeps its shape."
    }
  }
}
