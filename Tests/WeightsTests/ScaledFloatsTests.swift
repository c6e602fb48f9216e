import Foundation
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing

/// Floats of 8 bits with scales beside them.
@Suite struct ScaledFloatsTests {
  /// The scale of a matrix is part of it; what PyTorch makes of both, rounded to half precision.
  @Test(.compares("Floats of 8 bits with scales", in: .files, with: "torch", unit: .equality)) func scalesArePartOfMatrices() throws {
    let file = try SafetensorsFile(fixtures.appending(path: "weights/scaled-fp8.safetensors"))
    #expect(file.names == ["a.weight", "b.weight", "c.weight", "plain.weight", "expected.a", "expected.b", "expected.c"])
    for name in ["a", "b", "c"] {
      let (found, expected) = (try file.tensor("\(name).weight", shape: [8, 32]), try file.tensor("expected.\(name)", shape: [8, 32]))
      #expect(found.elementType == .float16, "\(name)")
      expectSame(found.data, expected.data, name)
    }
    #expect(try file.tensor("plain.weight", shape: [8, 32]).elementType.name == "F8_E4M3")
  }

  private func floats(_ shape: Shape) throws -> WeightTensor {
    WeightTensor(shape: shape, elementType: try #require(NumberFormat(named: "F8_E4M3")), data: Data(repeating: 0x38, count: shape.count))
  }

  private func file(_ tensors: [String: WeightTensor]) throws -> SafetensorsFile {
    let folder = try TemporaryFolder()
    return try SafetensorsFile(folder.write("x.safetensors", SafetensorsWriter.encode(tensors)))
  }

  /// 0x38 is 1. A product beyond half precision is held in float32.
  @Test func largeScales() throws {
    let scaled = try file(["a.b.weight": floats([2, 4]), "a.b.weight_scale": WeightTensor(Tensor([1e6])), "a.scaled_fp8": floats([0])])
    #expect(scaled.names == ["a.b.weight"])
    let tensor = try scaled.tensor("a.b.weight", shape: [2, 4])
    #expect(tensor.elementType == .float32 && tensor.decoded().elements == [Float](repeating: 1e6, count: 8))
  }

  @Test func scalesThatDoNotFit() throws {
    let one = WeightTensor(Tensor([2]))
    for (name, scale) in [("weight_scale", Tensor([1, 2, 3])), ("scale_weight", Tensor([1, 2, 3, 4])), ("scale_weight", Tensor([.nan]))] {
      let error = #expect(throws: SafetensorsError.self) { try file(["a.weight": floats([2, 4]), "a.\(name)": WeightTensor(scale)]) }
      #expect(error?.description.contains("x.safetensors") == true && error?.description.contains("a.\(name)") == true)
    }
    #expect(throws: SafetensorsError.self) {
      try file(["a.weight": floats([0, 4]), "a.weight_scale": WeightTensor(Tensor([], shape: [0]))])
    }
    let both = ["a.weight": try floats([2, 4]), "a.weight_scale": one, "a.scale_weight": one]
    #expect(throws: SafetensorsError.self) { try file(both) }
    // Scales of what is no float of 8 bits are tensors like others, and so are marks in files without scales.
    let others = try file(["a.weight": WeightTensor(Tensor([1])), "a.weight_scale": one, "scaled_fp8": floats([2])])
    #expect(others.names == ["a.weight", "a.weight_scale", "scaled_fp8"])
  }
}
