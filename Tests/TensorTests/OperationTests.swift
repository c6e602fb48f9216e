import Foundation
import Tensor
import LatentDiffusionTestSupport
import Testing

/// The public operations against what PyTorch answered in float64 (`Tests/Fixtures/operations/make_operations.py`).
///
/// Tolerances are in units of the answer's root mean square. Sums of up to a few thousand products of float32 are off by a few 1e-7 to
/// 3e-6 of it, so 5e-6 is the tolerance unless a test states its own.
struct OperationTests {
  private static let tolerance: Float = 5e-6
  /// Of products.
  private static let productTolerance: Float = splitsFactors ? 1e-4 : 5e-6
  private let context = ExecutionContext(threads: 2)

  struct ConvolutionCase: Decodable {
    let inputs: Int
    let kernel: [Int]
    let stride: Int
    let padding: [Int]
    let resized: [Int]?

    var geometry: ConvolutionGeometry {
      ConvolutionGeometry(
        kernelHeight: kernel[0], kernelWidth: kernel[1], stride: stride,
        padding: .init(top: padding[0], left: padding[1], bottom: padding[2], right: padding[3]))
    }
    var size: (height: Int, width: Int)? { resized.map { ($0[0], $0[1]) } }
    var suitsWinograd: Bool { geometry == .init(kernelHeight: 3, kernelWidth: 3, padding: .all(1)) }
  }

  @Test(.compares("Convolutions", in: .operations, with: "torch")) func convolutions() throws {
    for item in try ReferenceCases<ConvolutionCase>("operations/convolution.safetensors") {
      let inputs = try (0..<item.parameters.inputs).map { try item["input\($0)"].channelsLast() }
      let packed = try PackedMatrix(try #require(try item.weights("weight")), in: context)
      let (bias, residual) = (try item.optional("bias"), try item.optional("residual")?.channelsLast())
      let expected = try item["result"].channelsLast()
      let found = try Tensor.convolution(
        inputs, resizedTo: item.parameters.size, weights: packed, geometry: item.parameters.geometry, bias: bias, adding: residual,
        method: .direct, in: context)
      expectClose(found, expected, tolerance: Self.productTolerance, item.name)
      guard item.parameters.suitsWinograd else { continue }
      // The transforms multiply by up to 8 and cancel again, so errors of single products grow: 1e-5 and a few times that.
      let transformed = try Tensor.convolution(
        inputs, resizedTo: item.parameters.size, weights: packed, geometry: item.parameters.geometry, bias: bias,
        adding: residual, method: .winograd, in: context)
      expectClose(transformed, expected, tolerance: splitsFactors ? 4e-4 : 3e-5, "\(item.name), Winograd")
    }
  }

  struct ProductCase: Decodable { let activation: String }

  @Test(.compares("Products", in: .operations, with: "torch")) func products() throws {
    for item in try ReferenceCases<ProductCase>("operations/product.safetensors") {
      let found = try item["input"].multiplied(
        by: try PackedMatrix(try #require(try item.weights("weight")), in: context), bias: try item.optional("bias"),
        adding: try item.optional("residual"), activation: try #require(Self.activations[item.parameters.activation]), in: context)
      expectClose(found, try item["result"], tolerance: Self.productTolerance, item.name)
    }
  }

  static let activations: [String: Activation] = [
    "none": .none, "silu": .silu, "gelu": .gelu, "quickGELU": .quickGELU, "relu": .relu, "tanh": .tanh,
  ]

  struct NormalizationCase: Decodable {
    let inputs: Int
    /// 0: a layer normalisation.
    let groups: Int
    let epsilon: Float
    let silu: Bool
  }

  @Test(.compares("Normalisations", in: .operations, with: "torch")) func normalizations() throws {
    for item in try ReferenceCases<NormalizationCase>("operations/normalization.safetensors") {
      let (weight, bias) = (try item["weight"], try item["bias"])
      // A group's x · scale + shift cancels where the mean is a thousand deviations, as PyTorch's own float32 does.
      let isOffset = item.name.contains("large mean") || item.name.contains("small variance")
      let tolerance: Float = isOffset && item.parameters.groups > 0 ? 2e-4 : Self.tolerance
      if item.parameters.groups == 0 {
        let found = try item["input0"].layerNormalized(weight: weight, bias: bias, epsilon: item.parameters.epsilon, in: context)
        expectClose(found, try item["result"], tolerance: tolerance, item.name)
      } else {
        let group = GroupNormalization(groups: item.parameters.groups, epsilon: item.parameters.epsilon, weight: weight, bias: bias)
        let inputs = try (0..<item.parameters.inputs).map { try item["input\($0)"].channelsLast() }
        let found = try group(inputs, activation: item.parameters.silu ? .silu : .none, in: context)
        expectClose(found, try item["result"].channelsLast(), tolerance: tolerance, item.name)
      }
    }
  }

  struct Nothing: Decodable {}

  private func functionCases(_ kind: String) throws -> [ReferenceCase<Nothing>] {
    let cases = try ReferenceCases<Nothing>("operations/function.safetensors").filter { $0.name.hasPrefix(kind) }
    #expect(!cases.isEmpty)
    return cases
  }

  /// Each value on its own: 4e-7 of it or of 1, whichever is larger, since Φ is a polynomial of that absolute precision; below
  /// exp(-87) results are zero instead of tiny.
  @Test(arguments: ["silu", "gelu", "quickGELU", "relu", "tanh"]) func activations(name: String) throws {
    let item = try #require(try functionCases(name).first)
    let found = try item["input"].activated(try #require(Self.activations[name]), in: context)
    let difference = compare(found.elements, try item["result"].elements, relative: 4e-7, absolute: 4e-7)
    #expect(difference.isTolerable, "\(difference)")
  }

  /// A product with one times one leaves what is gated.
  @Test(.compares("Products with GEGLU", in: .operations, with: "torch")) func geglu() throws {
    for item in try functionCases("geglu") {
      let input = try item["input"], columns = input.shape.columns
      let identity = Tensor((0..<columns * columns).map { $0 % (columns + 1) == 0 ? 1 : 0 }, shape: [columns, columns])
      let weights = try PackedMatrix(WeightTensor(identity), isGated: true, in: context)
      expectClose(try input.multiplied(by: weights, in: context), try item["result"], tolerance: Self.productTolerance, item.name)
    }
  }

  /// Exponentials are off by 2e-7 of themselves, plus the rounding of the argument: scores of 1e4 are known to 5e-4.
  @Test func softmax() throws {
    for item in try functionCases("softmax") {
      let found = try item["input"].softmax(in: context)
      let difference = compare(found.elements, try item["result"].elements, relative: 4e-6, absolute: 1e-37)
      #expect(difference.isTolerable, "\(item.name): \(difference)")
    }
  }

  /// A row whose scores are all -inf is zero: a token that may see nothing adds nothing.
  @Test func softmaxOfNothing() throws {
    let found = try Tensor([-.infinity, -.infinity, 0, -.infinity], shape: [2, 2]).softmax(in: context)
    #expect(found.elements == [0, 0, 1, 0])
  }

  @Test func nearestRows() throws {
    for item in try functionCases("codes") {
      #expect(try item["input"].nearest(in: item["table"], in: context).elements == item["result"].elements, "\(item.name)")
    }
    // Of two that are as near the first is taken.
    #expect(try Tensor([0, 5], shape: [2, 1]).nearest(in: Tensor([1, -1, 9], shape: [3, 1]), in: context).elements == [1, 1])
  }

  @Test func nearest() throws {
    for item in try functionCases("nearest") {
      let expected = try item["result"].channelsLast()
      let found = try item["input"].channelsLast().resizedNearest(height: expected.shape[1], width: expected.shape[2])
      #expect(found.shape == expected.shape)
      #expect(found.elements == expected.elements, "\(item.name): \(compare(found.elements, expected.elements))")
    }
  }

  struct AttentionCase: Decodable {
    let heads: Int
    let scale: Float
    let causal: Bool
  }

  @Test(.compares("Attention", in: .operations, with: "torch")) func attention() throws {
    for item in try ReferenceCases<AttentionCase>("operations/attention.safetensors") {
      let found = try Tensor.attention(
        queries: try item["queries"], keys: try item["keys"], values: try item["values"], heads: item.parameters.heads,
        scale: item.parameters.scale, causal: item.parameters.causal, in: context)
      // Scores of ±150 are known to 1e-5, and so are their exponentials.
      expectClose(found, try item["result"], tolerance: item.name == "steep" ? 5e-5 : Self.productTolerance, item.name)
    }
  }

  /// What is not a number stays visible, as in PyTorch.
  @Test func notANumberIsNeverHidden() throws {
    for activation in [Activation.none, .silu, .gelu, .quickGELU, .relu, .tanh] {
      let found = try Tensor([1, .nan, 2], shape: [1, 3]).activated(activation, in: context).elements
      #expect(found.map(\.isNaN) == [false, true, false], "\(activation): \(found)")
    }
    #expect(
      try Tensor([1, .nan, 2, 1, 2, 3], shape: [2, 3]).softmax(in: context).elements.map(\.isNaN) == [
        true, true, true, false, false, false,
      ])
    #expect(try Tensor([1, .infinity, 2], shape: [1, 3]).softmax(in: context).elements.allSatisfy { $0.isNaN })
    let ones = Tensor(repeating: 1, shape: [1, 40, 8])
    for place in [0, 311] {
      var elements = ones.elements
      elements[place] = .nan
      let spoiled = Tensor(elements, shape: ones.shape)
      let byQuery = try Tensor.attention(queries: spoiled, keys: ones, values: ones, heads: 1, scale: 1, in: context)
      #expect(byQuery.elements.map(\.isNaN) == (0..<320).map { $0 / 8 == place / 8 })
      let byKey = try Tensor.attention(queries: ones, keys: spoiled, values: ones, heads: 1, scale: 1, in: context)
      #expect(byKey.elements.allSatisfy { $0.isNaN })
      let byValue = try Tensor.attention(queries: ones, keys: ones, values: spoiled, heads: 1, scale: 1, in: context)
      #expect(byValue.elements.map(\.isNaN) == (0..<320).map { $0 % 8 == place % 8 })
    }
  }

  @Test func nothingGoesIn() throws {
    let none = Tensor(shape: [2, 0, 8])
    #expect(try Tensor.attention(queries: none, keys: none, values: none, heads: 2, scale: 1, in: context).shape == none.shape)
    let blind = try Tensor.attention(
      queries: Tensor(repeating: 1, shape: [2, 3, 8]), keys: none, values: none, heads: 2, scale: 1, in: context)
    #expect(blind.elements == [Float](repeating: 0, count: 48))
    #expect(try none.softmax(in: context).shape == none.shape)
    #expect(try none.activated(.silu, in: context).shape == none.shape)
    let noInputs = try PackedMatrix(WeightTensor(Tensor(shape: [3, 0])), in: context)
    let bias = Tensor([1, 2, 3])
    #expect(try Tensor(shape: [2, 0]).multiplied(by: noInputs, bias: bias, in: context).elements == [1, 2, 3, 1, 2, 3])
    let weights = try PackedMatrix(WeightTensor(Tensor(shape: [3, 8])), in: context)
    #expect(try none.multiplied(by: weights, bias: bias, in: context).shape == [2, 0, 3])
    let window = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, stride: 2, padding: .all(0))
    let large = try PackedMatrix(WeightTensor(Tensor(shape: [4, 2, 3, 3])), in: context)
    #expect(try Tensor.convolution([Tensor(shape: [1, 2, 2, 2])], weights: large, geometry: window, in: context).shape == [1, 0, 0, 4])
  }
}
