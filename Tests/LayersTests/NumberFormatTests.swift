import Foundation
import LatentDiffusionLayers
import Tensor
import LatentDiffusionTestSupport
import Testing
import LatentDiffusionWeights

/// Blocks of 32 values of 4 bits with one scale, as GGUF's `Q4_0` has them, written here and nowhere else: a number format is one file.
private enum Nibbles: NumberCoding {
  static let name = "TEST_Q4"
  static let blockValues = 32
  static let blockBytes = 18

  static func decode(_ blocks: Int, from source: UnsafeRawPointer, into values: UnsafeMutablePointer<Float>) {
    for block in 0..<blocks {
      let bits = source.loadUnaligned(fromByteOffset: block * blockBytes, as: UInt16.self)
      for index in 0..<16 {
        let byte = source.load(fromByteOffset: block * blockBytes + 2 + index, as: UInt8.self)
        // The scale is a bfloat16.
        let scale = Float(bitPattern: UInt32(bits) << 16)
        values[block * 32 + index] = scale * Float(Int(byte & 15) - 8)
        values[block * 32 + 16 + index] = scale * Float(Int(byte >> 4) - 8)
      }
    }
  }
}

/// The same blocks, packed as another format than float32.
private enum NarrowNibbles: NumberCoding {
  static let name = "TEST_Q4_NARROW"
  static let (blockValues, blockBytes) = (Nibbles.blockValues, Nibbles.blockBytes)
  static let packedAs = NumberFormat.bfloat16
  static func decode(_ blocks: Int, from source: UnsafeRawPointer, into values: UnsafeMutablePointer<Float>) {
    Nibbles.decode(blocks, from: source, into: values)
  }
}

@Suite struct NumberFormatTests {
  private let context = ExecutionContext(threads: 2)

  /// Random blocks, each with a scale that 4 significant bits of a bfloat16 hold, so that the values are exact in every format of 16 bits.
  private func blocks(_ shape: Shape, of format: NumberFormat, seed: UInt64 = 5, isMapped: Bool = false) -> WeightTensor {
    var numbers = Numbers(seed: seed)
    var data = Data()
    for value in numbers.tensor([shape.count / 32]).elements {
      let scale = UInt16(truncatingIfNeeded: value.bitPattern >> 16) & 0xFFF0
      data.append(contentsOf: [UInt8(truncatingIfNeeded: scale), UInt8(scale >> 8)])
      for nibble in numbers.tensor([16]).elements { data.append(UInt8(truncatingIfNeeded: nibble.bitPattern >> 11)) }
    }
    return WeightTensor(shape: shape, elementType: format, data: data, isMapped: isMapped)
  }

  /// A layer of blocks is the layer of the values that they are decoded to, bit by bit, wherever its weights are between uses.
  @Test(arguments: [NumberFormat(Nibbles.self), NumberFormat(NarrowNibbles.self)], [false, true])
  func isMultiplied(_ format: NumberFormat, isGated: Bool) throws {
    let weights = blocks([140, 96], of: format), bias = WeightTensor(Tensor(repeating: 0.5, shape: [140]))
    let packed = format == NumberFormat(Nibbles.self) ? NumberFormat.float32 : .bfloat16
    let exact = try WeightTensor(weights.decoded()).converted(to: packed)
    #expect(exact.decoded().elements == weights.decoded().elements && weights.isFinite)
    #expect(Set(exact.decoded().elements).count > 300)
    var numbers = Numbers(seed: 6)
    let x = numbers.tensor([9, 96])
    func product(_ weights: WeightTensor, _ residency: WeightResidency = .packed) throws -> [Float] {
      let source = TensorsByName(["weight": weights, "bias": bias])
      let layer = try LoadReport.load(from: source, residency: residency, in: context) {
        try Linear(96, 140, isGated: isGated, weights: $0)
      }
      return try layer.component(x, in: context).elements
    }
    let expected = try product(exact)
    for residency in [WeightResidency.packed, .packedOnceUsed, .streamed(above: 0)] {
      #expect(try product(weights, residency) == expected, "\(residency)")
    }
  }

  /// Kernels have their blocks along the channels of each place of the window.
  @Test func isConvolved() throws {
    let weights = blocks([40, 64, 3, 3], of: NumberFormat(Nibbles.self))
    let geometry = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
    var numbers = Numbers(seed: 7)
    let x = numbers.tensor([1, 9, 11, 64])
    let both = try [weights, WeightTensor(weights.decoded())].map {
      try Tensor.convolution([x], weights: PackedMatrix($0, in: context), geometry: geometry, bias: nil, in: context).elements
    }
    #expect(both[0] == both[1])
  }

  @Test func isPlannedAndConverted() throws {
    let format = NumberFormat(NarrowNibbles.self)
    #expect(format.bytes(of: [140, 96]) == 140 * 3 * 18 && format.bytes(of: [140, 95]) == nil && format.bytes(of: [96]) == nil)
    // What products take it for decides what it takes in memory.
    #expect(PackedMatrix.packedBytes([140, 96], of: format) == 160 * 96 * 2)
    #expect(PackedMatrix.packedBytes([140, 96], of: NumberFormat(Nibbles.self)) == 160 * 96 * 4)
    let weights = blocks([4, 64, 3, 3], of: format)
    #expect(try weights.converted(to: .bfloat16).decoded().elements == weights.decoded().elements)
    #expect(try weights.converted(to: .q8, in: context).data == WeightTensor(weights.decoded()).converted(to: .q8).data)
    #expect(throws: WeightConversionError.readOnly(format)) { try weights.converted(to: .float32).converted(to: format) }
    #expect(weights.rows(1..<3).decoded().elements == weights.decoded().rows(1..<3).elements)
  }

  /// What is no number is found by decoding, where the format says nothing of its own.
  @Test func isChecked() throws {
    var data = blocks([64, 64], of: NumberFormat(Nibbles.self)).data
    (data[18 * 77], data[18 * 77 + 1]) = (0x80, 0x7F)
    let weights = WeightTensor(shape: [64, 64], elementType: NumberFormat(Nibbles.self), data: data)
    #expect(!weights.isFinite)
    #expect(try PackedMatrix(checking: weights, in: context) == nil)
  }

  /// Floats of 8 bits are packed as half precision, and whole numbers as float32, from the bytes of their file.
  @Test(arguments: ["F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8"]) func isPackedAsAnother(_ name: String) throws {
    let format = try #require(NumberFormat(named: name))
    var numbers = Numbers(seed: 8)
    // Without the largest exponents and a negative zero, which may be no numbers.
    let bytes = numbers.uniform(64 * 96 * format.blockBytes, in: 0...255).map { UInt8($0) & 0xBF | 1 }
    let weights = WeightTensor(shape: [64, 96], elementType: format, data: Data(bytes), isMapped: false)
    let packed: NumberFormat = name.hasPrefix("F8") ? .float16 : .float32
    let x = numbers.tensor([5, 96])
    #expect(PackedMatrix.packedBytes([64, 96], of: format) == PackedMatrix.packedBytes([64, 96], of: packed))
    let products = try [weights, WeightTensor(weights.decoded()).converted(to: packed)].map {
      try x.multiplied(by: #require(try PackedMatrix(checking: $0, in: context)), in: context).elements
    }
    #expect(products[0] == products[1] && products[0].allSatisfy(\.isFinite))
  }

  /// Every format has a name of its own, by which it is found.
  @Test func formatsAreFoundByName() {
    #expect(Set(NumberFormat.all).count == NumberFormat.all.count && NumberFormat.all.count == 28)
    for format in NumberFormat.all { #expect(NumberFormat(named: format.name) == format) }
    #expect(NumberFormat(named: "F4") == nil && NumberFormat(named: "Q8_0") == .q8)
  }
}
