import Foundation
import LatentDiffusionLayers
import Tensor
import LatentDiffusionTestSupport
import Testing
import LatentDiffusionWeights

@Suite struct ParameterTests {
  private let context = ExecutionContext(threads: 2)

  @Test func whatALayerTakesIsListed() throws {
    let (_, report) = try LoadReport.load(from: RandomWeights(seed: 3), residency: .packedOnceUsed, in: context) {
      try ResnetBlock2D(32, 64, timeChannels: 16, groups: 8, epsilon: 1e-5, weights: $0["down_blocks"][0]["resnets"][1])
    }
    let modules = ["norm1", "conv1", "time_emb_proj", "norm2", "conv2", "conv_shortcut"]
    #expect(
      report.parameters.map(\.name) == modules.flatMap { ["down_blocks.0.resnets.1.\($0).weight", "down_blocks.0.resnets.1.\($0).bias"] })
    #expect(report.parameters[2].shape == [64, 32, 3, 3] && report.parameters[2].residency == .packedOnceUsed)
    #expect(report.parameters[3].shape == [64] && report.parameters[3].residency == .packed)
    #expect(report.parameters.allSatisfy { $0.origin == .seeded(3) })
  }

  /// A copy is the same parameter, wherever its weights are between uses; another one with the same numbers is not.
  @Test(arguments: [WeightResidency.packed, .packedOnceUsed, .streamed(above: 0)]) func anIdentityStays(_ residency: WeightResidency) throws
  {
    let (made, report) = try LoadReport.load(from: RandomWeights(seed: 3), residency: residency, in: context) {
      try [$0.matrix("a", shape: [40, 32]), $0.matrix("a", shape: [40, 32])]
    }
    let copy = made[0]
    _ = try Tensor(repeating: 1, shape: [2, 32]).multiplied(by: copy.value, in: context)
    #expect(copy.id == made[0].id && copy.id == copy.value.id && copy.id == copy.label.id && copy.id != made[1].id)
    #expect(report.parameters.map(\.id) == made.map(\.id))
    let vector = try LoadReport.load(from: RandomWeights(seed: 3), in: context) { try $0.vector("a", shape: [40]) }.component
    #expect(vector.id == vector.value.reshaped([1, 40]).id && vector.id != Tensor(vector.value.elements).id)
  }

  /// Where a tensor of a file comes from is known after it has been renamed, reshaped, cut and converted.
  @Test func aFileIsTold() throws {
    let folder = ReferenceModel("sd1").folder
    let source = try ModelFiles(folder).weights(of: "unet", as: .float16, in: context)
    let file = try Self.file(in: folder)
    let shape = try #require(try SafetensorsFile(file).tensors["conv_in.bias"]?.shape)
    let parameter = try LoadReport.load(from: source, in: context) { try $0["conv_in"].vector("bias", shape: shape) }.component
    guard case .file(let url) = parameter.label.origin else {
      Issue.record("\(parameter.label.origin)")
      return
    }
    #expect(url.lastPathComponent == file.lastPathComponent && parameter.label.name == "conv_in.bias")
  }

  private static func file(in folder: URL) throws -> URL {
    let unet = folder.appending(path: "unet")
    let names = try FileManager.default.contentsOfDirectory(atPath: unet.path).sorted()
    return unet.appending(path: try #require(names.first { $0.hasSuffix(".safetensors") }))
  }
}
