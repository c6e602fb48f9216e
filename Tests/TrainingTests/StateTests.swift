import Foundation
import LatentDiffusionFiles
import LatentDiffusionTestSupport
import LatentDiffusionTraining
import LatentDiffusionWeights
import Tensor
import Testing

@Suite struct StateTests {
  private static let parameters: [TrainingSubject.Parameter] = [
    .init(name: "b.to_q.lora_A.weight", shape: [4, 9]), .init(name: "a.to_q.lora_B.weight", shape: [9, 4]),
    .init(name: "conv_in.bias", shape: [7]),
  ]
  private static let traits = ["model": "tiny", "method": "lora", "rank": "4"]
  private static let subject = TrainingSubject(traits: traits, parameters: parameters)
  private let context = ExecutionContext(threads: 2)
  private let folder: TemporaryFolder

  init() throws { folder = try TemporaryFolder() }

  private var url: URL { folder.url.appending(path: "state.safetensors") }

  /// A run with everything that can be saved.
  private struct Run {
    var optimizer: any Optimizer
    var parameters: [Tensor]
    var average: ExponentialMovingAverage
    let seed: UInt64 = 5
    var steps = 0

    init(_ optimizer: any Optimizer) throws {
      var numbers = Numbers(seed: 1)
      self.optimizer = optimizer
      parameters = StateTests.parameters.map { numbers.tensor($0.shape) }
      average = try ExponentialMovingAverage(of: parameters)
    }

    mutating func step(in context: ExecutionContext) throws {
      var generator = TorchGenerator(seed: seed, batch: steps)
      let gradients = parameters.map { 0.3 * $0 + Tensor(generator.normal($0.count), shape: $0.shape) }
      try optimizer.update(&parameters, gradients: gradients, learningRate: 0.02, in: context)
      try average.update(with: parameters, in: context)
      steps += 1
    }

    var state: TrainingState {
      TrainingState(
        subject: StateTests.subject, parameters: parameters, optimizer: optimizer.state, average: average, seed: seed,
        steps: steps)
    }

    mutating func resume(_ state: TrainingState) throws {
      try optimizer.restore(state.optimizer, for: state.parameters)
      (parameters, steps) = (state.parameters, state.steps)
      average = try #require(state.average)
    }
  }

  private static func optimizers() throws -> [any Optimizer] {
    var settings = Prodigy.Settings()
    settings.firstEstimate = 1e-3
    return [try AdamW(), try Adafactor(), try Adafactor(beta1: 0.9), try Prodigy(settings)]
  }

  /// A run that goes on from a file, at any step, ends with the same bytes, down to those of its own last file.
  @Test func aRunGoesOnFromItsFile() throws {
    for optimizer in try Self.optimizers() {
      var whole = try Run(optimizer)
      for _ in 0..<6 { try whole.step(in: context) }
      try whole.state.write(to: url)
      let expected = try Data(contentsOf: url)
      for stop in 0..<6 {
        var first = try Run(optimizer)
        for _ in 0..<stop { try first.step(in: context) }
        try first.state.write(to: url)
        var second = try Run(optimizer)
        try second.resume(TrainingState(contentsOf: url, for: Self.subject))
        for _ in stop..<6 { try second.step(in: ExecutionContext(threads: 1)) }
        try second.state.write(to: url)
        #expect(try Data(contentsOf: url) == expected, "\(type(of: optimizer)) after \(stop)")
      }
    }
  }

  @Test func anotherRunIsNamed() throws {
    var run = try Run(AdamW())
    try run.step(in: context)
    try run.state.write(to: url)
    #expect(throws: Never.self) { try TrainingState(contentsOf: url) }
    func expect(_ reason: String, _ subject: TrainingSubject) {
      let error = TrainingStateError.otherRun(path: url.path(percentEncoded: false), reason: reason)
      #expect(throws: error) { try TrainingState(contentsOf: url, for: subject) }
    }
    let (traits, parameters) = (Self.traits, Self.parameters)
    expect(
      "its model is tiny, and this run's is large",
      TrainingSubject(traits: traits.merging(["model": "large"]) { $1 }, parameters: parameters))
    expect("its rank is 4, and this run's is 8", TrainingSubject(traits: traits.merging(["rank": "8"]) { $1 }, parameters: parameters))
    expect(
      "its alpha is not set, and this run's is 2", TrainingSubject(traits: traits.merging(["alpha": "2"]) { $1 }, parameters: parameters))
    expect(
      "conv_in.bias has the shape [7] in it, and [8] in this run",
      TrainingSubject(traits: traits, parameters: parameters.dropLast() + [.init(name: "conv_in.bias", shape: [8])]))
    expect("it does not have more", TrainingSubject(traits: traits, parameters: parameters + [.init(name: "more", shape: [1])]))
    expect("it has conv_in.bias, which this run does not train", TrainingSubject(traits: traits, parameters: parameters.dropLast()))
    expect("its parameters have another order", TrainingSubject(traits: traits, parameters: parameters.reversed()))
  }

  @Test func damagedFilesAreRefused() throws {
    var run = try Run(AdamW())
    try run.step(in: context)
    try run.state.write(to: url)
    let whole = try Data(contentsOf: url), file = try SafetensorsFile(url)
    // Cut off, anywhere.
    for count in [0, 7, 100, whole.count / 2, whole.count - 1] {
      try whole.prefix(count).write(to: url)
      #expect(throws: SafetensorsError.self, "\(count) bytes") { try TrainingState(contentsOf: url) }
    }
    let tensors = try readTensors(write(whole))
    func expectDamage(_ tensors: [String: Tensor], _ metadata: [String: String], _ what: String) throws {
      try SafetensorsWriter.write(tensors, metadata: metadata, to: url)
      #expect(throws: TrainingStateError.self, "\(what)") { try TrainingState(contentsOf: url) }
    }
    for name in tensors.keys.sorted() {
      // An optimiser's own tensors are checked when it takes them.
      if !name.hasPrefix("optimizer") { try expectDamage(tensors.filter { $0.key != name }, file.metadata, "without \(name)") }
      let wrong = Tensor(repeating: .nan, shape: tensors[name]?.shape ?? [])
      try expectDamage(tensors.merging([name: wrong]) { $1 }, file.metadata, "NaN in \(name)")
    }
    try expectDamage(tensors.merging(["parameters.conv_in.bias": Tensor([1, 2])]) { $1 }, file.metadata, "another shape")
    try expectDamage(tensors.merging(["parameters.more": Tensor([1, 2])]) { $1 }, file.metadata, "one more")
    try expectDamage(tensors.merging(["optimizer.exp_avg.more": Tensor([1, 2])]) { $1 }, file.metadata, "one more of the optimiser")
    try expectDamage(tensors.merging(["optimizer.more": Tensor([1, 2])]) { $1 }, file.metadata, "one with a bad name")
    try expectDamage(tensors, [:], "no description")
    try expectDamage(tensors, file.metadata.merging(["training_state": "2"]) { $1 }, "another version")
    let description = try #require(file.metadata["state"])
    for (old, new) in [
      ("\"steps\":1", "\"steps\":-1"), ("\"averagedSteps\":1", "\"averagedSteps\":-3"), ("\"step\":\"1.0\"", "\"step\":\"x\""),
      ("\"largest\":0.9999", "\"largest\":2"), ("[7]", "[-7]"), ("{", "["), ("conv_in.bias", "b.to_q.lora_A.weight"),
    ] {
      #expect(description.contains(old), "\(old) in \(description.prefix(900))")
      try expectDamage(tensors, file.metadata.merging(["state": description.replacingOccurrences(of: old, with: new)]) { $1 }, new)
    }
  }

  private func write(_ data: Data) throws -> URL {
    try data.write(to: url)
    return url
  }

  /// What cannot be gone on from never takes the place of what can.
  @Test func anOldStateStays() throws {
    var run = try Run(AdamW())
    try run.step(in: context)
    try run.state.write(to: url)
    let whole = try Data(contentsOf: url)
    run.parameters[1] = Tensor(repeating: .nan, shape: [9, 4])
    let error = TrainingStateError.notFinite(path: url.path(percentEncoded: false), name: "parameters.a.to_q.lora_B.weight")
    #expect(throws: error) { try run.state.write(to: url) }
    #expect(try Data(contentsOf: url) == whole)
    #expect(throws: FileWriteError.self) {
      try TrainingState(contentsOf: url).write(to: folder.url.appending(path: "none/state.safetensors"))
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: folder.url.path(percentEncoded: false)) == ["state.safetensors"])
  }

  @Test func aFullDiskLeavesTheOldState() throws {
    // /dev/full takes nothing: every write says that no space is left.
    guard FileManager.default.fileExists(atPath: "/dev/full") else { return }
    let run = try Run(AdamW())
    #expect(throws: FileWriteError.self) { try run.state.write(to: URL(filePath: "/dev/full")) }
  }

  @Test func otherFilesAreNoStates() throws {
    try SafetensorsWriter.write(["weight": Tensor([1])], to: url)
    let path = url.path(percentEncoded: false)
    #expect(throws: TrainingStateError.noState(path: path)) { try TrainingState(contentsOf: url) }
    #expect(throws: SafetensorsError.self) { try TrainingState(contentsOf: folder.url.appending(path: "nothing.safetensors")) }
  }

  @Test func errorsAreOneSentence() {
    let errors: [any CustomStringConvertible] = [
      TrainingStateError.noState(path: "p"), TrainingStateError.newerVersion(path: "p", found: "2"),
      TrainingStateError.damaged(path: "p", reason: "r"), TrainingStateError.otherRun(path: "p", reason: "r"),
      TrainingStateError.notFinite(path: "p", name: "n"), TrainingError.noParameters, TrainingError.unusableLearningRate(0),
      TrainingError.unusableSetting(name: "n", found: "f", needed: "d"), TrainingError.gradientNotFinite(parameter: 1),
      TrainingError.lossNotFinite, TrainingError.timestepOutOfRange(5, count: 3), TrainingError.foreignState(optimizer: "o", reason: "r"),
      TrainingError.wrongCount(of: "w", expected: 1, found: 2), TrainingError.wrongShape(of: "W", expected: [1], found: [2]),
    ]
    for error in errors { #expect(error.description.hasSuffix(".") && !error.description.contains("\n")) }
  }
}
