import Foundation
import LatentDiffusionWeights
import Tensor

/// Everything that a run goes on from with the same bytes.
public struct TrainingState: Sendable {
  /// What is trained.
  public let subject: TrainingSubject
  /// The parameters, in the order of the subject.
  public var parameters: [Tensor]
  /// What the optimiser remembers.
  public var optimizer: OptimizerState
  /// The moving average; nil if the run has none.
  public var average: ExponentialMovingAverage?
  /// Decides, with the number of a step, everything that is random.
  public var seed: UInt64
  /// Steps of the optimiser that have been taken. The place in the data follows from it.
  public var steps: Int

  /// - Precondition: parameters and averages have the subject's shapes, whose names differ.
  public init(
    subject: TrainingSubject, parameters: [Tensor], optimizer: OptimizerState, average: ExponentialMovingAverage? = nil, seed: UInt64,
    steps: Int
  ) {
    let shapes = subject.parameters.map(\.shape)
    precondition(parameters.map(\.shape) == shapes && average?.parameters.map(\.shape) ?? shapes == shapes, "A state of other parameters.")
    precondition(Set(subject.parameters.map(\.name)).count == shapes.count, "Two parameters have one name.")
    (self.subject, self.parameters, self.optimizer, self.average) = (subject, parameters, optimizer, average)
    (self.seed, self.steps) = (seed, steps)
  }

  /// The description in a file's metadata.
  private struct Description: Codable {
    let subject: TrainingSubject
    let optimizer: String
    /// Numbers as text, which keeps every bit.
    let numbers: [String: String]
    let averageDecay: ExponentialMovingAverage.Decay?
    let averagedSteps: Int?
    let seed: UInt64
    let steps: Int
  }

  private static let (versionKey, descriptionKey, version) = ("training_state", "state", 1)
}

extension TrainingState {
  /// Writes the state as one safetensors file: beside the old one, which it then replaces.
  ///
  /// - Throws: `TrainingStateError.notFinite`, `FileWriteError`; an existing file is then unchanged.
  public func write(to url: URL) throws {
    let path = url.path(percentEncoded: false)
    var tensors: [String: Tensor] = [:]
    for (place, name) in subject.parameters.map(\.name).enumerated() {
      tensors["parameters.\(name)"] = parameters[place]
      if let average { tensors["average.\(name)"] = average.parameters[place] }
      if optimizer.tensors.indices.contains(place) {
        for (slot, tensor) in optimizer.tensors[place] { tensors["optimizer.\(slot).\(name)"] = tensor }
      }
    }
    let unusable = tensors.filter { !$0.value.isFinite }.map(\.key) + optimizer.numbers.filter { !$0.value.isFinite }.map(\.key)
    if let name = unusable.min() { throw TrainingStateError.notFinite(path: path, name: name) }
    let description = Description(
      subject: subject, optimizer: optimizer.optimizer, numbers: optimizer.numbers.mapValues { "\($0)" }, averageDecay: average?.decay,
      averagedSteps: average?.steps, seed: seed, steps: steps)
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let metadata = [
      Self.versionKey: "\(Self.version)", Self.descriptionKey: String(decoding: try encoder.encode(description), as: UTF8.self),
    ]
    try SafetensorsWriter.write(tensors, metadata: metadata, to: url)
  }

  /// Reads a state.
  ///
  /// - Parameters:
  ///   - url: a file that `write` wrote.
  ///   - subject: what the run trains; nil to take what the file is for.
  /// - Throws: `TrainingStateError`, `SafetensorsError`.
  public init(contentsOf url: URL, for subject: TrainingSubject? = nil) throws {
    let file = try SafetensorsFile(url), path = url.path(percentEncoded: false)
    guard let version = file.metadata[Self.versionKey], let text = file.metadata[Self.descriptionKey] else {
      throw TrainingStateError.noState(path: path)
    }
    guard version == "\(Self.version)" else { throw TrainingStateError.newerVersion(path: path, found: version) }
    guard let description = try? JSONDecoder().decode(Description.self, from: Data(text.utf8)) else {
      throw TrainingStateError.damaged(path: path, reason: "its description cannot be read")
    }
    if let subject, let difference = description.subject.difference(from: subject) {
      throw TrainingStateError.otherRun(path: path, reason: difference)
    }
    try self.init(description, StateTensors(file, path: path, for: description.subject))
  }

  private init(_ description: Description, _ tensors: StateTensors) throws {
    guard 0..<1 << 40 ~= description.steps else { throw tensors.damaged("it has taken \(description.steps) steps") }
    let numbers = description.numbers.compactMapValues(Double.init)
    guard numbers.count == description.numbers.count else { throw tensors.damaged("a number of the optimizer cannot be read") }
    let parameters = try tensors.list("parameters")
    var average: ExponentialMovingAverage?
    if let decay = description.averageDecay, let steps = description.averagedSteps {
      let values = try tensors.list("average")
      guard let read = try? ExponentialMovingAverage(of: values, decay: decay, steps: steps) else {
        throw tensors.damaged("its average has impossible settings")
      }
      average = read
    }
    let remembered = try tensors.slots("optimizer")
    try tensors.checkAllAreTaken(averages: average != nil)
    self.init(
      subject: description.subject, parameters: parameters,
      optimizer: OptimizerState(optimizer: description.optimizer, numbers: numbers, tensors: remembered), average: average,
      seed: description.seed, steps: description.steps)
  }
}

/// The tensors of a state's file: `KIND.NAME` for each parameter, and `optimizer.SLOT.NAME`, where a slot has no dot in its name.
private struct StateTensors {
  private let file: SafetensorsFile
  private let path: String
  private let subject: TrainingSubject
  /// The slots of each parameter by its name.
  private let slotsByName: [String: [String]]

  init(_ file: SafetensorsFile, path: String, for subject: TrainingSubject) throws {
    (self.file, self.path, self.subject) = (file, path, subject)
    var slots: [String: [String]] = [:]
    for name in file.names where name.hasPrefix("optimizer.") {
      let parts = name.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false).map(String.init)
      if parts.count == 3 { slots[parts[2], default: []].append(parts[1]) }
    }
    slotsByName = slots
    guard Set(subject.parameters.map(\.name)).count == subject.parameters.count else { throw damaged("a parameter is there twice") }
  }

  func damaged(_ reason: String) -> TrainingStateError { .damaged(path: path, reason: reason) }

  /// A tensor of each parameter in its shape.
  func list(_ kind: String) throws -> [Tensor] {
    try subject.parameters.map { parameter in
      let tensor = try tensor("\(kind).\(parameter.name)")
      guard tensor.shape == parameter.shape else { throw damaged("\(kind).\(parameter.name) has the shape \(tensor.shape)") }
      return tensor
    }
  }

  /// What is remembered of each parameter, by slot; nothing if there is none of any.
  func slots(_ kind: String) throws -> [[String: Tensor]] {
    guard !slotsByName.isEmpty else { return [] }
    return try subject.parameters.map { parameter in
      try (slotsByName[parameter.name] ?? []).reduce(into: [:]) { $0[$1] = try tensor("\(kind).\($1).\(parameter.name)") }
    }
  }

  /// - Throws: where the file has a tensor that belongs to no parameter.
  func checkAllAreTaken(averages: Bool) throws {
    var rest = file.names
    for name in subject.parameters.map(\.name) {
      rest.remove("parameters.\(name)")
      if averages { rest.remove("average.\(name)") }
      for slot in slotsByName[name] ?? [] { rest.remove("optimizer.\(slot).\(name)") }
    }
    if let name = rest.min() { throw damaged("\(name) belongs to nothing that is trained") }
  }

  private func tensor(_ name: String) throws -> Tensor {
    guard let stored = file.tensors[name] else { throw damaged("\(name) is missing") }
    guard stored.elementType == "F32", let weights = try? file.tensor(name, shape: stored.shape) else {
      throw damaged("\(name) is \(stored.elementType), and F32 is needed")
    }
    guard weights.isFinite else { throw damaged("\(name) is not finite") }
    defer { weights.releasePages() }
    return weights.decoded()
  }
}
