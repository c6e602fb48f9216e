import Foundation
import Tensor
import LatentDiffusionTestSupport
import Testing

/// Operations on more than a block of rows, a chunk of channels or a run of pixels, against their formulas; and what must hold whatever
/// the sizes: the same bytes with any number of threads, and inputs that stay as they are.
///
/// Tolerances are in units of the answer's root mean square. A float32 sum of k products drifts by about √k · 6e-8 of it and the
/// worst of tens of thousands of sums by a few times that: 1e-5 for k up to 3000.
struct LargeOperationTests {
  private static let tolerance: Float = 1e-5
  /// Of products.
  private static let productTolerance: Float = splitsFactors ? 5e-5 : 1e-5
  private let context = ExecutionContext(threads: 2)

  private func packed(_ weights: Tensor) throws -> PackedMatrix { try PackedMatrix(WeightTensor(weights), in: context) }

  @Test func products() throws {
    var numbers = Numbers(seed: 1)
    for (rows, k, m) in [(253, 321, 129), (505, 40, 290), (7, 1283, 300), (1000, 3, 33)] {
      let x = numbers.tensor([rows, k]), weights = numbers.tensor([m, k])
      expectClose(
        try x.multiplied(by: try packed(weights), in: context), Plain.product(x, weights), tolerance: Self.productTolerance,
        "\(rows) × \(k) by \(m)")
    }
  }

  /// A bias for each of five pictures of 100 rows: blocks of rows begin in the midst of a picture.
  @Test func biasesOfPictures() throws {
    var numbers = Numbers(seed: 2)
    let x = numbers.tensor([5, 100, 50]), weights = numbers.tensor([70, 50]), bias = numbers.tensor([5, 70])
    let found = try x.multiplied(by: try packed(weights), bias: bias, in: context)
    let spread = Tensor.concatenated((0..<5).map { bias.rows($0..<$0 + 1).repeated(100) }, axis: 0).reshaped([5, 100, 70])
    expectClose(found, Plain.product(x, weights) + spread, tolerance: Self.productTolerance)
  }

  @Test func convolutions() throws {
    var numbers = Numbers(seed: 3)
    let cases: [(size: (Int, Int), channels: [Int], outputs: Int, geometry: ConvolutionGeometry)] = [
      ((33, 31), [35, 29], 70, .init(kernelHeight: 3, kernelWidth: 3, padding: .all(1))),
      ((19, 23), [330, 16], 33, .init(kernelHeight: 3, kernelWidth: 3, padding: .all(1))),
      // What a processor with products of words makes them of, in bands: of parts of lines, of some lines, of both pictures.
      ((10, 130), [32, 64], 96, .init(kernelHeight: 3, kernelWidth: 3, padding: .all(1))),
      ((37, 41), [32, 320], 64, .init(kernelHeight: 3, kernelWidth: 3, padding: .all(1))),
      ((8, 9), [32], 160, .init(kernelHeight: 3, kernelWidth: 3, padding: .all(1))),
      // So many tiles that each thread transforms its own, and outputs that fill no panel.
      ((60, 70), [32], 40, .init(kernelHeight: 3, kernelWidth: 3, padding: .all(1))),
      ((60, 70), [32], 3, .init(kernelHeight: 3, kernelWidth: 3, padding: .all(1))),
      ((16, 12), [64], 64, .init(kernelHeight: 3, kernelWidth: 3, stride: 2, padding: .init(top: 0, left: 0, bottom: 1, right: 1))),
      ((33, 34), [40], 65, .init(kernelHeight: 3, kernelWidth: 3, stride: 2, padding: .init(top: 0, left: 0, bottom: 1, right: 1))),
      ((20, 21), [11], 40, .init(kernelHeight: 7, kernelWidth: 5, stride: 2, padding: .init(top: 3, left: 1, bottom: 2, right: 4))),
      ((29, 30), [300, 41, 3], 64, .init(kernelHeight: 1, kernelWidth: 1, padding: .all(0))),
    ]
    for item in cases {
      let inputs = item.channels.map { numbers.tensor([2, item.size.0, item.size.1, $0]) }
      let (kh, kw) = (item.geometry.kernelHeight, item.geometry.kernelWidth)
      let weights = numbers.tensor([item.outputs, item.channels.reduce(0, +), kh, kw])
      let bias = numbers.tensor([2, item.outputs])
      let name = "\(item.channels) channels, \(kh) × \(kw), stride \(item.geometry.stride)"
      let plain = Plain.convolution(Tensor.concatenated(inputs, axis: -1), weights, item.geometry)
      let pixels = plain.shape[1] * plain.shape[2]
      let spread = Tensor.concatenated((0..<2).map { bias.rows($0..<$0 + 1).repeated(pixels) }, axis: 0).reshaped(plain.shape)
      let residual = numbers.tensor(plain.shape)
      let expected = plain + spread + residual
      let matrix = try packed(weights)
      expectClose(
        try Tensor.convolution(
          inputs, weights: matrix, geometry: item.geometry, bias: bias, adding: residual, method: .direct, in: context),
        expected, tolerance: Self.productTolerance * (weights.shape.count / item.outputs > 3000 ? 2 : 1), name)
      guard item.geometry == .init(kernelHeight: 3, kernelWidth: 3, padding: .all(1)) else { continue }
      expectClose(
        try Tensor.convolution(inputs, weights: matrix, geometry: item.geometry, bias: bias, adding: residual, in: context), expected,
        tolerance: splitsFactors ? 4e-4 : 1e-4, "\(name), automatic")
      // The transforms' factors make of each product's error up to ten, more where a kernel rounds products and sums apart.
      expectClose(
        try Tensor.convolution(
          inputs, weights: matrix, geometry: item.geometry, bias: bias, adding: residual, method: .winograd, in: context),
        expected, tolerance: splitsFactors ? 4e-4 : 1e-4, "\(name), Winograd")
    }
  }

  /// An activation in the same pass is the one after it, whatever the method.
  @Test(arguments: [Activation.silu, .gelu, .quickGELU, .relu, .tanh]) func activationsOfConvolutions(_ activation: Activation) throws {
    var numbers = Numbers(seed: 16)
    let window = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
    for (side, channels, outputs) in [(11, 32, 70), (9, 64, 64), (9, 350, 32), (80, 32, 3)] {
      let x = numbers.tensor([2, side, side + 1, channels]), bias = numbers.tensor([2, outputs])
      let residual = numbers.tensor([2, side, side + 1, outputs])
      let matrix = try packed(numbers.tensor([outputs, channels, 3, 3]))
      for method in [ConvolutionMethod.direct, .winograd, .automatic] {
        func convolved(_ activation: Activation) throws -> Tensor {
          try Tensor.convolution(
            [x], weights: matrix, geometry: window, bias: bias, adding: residual, activation: activation, method: method, in: context)
        }
        let found = try convolved(activation)
        expectClose(
          found, try convolved(.none).activated(activation, in: context), tolerance: activation == .relu ? 0 : 1e-6,
          "\(side) × \(side + 1), \(channels) to \(outputs), \(activation), \(method)")
      }
    }
  }

  @Test(arguments: [[20, 13], [32, 64]]) func convolutionsOfResizedPictures(_ channels: [Int]) throws {
    var numbers = Numbers(seed: 4)
    let inputs = channels.map { numbers.tensor([2, 9, 14, $0]) }
    let outputs = channels[0] + 32, weights = numbers.tensor([outputs, channels.reduce(0, +), 3, 3]), bias = numbers.tensor([outputs])
    let window = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
    let matrix = try packed(weights)
    let both = Tensor.concatenated(inputs, axis: -1)
    for size in [(18, 28), (27, 14), (36, 70)] {
      let large = Plain.nearest(both, height: size.0, width: size.1)
      #expect(both.resizedNearest(height: size.0, width: size.1).elements == large.elements)
      let sums = Plain.convolution(large, weights, window)
      let expected = sums + bias.reshaped([1, outputs]).repeated(sums.shape.rows).reshaped(sums.shape)
      for method in [ConvolutionMethod.direct, .winograd, .automatic] {
        expectClose(
          try Tensor.convolution(inputs, resizedTo: size, weights: matrix, geometry: window, bias: bias, method: method, in: context),
          expected, tolerance: method == .direct ? Self.productTolerance : splitsFactors ? 4e-4 : 1e-4, "\(size), \(method)")
      }
    }
  }

  @Test(arguments: [NumberFormat.float16, .bfloat16]) func narrowWeights(type: NumberFormat) throws {
    var numbers = Numbers(seed: 5)
    let bits: [UInt16] = numbers.normal(130 * 700).map {
      // Any pattern of a moderate number will do.
      type == .bfloat16 ? UInt16($0.bitPattern >> 16) : UInt16(truncatingIfNeeded: $0.bitPattern >> 13) & 0x83FF | 0x3800
    }
    let weights = WeightTensor(shape: [130, 700], elementType: type, data: bits.withUnsafeBytes { Data($0) })
    let x = numbers.tensor([300, 700])
    expectClose(
      try x.multiplied(by: try PackedMatrix(weights, in: context), in: context), Plain.product(x, weights.decoded()),
      tolerance: Self.productTolerance)
  }

  /// Values and gates of a layer of several chunks, whose last panel is not full, against the two halves of the plain product.
  @Test func gatedProducts() throws {
    var numbers = Numbers(seed: 10)
    for (rows, inputs, outputs) in [(300, 330, 260), (5, 640, 2 * 640), (260, 31, 8), (600, 1000, 2 * 520)] {
      let x = numbers.tensor([rows, inputs]), weights = numbers.tensor([outputs, inputs], deviation: 0.1), bias = numbers.tensor([outputs])
      let matrix = try PackedMatrix(WeightTensor(weights), isGated: true, in: context)
      let found = try x.multiplied(by: matrix, bias: matrix.arranged(bias), in: context)
      let plain = try x.multiplied(by: packed(weights), bias: bias, in: context)
      let halves = [0, outputs / 2].map { plain.channels($0..<$0 + outputs / 2) }
      let gates = try halves[1].activated(.gelu, in: context)
      let expected = zip(halves[0].elements, gates.elements).map { $0 * $1 }
      #expect(found.shape == [rows, outputs / 2])
      expectClose(found, Tensor(expected, shape: found.shape), tolerance: Self.productTolerance, "\(rows) rows, \(inputs) → \(outputs)")
    }
  }

  /// 8-bit weights are what they decode to. Where activations are 8-bit too, each is off by up to half a step, 1/254 of the largest of its row or (AVX2)
  /// 1/128 of the largest of its block: 1 % of a sum's size, at the far end of thousands six times that, and three times that where two such sums
  /// are multiplied.
  @Test(arguments: [false, true]) func quantizedProducts(isGated: Bool) throws {
    var numbers = Numbers(seed: 11)
    for (rows, inputs, outputs) in [(300, 640, 256), (5, 32, 64), (260, 992, 80), (1, 320, 320)] {
      let x = numbers.tensor([rows, inputs]), bias = numbers.tensor([outputs])
      let weights = try WeightTensor(numbers.tensor([outputs, inputs], deviation: 0.1)).converted(to: .q8, in: context)
      let matrix = try PackedMatrix(weights, isGated: isGated, in: context)
      let exact = try PackedMatrix(WeightTensor(weights.decoded()), isGated: isGated, in: context)
      expectClose(
        try x.multiplied(by: matrix, bias: matrix.arranged(bias), in: context),
        try x.multiplied(by: exact, bias: exact.arranged(bias), in: context), tolerance: isGated ? 0.18 : 0.06,
        "\(rows) rows, \(inputs) → \(outputs)")
    }
  }

  /// Winograd's method and windows of any size take the 8-bit weights of a convolution: what one stands beside is what it decodes to. Rounded to
  /// bfloat16, transformed values are off by 1.2 % of the result in the mean (by PyTorch in double precision); with activations of 8 bits, by 0.6 %.
  @Test func quantizedConvolutions() throws {
    var numbers = Numbers(seed: 12)
    for (batch, height, width) in [(2, 9, 14), (1, 90, 70)] {
      let x = numbers.tensor([batch, height, width, 64]), other = numbers.tensor([batch, height, width, 32])
      let weights = try WeightTensor(numbers.tensor([80, 96, 3, 3], deviation: 0.1)).converted(to: .q8, in: context)
      let window = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
      let (matrix, exact) = (try PackedMatrix(weights, in: context), try PackedMatrix(WeightTensor(weights.decoded()), in: context))
      for method in [ConvolutionMethod.winograd, .direct] {
        let found = try Tensor.convolution([x, other], weights: matrix, geometry: window, method: method, in: context)
        let expected = try Tensor.convolution([x, other], weights: exact, geometry: window, method: .direct, in: context)
        let errors = zip(found.elements, expected.elements).map { $0 - $1 }
        #expect(rootMeanSquare(errors) < 0.015 * rootMeanSquare(expected.elements), "\(method), \(height)×\(width)")
      }
    }
  }

  @Test func attention() throws {
    var numbers = Numbers(seed: 6)
    for (n, heads, width, l, s, causal) in [
      (2, 3, 40, 170, 600, false), (1, 2, 64, 300, 77, false), (1, 1, 512, 90, 257, false), (1, 4, 33, 513, 513, true),
      (1, 2, 80, 100, 300, false), (2, 8, 5, 85, 1, false),
    ] {
      let queries = numbers.tensor([n, l, heads * width])
      let keys = numbers.tensor([n, s, heads * width]), values = numbers.tensor([n, s, heads * width])
      let scale = 1 / Float(width).squareRoot()
      expectClose(
        try Tensor.attention(queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: causal, in: context),
        // Where few keys are seen a result is as large as the values, several times the mean; crossed products round to those.
        Plain.attention(queries, keys, values, heads: heads, scale: scale, causal: causal), tolerance: 3 * Self.productTolerance,
        "\(heads) heads of \(width), \(l) queries, \(s) keys")
      // PyTorch with the same roundings is off by 0.0035 in the mean.
      let exact = Plain.attention(queries, keys, values, heads: heads, scale: scale, causal: causal)
      let narrow = try Tensor.attention(
        queries: queries, keys: keys, values: values, heads: heads, scale: scale, causal: causal, precision: .bfloat16, in: context)
      let errors = zip(narrow.elements, exact.elements).map { $0 - $1 }
      #expect(rootMeanSquare(errors) < 0.006 * rootMeanSquare(exact.elements), "\(heads) heads of \(width) as bfloat16")
    }
  }

  /// Each token's own column of the probabilities: what attention gives where its value alone is one.
  @Test func attentionReceived() throws {
    var numbers = Numbers(seed: 8)
    for (n, heads, width, l, s) in [(2, 3, 40, 170, 100), (1, 1, 6, 4, 4), (2, 2, 64, 33, 65), (1, 2, 7, 200, 1)] {
      let queries = numbers.tensor([n, l, heads * width]), keys = numbers.tensor([n, s, heads * width])
      let scale = 1 / Float(width).squareRoot()
      let found = try Tensor.attentionReceived(queries: queries, keys: keys, heads: heads, scale: scale, in: context)
      let columns = (0..<s).map { key in
        let values = Tensor((0..<n * s * heads * width).map { $0 / (heads * width) % s == key ? 1 : 0 }, shape: keys.shape)
        let seen = Plain.attention(queries, keys, values, heads: heads, scale: scale, causal: false)
        return seen.mean(axis: 2, in: context).mean(axis: 1, in: context).reshaped([n, 1]) * Float(l)
      }
      expectClose(
        found, Tensor.concatenated(columns, axis: 1), tolerance: 3 * Self.productTolerance, "\(heads) heads of \(width), \(l), \(s)")
      let engine = CountingEngine(WorkCounter(), threads: 2)
      let counted = try Tensor.attentionReceived(
        queries: engine.input(queries.shape), keys: engine.input(keys.shape), heads: heads, scale: scale, in: engine.context)
      #expect(counted.shape == found.shape && engine.counter.operations == Double(2 * n * heads * width * l * s))
    }
  }

  /// Where the mean is m deviations the float32 formula x · scale + shift loses m of its digits' last places: 1e-7 · m.
  @Test func groupNorms() throws {
    var numbers = Numbers(seed: 7)
    for (pixels, channels, groups, mean, deviation) in [
      (5000, [16, 16], 8, 0, 1), (300, [320, 64], 32, 1, 2), (40_000, [1], 1, 0, 1), (9000, [4], 2, 1000, 1), (2000, [32], 32, -3, 0.01),
    ] as [(Int, [Int], Int, Float, Float)] {
      let inputs = channels.map { numbers.tensor([2, pixels, $0], mean: mean, deviation: deviation) }
      let all = channels.reduce(0, +)
      let weight = numbers.tensor([all]), bias = numbers.tensor([all])
      let found = try GroupNormalization(groups: groups, epsilon: 1e-6, weight: weight, bias: bias)(inputs, in: context)
      let expected = Plain.groupNorm(Tensor.concatenated(inputs, axis: -1), groups: groups, epsilon: 1e-6, weight: weight, bias: bias)
      expectClose(
        found, expected, tolerance: Self.tolerance + 2e-7 * abs(mean) / deviation, "\(pixels) pixels of \(channels) channels around \(mean)"
      )
    }
  }

  // ------------------------------------------------------------------------------------------------------------ what must hold

  /// Every operation, on sizes of several tasks: its inputs, and what it makes of them.
  private struct Work {
    let name: String
    let inputs: [Tensor]
    let run: (ExecutionContext) throws -> Tensor
  }

  private func works() throws -> [Work] {
    var numbers = Numbers(seed: 8)
    let x = numbers.tensor([2, 700, 330]), weights = try packed(numbers.tensor([200, 330])), residual = numbers.tensor([2, 700, 200])
    let picture = numbers.tensor([2, 21, 26, 40]), other = numbers.tensor([2, 21, 26, 30]),
      window = try packed(numbers.tensor([70, 70, 3, 3]))
    let bias = numbers.tensor([2, 70])
    let geometry = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
    let norm = GroupNormalization(groups: 10, epsilon: 1e-5, weight: numbers.tensor([70]), bias: numbers.tensor([70]))
    let queries = numbers.tensor([2, 300, 80]), keys = numbers.tensor([2, 520, 80]), values = numbers.tensor([2, 520, 80])
    let weight = numbers.tensor([330]), shift = numbers.tensor([330])
    let gated = try PackedMatrix(WeightTensor(numbers.tensor([260, 330])), isGated: true, in: context)
    let even = numbers.tensor([2, 700, 672])
    let bytes = try PackedMatrix(WeightTensor(numbers.tensor([200, 672])).converted(to: .q8, in: context), in: context)
    let wide = numbers.tensor([3, 21, 26, 352]), small = numbers.tensor([5, 9, 8, 352]), windows = numbers.tensor([192, 352, 3, 3])
    let forms = try [NumberFormat.float32, .float16, .q8].map { form in
      (form, try PackedMatrix(WeightTensor(windows).converted(to: form, in: context), in: context))
    }
    return [
      Work(name: "product", inputs: [x, residual]) { try x.multiplied(by: weights, adding: residual, activation: .gelu, in: $0) },
      Work(name: "convolution", inputs: [picture, other, bias]) {
        try Tensor.convolution([picture, other], weights: window, geometry: geometry, bias: bias, in: $0)
      },
      Work(name: "Winograd", inputs: [picture, other, bias]) {
        try Tensor.convolution(
          [picture, other], resizedTo: (42, 52), weights: window, geometry: geometry, bias: bias, method: .winograd, in: $0)
      },
    ]
      + forms.flatMap { form, windows in
        [(wide, (42, 52)), (wide, (64, 70)), (small, (9, 8))].map { picture, size in
          Work(name: "windows of \(form), \(size)", inputs: [picture]) {
            try Tensor.convolution([picture], resizedTo: size, weights: windows, geometry: geometry, in: $0)
          }
        }
      } + [
        Work(name: "group norm", inputs: [picture, other]) { try norm([picture, other], activation: .silu, in: $0) },
        Work(name: "layer norm", inputs: [x, weight, shift]) { try x.layerNormalized(weight: weight, bias: shift, epsilon: 1e-5, in: $0) },
        Work(name: "activation", inputs: [x]) { try x.activated(.silu, in: $0) },
        Work(name: "gated product", inputs: [x]) { try x.multiplied(by: gated, in: $0) },
        Work(name: "8-bit product", inputs: [even, residual]) {
          try even.multiplied(by: bytes, adding: residual, activation: .gelu, in: $0)
        },
        Work(name: "softmax", inputs: [x]) { try x.softmax(in: $0) },
        Work(name: "attention", inputs: [queries, keys, values]) {
          try Tensor.attention(queries: queries, keys: keys, values: values, heads: 4, scale: 0.2, in: $0)
        },
        Work(name: "attention received", inputs: [queries, keys]) {
          try Tensor.attentionReceived(queries: queries, keys: keys, heads: 4, scale: 0.2, in: $0)
        },
        Work(name: "causal attention", inputs: [queries, keys, values]) {
          try Tensor.attention(queries: queries, keys: keys, values: values, heads: 2, scale: 0.2, causal: true, in: $0)
        },
      ]
  }

  @Test func sameBytesWithAnyNumberOfThreads() throws {
    for work in try works() {
      let expected = try work.run(ExecutionContext(threads: 1)).elements.map(\.bitPattern)
      for threads in [2, 3, 5] {
        let context = ExecutionContext(threads: threads)
        for _ in 0..<3 { #expect(try work.run(context).elements.map(\.bitPattern) == expected, "\(work.name), \(threads) threads") }
      }
    }
  }

  @Test func inputsStayAsTheyAre() throws {
    for work in try works() {
      let before = work.inputs.map(\.elements)
      let first = try work.run(context), elements = first.elements
      #expect(work.inputs.map(\.elements) == before, "\(work.name)")
      // Nor does the next operation write where the last one's result lies.
      _ = try work.run(context)
      #expect(first.elements == elements, "\(work.name)")
    }
  }

  @Test func nothingRunsInACancelledContext() throws {
    let cancelled = ExecutionContext(threads: 2)
    cancelled.cancel()
    for work in try works() {
      #expect(throws: CancellationError.self, "\(work.name)") { try work.run(cancelled) }
    }
  }
}
