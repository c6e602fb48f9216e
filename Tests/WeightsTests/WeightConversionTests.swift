import Foundation
import Tensor
import LatentDiffusionTestSupport
import Testing
import LatentDiffusionWeights

@Suite struct WeightConversionTests {
  private let context = ExecutionContext(threads: 3)
  private static let written: [NumberFormat] = [.float32, .float16, .bfloat16, .q8]

  private func bits(_ tensor: WeightTensor) -> [UInt16] {
    stride(from: 0, to: tensor.data.count, by: 2).map {
      UInt16(tensor.data[tensor.data.startIndex + $0]) | UInt16(tensor.data[tensor.data.startIndex + $0 + 1]) << 8
    }
  }

  private func halves(_ bits: [UInt16], as type: NumberFormat = .float16) -> WeightTensor {
    WeightTensor(shape: [bits.count], elementType: type, data: Data(bits.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }))
  }

  // MARK: 16 bits

  /// Numbers of all sizes, ties, subnormals, infinities, NaN.
  @Test(arguments: [NumberFormat.float16, .bfloat16]) func roundsAsPyTorchDoes(_ type: NumberFormat) throws {
    let file = try SafetensorsFile(fixtures.appending(path: "weights/rounding.safetensors"))
    let shape = try #require(file.tensors["exact"]?.shape)
    let exact = try file.tensor("exact", shape: shape).decoded().elements
    let expected = try bits(file.tensor(type == .float16 ? "f16" : "bf16", shape: shape))
    let infinity: UInt16 = type == .float16 ? 0x7C00 : 0x7F80
    var (kept, kinds): ([Int], [String: Int]) = ([], [:])
    for (index, value) in exact.enumerated() {
      guard value.isFinite, expected[index] & 0x7FFF == infinity else {
        kept.append(index)
        kinds[value.isNaN ? "NaN" : value.isInfinite ? "infinite" : expected[index] & infinity == 0 ? "subnormal" : "normal", default: 0] +=
          1
        continue
      }
      kinds["beyond", default: 0] += 1
      #expect(throws: WeightConversionError.outOfRange(type), "\(value)") { try WeightTensor(Tensor([value])).converted(to: type) }
    }
    let found = try bits(WeightTensor(Tensor(kept.map { exact[$0] })).converted(to: type, in: context))
    for (found, index) in zip(found, kept) {
      // A NaN may have any fraction.
      let agree = exact[index].isNaN ? found & infinity == infinity && found & ~(0x8000 | infinity) != 0 : found == expected[index]
      #expect(agree, "\(exact[index]): \(String(found, radix: 16)), expected \(String(expected[index], radix: 16))")
    }
    print("\(type): \(kinds)")
    #expect(kinds.count == 5 && kept.count > 3000)
  }

  /// Widening is exact, so all 65536 patterns come back.
  @Test(arguments: [NumberFormat.float16, .bfloat16]) func everyPatternComesBack(_ type: NumberFormat) throws {
    let exponent: UInt16 = type == .float16 ? 0x7C00 : 0x7F80
    let all = (0...UInt16.max).filter { $0 & exponent != exponent || $0 & ~(0x8000 | exponent) == 0 }
    let narrow = halves(all, as: type)
    let wide = try narrow.converted(to: .float32, in: context)
    #expect(wide.elementType == .float32 && wide.data == WeightTensor(narrow.decoded()).data)
    #expect(try bits(wide.converted(to: type, in: context)) == all)
  }

  /// Between all neighbours: a tie goes to the even one, what is off the tie to the nearer one.
  @Test func ties() throws {
    let lower = Array(UInt16(0)..<0x7BFF)
    let values = halves(lower + [0x7BFF]).decoded().elements
    let middles = lower.indices.map { (values[$0] + values[$0 + 1]) / 2 }
    #expect(try bits(WeightTensor(Tensor(middles)).converted(to: .float16)) == lower.map { $0 + $0 & 1 })
    #expect(try bits(WeightTensor(Tensor(middles.map(\.nextDown))).converted(to: .float16)) == lower)
    #expect(try bits(WeightTensor(Tensor(middles.map { -$0.nextUp })).converted(to: .float16)) == lower.map { ($0 + 1) | 0x8000 })
  }

  @Test func betweenFormsOf16Bits() throws {
    let half = halves([0x3C01, 0x0001, 0xFBFF])
    #expect(try bits(half.converted(to: .bfloat16)) == [0x3F80, 0x3380, 0xC780])
    #expect(throws: WeightConversionError.outOfRange(.float16)) { try halves([0x4780], as: .bfloat16).converted(to: .float16) }
    // What is in the form already is not touched.
    #expect(try half.converted(to: .float16).data == half.data)
    #expect(try half.rows(0..<0).converted(to: .float32).decoded().count == 0)
  }

  /// The pieces in which the work is shared out change nothing, nor does where the file puts the bytes.
  @Test(arguments: Self.written) func threadsAndAlignmentChangeNothing(_ type: NumberFormat) throws {
    let source = try RandomWeights(seed: 9, elementType: type).tensor("a.weight", shape: [70, 64, 3, 3])
    let odd = WeightTensor(shape: source.shape, elementType: type, data: (Data(count: 1) + source.data).dropFirst())
    for target in Self.written {
      let alone = try source.converted(to: target)
      #expect(alone.elementType == target && alone.shape == source.shape)
      #expect(try source.converted(to: target, in: context).data == alone.data)
      #expect(try odd.converted(to: target, in: context).data == alone.data)
    }
    #expect(odd.decoded().elements == source.decoded().elements)
  }

  // MARK: blocks of 8 bits

  private let quantised = fixtures.appending(path: "weights/quantised.safetensors")

  /// Matrices, kernels, blocks of zeros, scales below half precision's normal numbers, ties: the bytes that NumPy makes.
  @Test(arguments: ["matrix", "special", "kernel", "window", "point"]) func quantisesAsTheDefinitionSays(_ name: String) throws {
    let file = try SafetensorsFile(quantised)
    let shape = try #require(file.tensors["exact.\(name)"]?.shape)
    let stored = try file.tensor(name, shape: shape)
    #expect(stored.elementType == .q8 && stored.isMapped && stored.isFinite)
    let exact = try file.tensor("exact.\(name)", shape: shape)
    let made = try exact.converted(to: .q8, in: context)
    #expect(made.data == stored.data)
    let expected = try file.tensor("decoded.\(name)", shape: shape)
    #expect(stored.decoded().elements == expected.decoded().elements)
    #expect(try stored.converted(to: .float32, in: context).data == expected.data)
    // Rows are whole blocks.
    let rows = stored.rows(1..<shape[0])
    #expect(rows.decoded().elements == expected.rows(1..<shape[0]).decoded().elements)
    // No value is further away than half a step, and a step is the scale.
    let scale = exact.decoded().elements.map(abs).max().map { $0 / 127 } ?? 0
    let worst = compare(stored.decoded().elements, exact.decoded().elements)
    print("\(name): \(worst.largest / scale) of the largest step")
    #expect(worst.largest <= 0.51 * scale)
  }

  /// A kernel over frames is one over the lines of a picture: the same bytes, and the same products, in every form without blocks.
  @Test(arguments: [NumberFormat.float32, .float16, .bfloat16]) func kernelsOfThreeAxes(_ format: NumberFormat) throws {
    var generator = TorchGenerator(seed: 12)
    let values = Tensor(generator.normal(40 * 64 * 3), shape: [40, 64, 3, 1])
    let clips = Tensor(generator.normal(2 * 4 * 6 * 64), shape: [2, 4, 6, 64])
    let geometry = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 1, padding: .init(top: 1, left: 0, bottom: 1, right: 0))
    let results = try [values, values.reshaped([40, 64, 3, 1, 1])].map { weights in
      let stored = try WeightTensor(weights).converted(to: format)
      #expect(stored.elementType == format)
      return (stored.data, try Tensor.convolution([clips], weights: PackedMatrix(stored, in: context), geometry: geometry, in: context))
    }
    #expect(results[0].0 == results[1].0 && results[0].1.elements == results[1].1.elements)
    #expect(results[0].1.shape == [2, 4, 6, 40] && results[0].1.isFinite)
  }

  @Test func shapesThatAreNotQuantised() throws {
    for shape in [[64], [4, 33], [3, 4, 3, 3], [2, 32, 3], [2, 32, 1, 1, 1], [0, 32], []] as [Shape] {
      let wide = WeightTensor(Tensor(repeating: 1, shape: shape))
      #expect(NumberFormat.q8.bytes(of: shape) == nil)
      #expect(try wide.converted(to: .q8).elementType == .float16, "\(shape)")
      #expect(try wide.converted(to: .bfloat16).converted(to: .q8).elementType == .bfloat16, "\(shape)")
    }
    #expect(NumberFormat.q8.bytes(of: [3, 64, 3, 3]) == 3 * 9 * 2 * 34)
    #expect(NumberFormat.q8.bytes(of: [.max, 32]) == nil && NumberFormat.float32.bytes(of: [.max / 2]) == nil)
    #expect(NumberFormat.q8.bytes(of: [1 << 31, 1 << 31]) == nil)
  }

  @Test func valuesThatHaveNoScale() throws {
    func quantised(_ value: Float) throws -> WeightTensor {
      try WeightTensor(Tensor((0..<64).map { $0 == 40 ? value : 1 }, shape: [2, 32])).converted(to: .q8, in: context)
    }
    for value in [Float.nan, .infinity, -.infinity] { #expect(throws: WeightConversionError.notFinite) { try quantised(value) } }
    #expect(throws: WeightConversionError.outOfRange(.q8)) { try quantised(-8_330_000) }
    #expect(throws: WeightConversionError.outOfRange(.q8)) { try quantised(.greatestFiniteMagnitude) }
    #expect(try quantised(8_300_000).isFinite)
  }

  @Test func reshapingKeepsRows() throws {
    let point = try RandomWeights(seed: 2, elementType: .q8).tensor("a.weight", shape: [8, 64, 1, 1])
    let matrix = point.reshaped([8, 64])
    #expect(matrix.decoded().elements == point.decoded().elements)
    #expect(matrix.reshaped([8, 64, 1, 1]).data == point.data)
  }

  /// A layer made of quantised weights computes with their values.
  @Test func productsAndConvolutions() throws {
    let source = RandomWeights(seed: 4, elementType: .q8)
    var numbers = Numbers(seed: 3)
    let matrix = try source.tensor("m.weight", shape: [70, 96])
    let x = numbers.tensor([37, 96])
    let exact = try PackedMatrix(WeightTensor(matrix.decoded()), in: context)
    let product = try x.multiplied(by: PackedMatrix(matrix, in: context), in: context)
    // 70 and 40 outputs are no whole panels: the products are of floats, whatever instructions the processor has, but for Winograd's.
    expectClose(product, try x.multiplied(by: exact, in: context), tolerance: 1e-5)
    let kernel = try source.tensor("k.weight", shape: [40, 32, 3, 3])
    let picture = numbers.tensor([1, 10, 9, 32])
    let geometry = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, stride: 1, padding: .all(1))
    func convolved(_ weights: WeightTensor) throws -> Tensor {
      try Tensor.convolution(
        [picture], weights: PackedMatrix(weights, in: context), geometry: geometry, bias: Tensor(shape: [40]), method: .direct,
        in: context)
    }
    expectClose(try convolved(kernel), try convolved(WeightTensor(kernel.decoded())), tolerance: 5e-5)
  }
}
