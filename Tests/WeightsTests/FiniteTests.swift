import Foundation
import Tensor
import Testing
import LatentDiffusionWeights

@Suite struct FiniteTests {
  private static func tensor(_ type: NumberFormat, count: Int, at index: Int, bits: UInt32) -> WeightTensor {
    // One byte more at the front: files align nothing.
    var data = Data(count: 1 + count * type.blockBytes)
    for byte in 0..<type.blockBytes { data[1 + index * type.blockBytes + byte] = UInt8(truncatingIfNeeded: bits >> (8 * UInt32(byte))) }
    return WeightTensor(shape: [count], elementType: type, data: data.dropFirst())
  }

  @Test(arguments: [NumberFormat.float32, .float16, .bfloat16]) func findsEveryBadValue(_ type: NumberFormat) {
    let bad: [UInt32] =
      switch type {
      case .float32: [0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0x7F80_0001, 0xFFFF_FFFF]
      case .float16: [0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFFFF]
      default: [0x7F80, 0xFF80, 0x7FC0, 0x7F81, 0xFFFF]
      }
    let good: [UInt32] =
      switch type {
      case .float32: [0x7F7F_FFFF, 0xFF7F_FFFF, 1, 0x8000_0000, 0x807F_FFFF]
      case .float16: [0x7BFF, 0xFBFF, 1, 0x8000, 0x83FF]
      default: [0x7F7F, 0xFF7F, 1, 0x8000, 0x807F]
      }
    for count in [1, 2, 7, 33, 100] {
      for index in 0..<count {
        for bits in bad { #expect(!Self.tensor(type, count: count, at: index, bits: bits).isFinite, "\(count) \(index) \(bits)") }
        for bits in good { #expect(Self.tensor(type, count: count, at: index, bits: bits).isFinite, "\(count) \(index) \(bits)") }
      }
    }
  }

  /// Of blocks, the scales decide; any step is a number.
  @Test func findsEveryBadScale() {
    for blocks in [1, 2, 7] {
      for byte in 0..<34 * blocks {
        var data = Data(count: 34 * blocks)
        data[byte] = 0x7C
        let isHighByteOfScale = byte % 34 == 1
        let tensor = WeightTensor(shape: [blocks, 32], elementType: .q8, data: data)
        #expect(tensor.isFinite == !isHighByteOfScale, "byte \(byte) of \(blocks) blocks")
      }
    }
  }

  @Test func loadingNamesWhatIsNotFinite() throws {
    let source = WeightTable([
      "a.good": StoredTensor(shape: [1], elementType: "F32", data: WeightTensor(Tensor([1])).data),
      "a.bad": StoredTensor(shape: [2], elementType: "F32", data: WeightTensor(Tensor([1, .nan])).data),
      "a.unused": StoredTensor(shape: [1], elementType: "I64", data: Data(count: 8)),
    ])
    let error = #expect(throws: WeightErrors.self) {
      try LoadReport.load(from: source, in: ExecutionContext(threads: 1)) { scope in
        (try scope["a"].tensor("good", shape: [1]), try scope["a"].tensor("bad", shape: [2]), try scope["a"].tensor("none", shape: [1]))
      }
    }
    #expect(error?.problems == [.notFinite(name: "a.bad"), .missing(name: "a.none", similar: nil)])
    let (_, report) = try LoadReport.load(from: source, in: ExecutionContext(threads: 1)) { try $0["a"].tensor("good", shape: [1]) }
    #expect(report.unused == ["a.bad", "a.unused"])
  }
}
