import LatentDiffusionComponents
import Foundation
import Synchronization
import Tensor
import LatentDiffusionTestSupport
import Testing
import UNet
import LatentDiffusionWeights

/// Passes that reuse the deep features of another one, against the same layers of diffusers called one by one.
@Suite struct StepCacheTests {
  /// One of `Fixtures/unet/step-cache.safetensors`.
  struct Case: Decodable {
    let model: String
    let branch: Int
    let timesteps: [Float]
  }

  private static func unet(_ name: String) throws -> UNet2DConditionModel {
    let files = try ModelFiles(ReferenceModel(name).folder)
    let json = try #require(try files.configuration(of: "unet"))
    return try LoadReport.load(from: files.weights(of: "unet"), in: ExecutionContext()) {
      try UNet2DConditionModel(UNet2DConfiguration(json: json), weights: $0)
    }.component
  }

  private struct Inputs {
    let text: Conditioning
    let first: Tensor
    let second: Tensor

    init(_ reference: ReferenceCase<Case>) throws {
      text = Conditioning(hiddenStates: try reference["text"])
      first = try reference["first"].channelsLast()
      second = try reference["second"].channelsLast()
    }
  }

  @Test(.compares("Step caching: passes that reuse deep features", in: .architectures, with: "diffusers")) func equalsDiffusersLayers()
    throws
  {
    var largest: Float = 0
    for reference in try ReferenceCases<Case>("unet/step-cache.safetensors") {
      let (unet, inputs) = (try Self.unet(reference.parameters.model), try Inputs(reference))
      let times = reference.parameters.timesteps
      var memory = PassMemory(Shortcuts(stepCaching: StepCaching(interval: 3, branch: reference.parameters.branch)))
      let context = ExecutionContext()
      #expect(!memory.reusesFeatures)
      let whole = try unet.predict(inputs.first, timestep: times[0], conditioning: inputs.text, memory: &memory, in: context)
      let plain = try unet.predict(inputs.first, timestep: times[0], conditioning: inputs.text, in: context)
      #expect(whole.elements == plain.elements, "\(reference.name): a whole pass")
      let deep = try #require(memory.kept["deep_features"])
      expectClose(deep, try reference["deep"].channelsLast(), tolerance: 1e-4, "\(reference.name): deep features")
      for _ in 0..<2 {
        let found = try unet.predict(inputs.second, timestep: times[1], conditioning: inputs.text, memory: &memory, in: context)
        let difference = expectClose(found, try reference["output"].channelsLast(), tolerance: 1e-4, reference.name)
        largest = max(largest, difference.error)
      }
      #expect(memory.passes == 3)
      #expect(!memory.reusesFeatures, "\(reference.name): the fourth pass is to be whole")
      let again = try unet.predict(inputs.second, timestep: times[1], conditioning: inputs.text, memory: &memory, in: context)
      let expected = try unet.predict(inputs.second, timestep: times[1], conditioning: inputs.text, in: context)
      #expect(again.elements == expected.elements, "\(reference.name): the fourth pass")
    }
    print("passes with deep features of another one: largest difference \(largest)")
  }

  /// With order 1 the features are those on the line through the last two whole passes.
  @Test func featuresGoOnChanging() throws {
    for reference in try ReferenceCases<Case>("unet/step-cache.safetensors") {
      let (unet, inputs) = (try Self.unet(reference.parameters.model), try Inputs(reference)), context = ExecutionContext()
      let branch = reference.parameters.branch, times: [Float] = [800, 700, 600, 550]
      var memory = PassMemory(Shortcuts(stepCaching: StepCaching(interval: 2, branch: branch, order: 1))), whole: [Tensor] = []
      for time in times[..<3] {
        _ = try unet.predict(inputs.first, timestep: time, conditioning: inputs.text, memory: &memory, in: context)
        // The pass between has kept what the one before left.
        whole.append(try #require(memory.kept["deep_features"]))
      }
      #expect(whole[1].elements == whole[0].elements && whole[2].elements != whole[0].elements)
      #expect(memory.reusesFeatures)
      let found = try unet.predict(inputs.second, timestep: times[3], conditioning: inputs.text, memory: &memory, in: context)
      var other = PassMemory(Shortcuts(stepCaching: StepCaching(interval: 2, branch: branch)), passes: 1)
      other.kept["deep_features"] = whole[2] + Float(0.25) * (whole[2] - whole[0])
      let expected = try unet.predict(inputs.second, timestep: times[3], conditioning: inputs.text, memory: &other, in: context)
      #expect(found.elements == expected.elements, "\(reference.name)")
      #expect(memory.kept["deep_features"]?.elements == whole[2].elements)
      #expect(!memory.reusesFeatures)
    }
  }

  /// One of `Fixtures/unet/step-cache-controls.safetensors`.
  struct ControlledCase: Decodable {
    let model: String
    let branch: Int
    let timesteps: [Float]
    let network: String
    let weight: Float
  }

  private static func control<Network: ModelComponent>(_ name: String, as type: Network.Type) throws -> Network {
    let files = try ModelFiles(ControlTests.folder.appending(path: name)), component = try #require(files.components.first)
    let json = try #require(try files.configuration(of: component))
    return try LoadReport.load(from: files.weights(of: component), in: ExecutionContext()) {
      try Network(configuration: json, weights: $0)
    }.component
  }

  /// Deep features stay as the whole pass before was steered; a ControlNet says no more than what has a place.
  @Test func controlledPassesEqualDiffusersLayers() throws {
    var largest: Float = 0
    for reference in try ReferenceCases<ControlledCase>("unet/step-cache-controls.safetensors") {
      let given = reference.parameters, context = ExecutionContext()
      let (unet, net) = (try Self.unet(given.model), try Self.control(given.network, as: ControlNetModel.self))
      let features = try net.features(of: reference["picture"].channelsLast(), in: context)
      let text = Conditioning(hiddenStates: try reference["text"])
      var memory = PassMemory(Shortcuts(stepCaching: StepCaching(interval: 2, branch: given.branch))), cache: (any Sendable)?
      func predict(_ latents: Tensor, _ timestep: Float, skips: Int?) throws -> Tensor {
        var conditioning = text
        conditioning.residuals = try net.residuals(
          ControlPass(
            latents: latents, timestep: timestep, conditioning: text, features: features, weight: given.weight, skips: memory.computedSkips),
          cache: &cache, in: context)
        #expect(conditioning.residuals?.skips.count == skips ?? 9 && (conditioning.residuals?.middle == nil) == (skips != nil))
        return try unet.predict(latents, timestep: timestep, conditioning: conditioning, memory: &memory, in: context)
      }
      _ = try predict(reference["first"].channelsLast(), given.timesteps[0], skips: nil)
      let deep = try #require(memory.kept["deep_features"])
      expectClose(deep, try reference["deep"].channelsLast(), tolerance: 1e-4, "\(reference.name): deep features")
      let found = try predict(reference["second"].channelsLast(), given.timesteps[1], skips: given.branch + 1)
      largest = max(largest, expectClose(found, try reference["output"].channelsLast(), tolerance: 1e-4, reference.name).error)
    }
    print("controlled passes with deep features of another one: largest difference \(largest)")
  }

  /// On the same input nothing is lost, wherever the branch ends: also in the middle of a block, behind which a T2I-Adapter's features would be added.
  @Test(arguments: ["sd1", "sdxl"]) func adaptersSteerCachedPasses(_ name: String) throws {
    let unet = try Self.unet(name), adapter = try Self.control(name == "sd1" ? "adapter" : "adapter-xl", as: T2IAdapter.self)
    let context = ExecutionContext()
    var numbers = Numbers(seed: 12)
    let latents = numbers.tensor([2, 8, 8, 4])
    let features = try adapter.features(of: numbers.tensor([2, 32, 32, 3]), in: context)
    var conditioning = Conditioning(hiddenStates: numbers.tensor([2, 5, unet.configuration.contextChannels]))
    conditioning.pooled = unet.configuration.pooledFeatures(besideNumbers: 6).map { numbers.tensor([2, $0]) }
    for input in unet.declaredInputs where input.isRequired {
      conditioning.inputs[input.name] = numbers.tensor(Shape([2] + input.shape.map { $0 == 0 ? 6 : $0 }))
    }
    let plain = try unet.predict(latents, timestep: 501, conditioning: conditioning, in: context)
    var cache: (any Sendable)?
    let pass = ControlPass(latents: latents, timestep: 501, conditioning: conditioning, features: features)
    conditioning.residuals = try adapter.residuals(pass, cache: &cache, in: context)
    for branch in 0..<9 {
      var memory = PassMemory(Shortcuts(stepCaching: StepCaching(interval: 2, branch: branch)))
      let whole = try unet.predict(latents, timestep: 501, conditioning: conditioning, memory: &memory, in: context)
      let reused = try unet.predict(latents, timestep: 501, conditioning: conditioning, memory: &memory, in: context)
      #expect(reused.elements == whole.elements, "\(branch)")
      #expect(compare(whole.elements, plain.elements).error > 0.01)
    }
  }

  @Test func anIntervalOfOneChangesNothing() throws {
    let reference = try #require(Array(try ReferenceCases<Case>("unet/step-cache.safetensors")).first)
    let (unet, inputs) = (try Self.unet("sd1"), try Inputs(reference))
    for shortcuts in [
      Shortcuts(), Shortcuts(stepCaching: StepCaching(interval: 1)), Shortcuts(stepCaching: StepCaching(interval: 1, branch: 4)),
    ] {
      var memory = PassMemory(shortcuts)
      for (latents, timestep) in [(inputs.first, Float(501)), (inputs.second, 481), (inputs.first, 461)] {
        let found = try unet.predict(latents, timestep: timestep, conditioning: inputs.text, memory: &memory, in: ExecutionContext())
        let plain = try unet.predict(latents, timestep: timestep, conditioning: inputs.text, in: ExecutionContext())
        #expect(found.elements == plain.elements)
      }
    }
  }

  /// What is left out is not computed, and on the same input nothing is lost.
  @Test(arguments: [
    (0, ["up_blocks.2.attentions.2"]),
    (1, ["down_blocks.0.attentions.0", "up_blocks.2.attentions.1", "up_blocks.2.attentions.2"]),
    (
      3,
      [
        "down_blocks.0.attentions.0", "down_blocks.0.attentions.1", "up_blocks.1.attentions.2", "up_blocks.2.attentions.0",
        "up_blocks.2.attentions.1", "up_blocks.2.attentions.2",
      ]
    ),
  ])
  func onlyLayersAboveTheBranchAreComputed(branch: Int, modules: [String]) throws {
    let reference = try #require(Array(try ReferenceCases<Case>("unet/step-cache.safetensors")).first)
    let (unet, inputs) = (try Self.unet("sd1"), try Inputs(reference))
    var memory = PassMemory(Shortcuts(stepCaching: StepCaching(interval: 2, branch: branch)))
    let whole = try unet.predict(inputs.first, timestep: 501, conditioning: inputs.text, memory: &memory, in: ExecutionContext())
    var context = ExecutionContext()
    let computed = Mutex<[String]>([])
    context.observer = { module, _ in computed.withLock { $0.append(module) } }
    let reused = try unet.predict(inputs.first, timestep: 501, conditioning: inputs.text, memory: &memory, in: context)
    #expect(computed.withLock { $0.filter { $0.wholeMatch(of: /.*attentions\.[0-9]+/) != nil } } == modules)
    #expect(reused.elements == whole.elements)
  }

  @Test func whatCannotBeIsAnError() throws {
    let reference = try #require(Array(try ReferenceCases<Case>("unet/step-cache.safetensors")).first)
    let (unet, inputs) = (try Self.unet("sd1"), try Inputs(reference))
    try unet.check(Shortcuts(stepCaching: StepCaching(interval: 2, branch: 8)))
    for branch in [-1, 9, Int.max] {
      let error = ComponentError.outOfRange(
        component: "The U-Net", option: "a branch for step caching", value: "\(branch)", allowed: "from 0 to 8")
      #expect(throws: error) { try unet.check(Shortcuts(stepCaching: StepCaching(interval: 2, branch: branch))) }
    }
    var memory = PassMemory(Shortcuts(stepCaching: StepCaching(interval: 2)))
    _ = try unet.predict(inputs.first, timestep: 501, conditioning: inputs.text, memory: &memory, in: ExecutionContext())
    let error = ComponentError.unexpectedShape(
      component: "The U-Net", argument: "deep features", expected: "[2, 8, 4, 8]", found: [2, 8, 8, 8])
    #expect(throws: error) {
      let narrow = Tensor(shape: [2, 8, 4, 4])
      _ = try unet.predict(narrow, timestep: 481, conditioning: inputs.text, memory: &memory, in: ExecutionContext())
    }
    // What a control says of layers that are not computed would be lost.
    for residuals in [
      FeatureResiduals(skips: Array(repeating: Tensor(shape: [2, 8, 8, 8]), count: 9)),
      FeatureResiduals(middle: Tensor(shape: [2, 2, 2, 12])),
    ] {
      var conditioning = inputs.text
      conditioning.residuals = residuals
      #expect(throws: ComponentError.self) {
        _ = try unet.predict(inputs.second, timestep: 481, conditioning: conditioning, memory: &memory, in: ExecutionContext())
      }
    }
  }
}
