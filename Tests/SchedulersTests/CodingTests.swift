import LatentDiffusionComponents
import Foundation
import Schedulers
import Tensor
import Testing

/// A generation's place goes through an encoder that knows numbers and bytes, and goes on as if nothing had happened.
@Suite struct CodingTests {
  /// What comes out of JSON as it came in.
  private func again<Value: Codable>(_ value: Value) throws -> Value {
    try JSONDecoder().decode(Value.self, from: JSONEncoder().encode(value))
  }

  private func reread<S: Scheduler>(_ scheduler: S) throws -> any Scheduler { try again(scheduler) as S }
  private func reread<N: NoiseSource>(_ noise: N) throws -> any NoiseSource { try again(noise) as N }

  private func run(
    _ scheduler: inout any Scheduler, _ sample: inout Tensor, _ steps: Range<Int>, _ noise: inout any NoiseSource
  ) throws {
    for step in steps {
      let prediction = Pseudo.predict(scheduler.scaleInput(sample, at: step), timestep: scheduler.timesteps[step])
      sample = try scheduler.advance(sample, prediction: prediction, at: step, noise: &noise).sample
    }
  }

  @Test(arguments: SchedulerKind.allCases, ["", "leading", "trailing", "karras", "sigma_min", "thresholding", "one order", "stochastic"])
  func anInterruptedRunGoesOn(_ kind: SchedulerKind, _ words: String) throws {
    var configuration = SchedulerConfiguration()
    switch words {
    case "leading", "trailing": configuration.timestepSpacing = words
    case "karras": configuration.useKarrasSigmas = true
    case "sigma_min": (configuration.finalSigmasType, configuration.skipPRKSteps) = ("sigma_min", true)
    case "thresholding": configuration.thresholding = true
    case "one order": (configuration.solverOrder, configuration.clipSample) = (1, true)
    case "stochastic": (configuration.solverOrder, configuration.algorithmType) = (3, "sde-dpmsolver++")
    default: configuration.solverOrder = 3
    }
    let deterministic: [SchedulerKind] = [.dpmSolverMultistepInverse, .saSolver, .edmDPMSolverMultistep, .deis]
    if words == "stochastic", deterministic.contains(kind) {
      // It has no such algorithm, or not of the third order.
      #expect(throws: SchedulerError.self) { try kind.make(configuration: configuration, steps: 9) }
      return
    }
    let start = try kind.make(configuration: configuration, steps: 9)
    let count = start.timesteps.count
    for place in [0, 1, 2, count / 2, count - 1] {
      var (whole, sample) = (start, Pseudo.noise * start.initialNoiseScale)
      var noise: any NoiseSource = TorchGenerator(seed: 5)
      try run(&whole, &sample, 0..<place, &noise)
      var (part, copy, copiedNoise) = (try reread(whole), try again(sample), try reread(noise))
      try run(&whole, &sample, place..<count, &noise)
      try run(&part, &copy, place..<count, &copiedNoise)
      #expect(copy.elements.map(\.bitPattern) == sample.elements.map(\.bitPattern), "from step \(place)")
      #expect(part.timesteps == whole.timesteps && part.sigmas == whole.sigmas && part.initialNoiseScale == whole.initialNoiseScale)
    }
  }

  @Test func tablesMayBeInfinite() throws {
    // Without signal at the end of the table σ is infinite, which JSON has no number for.
    var configuration = SchedulerConfiguration()
    (configuration.rescaleBetasZeroSNR, configuration.timestepSpacing) = (true, "trailing")
    configuration.predictionType = "v_prediction"
    let scheduler = try DDIMScheduler(configuration, steps: 5)
    #expect(scheduler.sigmas[0] == .infinity)
    #expect(try again(scheduler).sigmas == scheduler.sigmas)
    let odd = NoiseSchedule(
      timesteps: [.nan, -.infinity], levels: [.nan, .infinity, -0.0].map { NoiseLevel(karras: $0) }, initialNoiseScale: .infinity)
    let read = try again(odd)
    #expect(read.timesteps.map(\.bitPattern) == odd.timesteps.map(\.bitPattern) && read.initialNoiseScale == .infinity)
    #expect(read.levels.map(\.sigma.bitPattern) == odd.levels.map(\.sigma.bitPattern))
  }

  @Test(arguments: [0, 1, 15, 16, 17, 623, 624, 625, 1000])
  func generatorsKeepTheirPlace(_ drawn: Int) throws {
    func expectPlace<N: NoiseSource>(_ start: N) throws {
      var source = start
      // One by one, then at once: normals come in pairs, and in blocks of 16.
      for _ in 0..<drawn { _ = source.normal(1) }
      var one = try again(source)
      #expect(one.normal(33) == source.normal(33))
      var copy = start
      _ = copy.normal(drawn)
      var other = try again(copy)
      for count in [1, 2, 15, 16, 17, 700] {
        #expect(other.normal(count).map(\.bitPattern) == copy.normal(count).map(\.bitPattern), "\(N.self), \(count)")
      }
    }
    try expectPlace(TorchGenerator(seed: 0x1234_5678_9abc))
    try expectPlace(NumPyGenerator(seed: 7))
    try expectPlace(PhiloxGenerator(seed: .max))
    try expectPlace(PhiloxGenerator(seed: 3, residentThreads: 300))
  }

  @Test func tensorsKeepTheirBits() throws {
    let elements: [Float] = [0, -0.0, 1, .infinity, -.infinity, .nan, .signalingNaN, .leastNonzeroMagnitude]
    for shape: Shape in [[8], [2, 2, 2], [1, 8, 1]] {
      let read = try again(Tensor(elements, shape: shape))
      #expect(read.shape == shape && read.elements.map(\.bitPattern) == elements.map(\.bitPattern))
    }
    for shape: Shape in [[0], [3, 0, 2], []] { #expect(try again(Tensor(shape: shape)).shape == shape) }
    #expect(try String(decoding: JSONEncoder().encode(Tensor([1, -2])), as: UTF8.self).contains("AACAPwAAAMA="))
  }

  private func isRefused<Value: Decodable>(_ type: Value.Type, _ json: String) {
    let error = #expect(throws: DecodingError.self, "\(json.prefix(100))") { try JSONDecoder().decode(type, from: Data(json.utf8)) }
    guard case .dataCorrupted = error else { return #expect(Bool(false), "\(json.prefix(100)): \(error.debugDescription)") }
  }

  @Test(arguments: [
    #"{"shape": [3], "elements": "AACAPwAAAMA="}"#, #"{"shape": [-2], "elements": "AACAPwAAAMA="}"#,
    #"{"shape": [-2, -1], "elements": "AACAPwAAAMA="}"#, #"{"shape": [4611686018427387904, 4], "elements": ""}"#,
    #"{"shape": [4611686018427387904, 0], "elements": ""}"#, #"{"shape": [9223372036854775807], "elements": ""}"#,
    #"{"shape": [2], "elements": "AACAPwAAAM"}"#, #"{"shape": [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2], "elements": "AACAPwAAAMA="}"#,
    #"{"shape": [99999999999999999999], "elements": ""}"#,
  ])
  func refusesDamagedTensors(_ json: String) { isRefused(Tensor.self, json) }

  @Test func refusesDamagedGenerators() throws {
    func damaged(_ source: some Encodable, _ from: String, _ to: String) throws -> String {
      let json = try String(decoding: JSONEncoder().encode(source), as: UTF8.self)
      #expect(json.contains(from), "\(json.prefix(100))")
      return json.replacing(from, with: to)
    }
    let (torch, philox) = (TorchGenerator(seed: 1), PhiloxGenerator(seed: 1, residentThreads: 512))
    for place in ["-1", "625", "9223372036854775807"] {
      isRefused(TorchGenerator.self, try damaged(torch, #""position":624"#, #""position":\#(place)"#))
      isRefused(NumPyGenerator.self, try damaged(NumPyGenerator(seed: 1), #""position":624"#, #""position":\#(place)"#))
    }
    isRefused(TorchGenerator.self, try damaged(torch, #""state":[1,"#, #""state":["#))
    isRefused(TorchGenerator.self, try damaged(torch, #""state":[1,"#, #""state":[4294967296,"#))
    for threads in ["0", "-256", "255", "257"] {
      isRefused(PhiloxGenerator.self, try damaged(philox, #""residentThreads":512"#, #""residentThreads":\#(threads)"#))
    }
  }

  /// Whatever stands in a number's place, a scheduler is refused or makes its steps; it never traps.
  @Test(arguments: SchedulerKind.allCases)
  func survivesDamage(_ kind: SchedulerKind) throws {
    var configuration = SchedulerConfiguration()
    (configuration.clipSample, configuration.solverOrder) = (true, 3)
    if kind == .ddpm || kind == .uniPC { configuration.thresholding = true }
    var scheduler = try kind.make(configuration: configuration, steps: 6)
    var (sample, noise) = (Pseudo.noise, TorchGenerator(seed: 1) as any NoiseSource)
    let count = scheduler.timesteps.count
    try run(&scheduler, &sample, 0..<count - 2, &noise)
    let object = try JSONSerialization.jsonObject(with: JSONEncoder().encode(scheduler))
    var (made, refused) = (0, 0)
    for value: Any in [-1, 0, 1, 2.5, 1e30, Int.max, Int.min, "", "none", [Int](), [0, -1], [String: Int](), true, NSNull()] {
      for damaged in damages(of: object, by: value) {
        let json = try JSONSerialization.data(withJSONObject: damaged)
        do {
          var read = try decoded(json, like: scheduler)
          made += 1
          for step in [0, 1, count - 2, count - 1] where read.timesteps.indices.contains(step) {
            var place: any NoiseSource = Pseudo.Source()
            do { _ = try read.advance(sample, prediction: sample, at: step, noise: &place) } catch is SchedulerError { break }
          }
        } catch is DecodingError { refused += 1 }
      }
    }
    #expect(made > 5 && refused > 50, "\(made) made, \(refused) refused")
  }

  private func decoded<S: Scheduler>(_ json: Data, like other: S) throws -> any Scheduler { try JSONDecoder().decode(S.self, from: json) }

  /// The object with one of its parts replaced, each in turn; of long lists the first two elements only, and the list itself cut short.
  private func damages(of part: Any, by value: Any) -> [Any] {
    switch part {
    case let object as [String: Any]:
      return object.keys.sorted().flatMap { key in
        ([value] + damages(of: object[key] as Any, by: value)).map { damage in
          var copy = object
          copy[key] = damage
          return copy as Any
        }
      }
    case let list as [Any]:
      let changed = list.indices.prefix(2).flatMap { index in
        ([value] + damages(of: list[index], by: value)).map { damage in
          var copy = list
          copy[index] = damage
          return copy as Any
        }
      }
      return changed + [Array(list.dropLast())]
    default: return []
    }
  }
}
