import LatentDiffusionFiles
import Foundation
import Tensor
import LatentDiffusionTestSupport
import Testing

/// Weights that are packed at once, later, or anew at each use.
@Suite struct ResidencyTests {
  private let context = ExecutionContext(threads: 2)
  private let residencies: [WeightResidency] = [.packed, .packedOnceUsed, .streamed(above: 0), .streamed(above: 1 << 30)]

  /// The weights as pages of a file, which is gone once they are let go of.
  private func mapped(_ weights: WeightTensor) throws -> WeightTensor {
    let url = FileManager.default.temporaryDirectory.appending(path: "residency-\(UUID().uuidString)")
    // The first byte puts the elements at an odd address.
    try (Data([0]) + weights.data).write(to: url)
    defer { try? FileManager.default.removeItem(at: url) }
    let data = try Data(mapping: url)
    return WeightTensor(shape: weights.shape, elementType: weights.elementType, data: data[1...], isMapped: true)
  }

  @Test(arguments: [NumberFormat.float32, .float16, .bfloat16, .q8], [[40, 96], [70, 64, 3, 3], [33, 32, 1, 1]])
  func makesTheSameProducts(_ type: NumberFormat, _ shape: [Int]) throws {
    var numbers = Numbers(seed: 3)
    let weights = try WeightTensor(numbers.tensor(Shape(shape))).converted(to: type, in: context)
    let (kernel, isKernel) = (shape.count > 2 ? shape[2] : 1, shape.count == 4)
    let x = numbers.tensor(isKernel ? [2, 9, 11, shape[1]] : [13, shape[1]])
    func product(_ matrix: PackedMatrix) throws -> [Float] {
      guard isKernel else { return try x.multiplied(by: matrix, in: context).elements }
      let geometry = ConvolutionGeometry(kernelHeight: kernel, kernelWidth: kernel, padding: .all(kernel / 2))
      return try Tensor.convolution([x], weights: matrix, geometry: geometry, in: context).elements
    }
    let expected = try product(PackedMatrix(weights, in: context))
    for residency in residencies {
      for weights in [weights, try mapped(weights)] {
        let matrix = try #require(try PackedMatrix(checking: weights, residency: residency, in: context))
        for _ in 0..<2 { #expect(try product(matrix) == expected, "\(residency), mapped: \(weights.isMapped)") }
      }
    }
  }

  @Test func makesTheSameGatedProducts() throws {
    var numbers = Numbers(seed: 4)
    let weights = WeightTensor(numbers.tensor([2 * 41, 30]))
    let x = numbers.tensor([7, 30])
    let expected = try x.multiplied(by: PackedMatrix(weights, isGated: true, in: context), in: context).elements
    for residency in residencies {
      let matrix = try #require(try PackedMatrix(checking: mapped(weights), isGated: true, residency: residency, in: context))
      #expect(try x.multiplied(by: matrix, in: context).elements == expected, "\(residency)")
    }
  }

  @Test(arguments: [NumberFormat.float32, .float16, .bfloat16], [Float.infinity, -.infinity, .nan])
  func refusesWhatIsNoNumber(_ type: NumberFormat, _ value: Float) throws {
    for (shape, place) in [([700, 1000], 699_999), ([64, 32, 3, 3], 0), ([5, 3], 7)] {
      var elements = [Float](repeating: 0.5, count: shape.reduce(1, *))
      let bits = value.bitPattern
      elements[place] = value
      let weights: WeightTensor
      switch type {
      case .float32: weights = WeightTensor(Tensor(elements, shape: Shape(shape)))
      default:
        // Half precision keeps 5 bits of the exponent, bfloat16 all 8.
        let half = value.isNaN ? UInt16(0x7E00) : value < 0 ? 0xFC00 : 0x7C00
        let special = type == .bfloat16 ? UInt16(bits >> 16) : half
        let words = elements.indices.map { $0 == place ? special : type == .bfloat16 ? 0x3F00 : 0x3800 }
        weights = WeightTensor(shape: Shape(shape), elementType: type, data: words.withUnsafeBytes { Data($0) })
      }
      for residency in residencies {
        #expect(try PackedMatrix(checking: weights, residency: residency, in: context) == nil, "\(shape), \(residency)")
        #expect(try PackedMatrix(checking: mapped(weights), residency: residency, in: context) == nil, "\(shape), \(residency), mapped")
      }
      #expect(try !weights.isFinite(in: context))
    }
  }

  @Test func inputsThatAreHandedOverGiveTheSame() throws {
    // 72 MB: large enough that its memory is given back on the way.
    let shape: Shape = [1, 560, 500, 64]
    let weights = try PackedMatrix(
      WeightTensor(Tensor((0..<64 * 64 * 9).map { Float($0 % 37 - 18) / 400 }, shape: [64, 64, 3, 3])), in: context)
    let geometry = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
    func input() -> Tensor { Tensor((0..<shape.count).map { Float(($0 &* 7919) % 1013) / 500 - 1 }, shape: shape) }
    let kept = input()
    let expected = try Tensor.convolution([kept], weights: weights, geometry: geometry, in: context)
    #expect(kept.elements == input().elements)
    #expect(try Tensor.convolution([input()], weights: weights, geometry: geometry, in: context).elements == expected.elements)
    let norm = GroupNormalization(groups: 4, epsilon: 1e-5, weight: Tensor(repeating: 1.5, shape: [64]), bias: Tensor(shape: [64]))
    let normalized = try norm([kept], activation: .silu, in: context)
    #expect(kept.elements == input().elements)
    #expect(try norm([input()], activation: .silu, in: context).elements == normalized.elements)
  }

  @Test(arguments: [1, 2]) func inputsThatAreHandedOverGoThroughTheirShortcutLineByLine(_ pictures: Int) throws {
    let shape: Shape = [pictures, 562 / pictures, 500, 64]
    var numbers = Numbers(seed: 6)
    let weights = try PackedMatrix(WeightTensor(numbers.tensor([32, 64, 3, 3])), in: context)
    let shortcut = try PackedMatrix(WeightTensor(numbers.tensor([40, 64, 1, 1])), in: context)
    let (bias, shortcutBias) = (numbers.tensor([pictures, 32]), numbers.tensor([40]))
    let norm = GroupNormalization(groups: 4, epsilon: 1e-5, weight: numbers.tensor([64]), bias: numbers.tensor([64]))
    let geometry = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
    func input() -> Tensor { Tensor((0..<shape.count).map { Float(($0 &* 7919) % 1013) / 500 - 1 }, shape: shape) }
    func both(_ x: consuming [Tensor], _ context: ExecutionContext) throws -> (result: Tensor, shortcut: Tensor?) {
      try Tensor.convolution(
        consume x, normalizedBy: norm, activation: .silu, weights: weights, geometry: geometry, bias: bias,
        beside: (shortcut, shortcutBias), in: context)
    }
    let kept = input()
    let expected = try both([kept], context)
    #expect(kept.elements == input().elements)
    for threads in [1, 2] {
      let found = try both([input()], ExecutionContext(threads: threads))
      #expect(found.result.elements == expected.result.elements)
      #expect(try #require(found.shortcut).elements == expected.shortcut?.elements)
    }
  }

  @Test func inputsThatAreHandedOverAndResizedGiveTheSame() throws {
    let weights = try PackedMatrix(
      WeightTensor(Tensor((0..<32 * 32 * 9).map { Float($0 % 37 - 18) / 400 }, shape: [32, 32, 3, 3])), in: context)
    let geometry = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
    // More lines and fewer columns than there are, so that the result is no larger than the input.
    func input() -> Tensor { Tensor((0..<540 * 1000 * 32).map { Float(($0 &* 7919) % 1013) / 500 - 1 }, shape: [2, 270, 1000, 32]) }
    let kept = input()
    let expected = try Tensor.convolution([kept], resizedTo: (611, 160), weights: weights, geometry: geometry, in: context)
    let found = try Tensor.convolution([input()], resizedTo: (611, 160), weights: weights, geometry: geometry, in: context)
    #expect(found.elements == expected.elements)
  }
}
