import Foundation
import LatentDiffusionLayers
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing

/// GGUF's blocks in products: packed as they are, with the results of the values that they are decoded to, bit by bit.
@Suite struct BlockFormatTests {
  private let context = ExecutionContext(threads: 2)

  /// Formats by name, and where the numbers in half precision are in a block.
  private static let halves = [
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2],
    "Q6_K": [208],
  ]
  private static let names = halves.keys.sorted()

  /// Any bits, with scales from -1/64 to 1/64.
  private func blocks(_ shape: Shape, _ name: String, order: BlockOrder = .product) throws -> WeightTensor {
    let format = try #require(NumberFormat(named: name))
    var numbers = Numbers(seed: 5)
    var data = Data((0..<shape.count / format.blockValues * format.blockBytes).map { _ in UInt8.random(in: 0...255, using: &numbers) })
    for block in 0..<shape.count / format.blockValues {
      for offset in Self.halves[name] ?? [] { data[block * format.blockBytes + offset + 1] &= 0xA3 }
    }
    return WeightTensor(shape: shape, elementType: format, data: data, order: order)
  }

  @Test(arguments: Self.names, [false, true]) func linear(_ name: String, isGated: Bool) throws {
    let weights = try blocks([140, 512], name), bias = WeightTensor(Tensor(repeating: 0.5, shape: [140]))
    let exact = WeightTensor(weights.decoded())
    #expect(weights.isFinite && Set(exact.decoded().elements).count > 300)
    var numbers = Numbers(seed: 6)
    let x = numbers.tensor([9, 512])
    func product(_ weights: WeightTensor, _ residency: WeightResidency = .packed) throws -> [Float] {
      let layer = try LoadReport.load(from: TensorsByName(["weight": weights, "bias": bias]), residency: residency, in: context) {
        try Linear(512, 140, isGated: isGated, weights: $0)
      }
      return try layer.component(x, in: context).elements
    }
    let expected = try product(exact)
    for residency in [WeightResidency.packed, .packedOnceUsed, .streamed(above: 0)] {
      let found = try product(weights, residency)
      // Products of 8 bits may have activations of 8 bits, too, but not of 140 outputs, which are no whole panels; gated ones are.
      if name == "Q8_0" && isGated { continue }
      #expect(found == expected, "\(residency)")
    }
  }

  /// Kernels in either order: blocks of channels, and blocks of windows as in GGUF files; by Winograd's method and directly.
  @Test(arguments: Self.names, [BlockOrder.product, .tensor]) func convolution(_ name: String, order: BlockOrder) throws {
    let weights = try blocks([40, 256, 3, 3], name, order: order), exact = WeightTensor(weights.decoded())
    var numbers = Numbers(seed: 7)
    let x = numbers.tensor([1, 9, 11, 256])
    for (stride, method) in [(1, ConvolutionMethod.winograd), (1, .direct), (2, .direct)] {
      let geometry = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, stride: stride, padding: .all(1))
      let both = try [weights, exact].map {
        try Tensor.convolution(
          [x], weights: PackedMatrix($0, in: context), geometry: geometry, bias: nil, method: method, in: context
        ).elements
      }
      // Winograd's products of 8 bits may be of pairs of bfloat16.
      if name == "Q8_0" && order == .product && method == .winograd { continue }
      #expect(both[0] == both[1], "\(method) \(stride)")
    }
  }

  /// The tensor's order is that of the blocks of a matrix; a product's order is another one.
  @Test func orders() throws {
    let flat = try blocks([4, 64, 3, 3], "Q5_1", order: .tensor), matrix = try blocks([4, 576], "Q5_1")
    #expect(flat.decoded().elements == matrix.decoded().elements && flat.data == matrix.data)
    let rows = try blocks([4, 64, 3, 3], "Q5_1", order: .product).decoded()
    #expect(rows.channelsLast().elements == matrix.decoded().elements)
    // 9 · 32 is a multiple of 32, 9 · 20 is none; and whether 20 channels are does not matter.
    let format = flat.elementType
    #expect(
      format.bytes(of: [1, 64, 3, 3], order: .tensor) == 18 * format.blockBytes && format.bytes(of: [1, 20, 3, 3], order: .tensor) == nil)
    #expect(format.bytes(of: [1, 16, 2, 2], order: .tensor) == 2 * format.blockBytes && format.bytes(of: [1, 16, 2, 2]) == nil)
    #expect(flat.rows(1..<3).decoded().elements == Array(flat.decoded().elements[576..<1728]))
    // What is written has a product's order.
    let eight = try blocks([4, 64, 3, 3], "Q8_0", order: .tensor)
    let reordered = try eight.converted(to: .q8)
    #expect(reordered.order == .product && reordered.data != eight.data)
    expectClose(reordered.decoded(), eight.decoded(), tolerance: 0.02)
  }

  /// In memory, weights take the bits of the file; those of 2 and 3 bits take four, and each group's scale a byte.
  @Test(arguments: [
    ("Q4_0", 4.5), ("Q4_1", 5), ("Q5_0", 5.5), ("Q5_1", 6), ("Q8_0", 8.5), ("Q6_K", 6.5625), ("Q5_K", 5.625), ("Q4_K", 4.625),
    ("Q3_K", 4.5625),
    ("Q2_K", 5.125),
  ]) func memory(_ name: String, bits: Double) throws {
    let format = try #require(NumberFormat(named: name)), bytes = try #require(PackedMatrix.packedBytes([64, 512], of: format))
    #expect(Double(bytes) * 8 == bits * 64 * 512)
    #expect(PackedMatrix.packedBytes([64, 500], of: format) == nil)
  }

  @Test(arguments: Self.names) func infiniteScalesAreFound(_ name: String) throws {
    let weights = try blocks([4, 512], name)
    for offset in Self.halves[name] ?? [] {
      var data = weights.data
      (data[weights.elementType.blockBytes + offset], data[weights.elementType.blockBytes + offset + 1]) = (0, 0x7C)
      let damaged = WeightTensor(shape: weights.shape, elementType: weights.elementType, data: data)
      #expect(!damaged.isFinite)
      #expect(try PackedMatrix(checking: damaged, in: context) == nil)
    }
  }
}
