import Foundation
import Tensor
import LatentDiffusionTestSupport
import Testing

/// The gradients of the public operations against PyTorch's in float64 (`Tests/Fixtures/operations/make_gradients.py`): of every input, weight and
/// bias of every case of `OperationTests`.
///
/// Tolerances are in units of the gradient's root mean square.
struct GradientTests {
  private static let tolerance: Float = splitsFactors ? 1e-4 : 2e-5
  private let context = ExecutionContext(threads: 2)
  private let tape = GradientTape()

  /// A case, and the reference's gradients of it.
  private func cases<Parameters: Decodable>(
    _ family: String, _ type: Parameters.Type
  ) throws -> [(item: ReferenceCase<Parameters>, gradients: ReferenceCase<Parameters>)] {
    let answers = try ReferenceCases<Parameters>("operations/\(family).gradients.safetensors").map { ($0.name, $0) }
    let byName = Dictionary(uniqueKeysWithValues: answers)
    let found = try ReferenceCases<Parameters>("operations/\(family).safetensors").compactMap { item in byName[item.name].map { (item, $0) }
    }
    #expect(found.count == answers.count && !found.isEmpty)
    return found
  }

  /// The gradient that each result is given, in the order of PyTorch's layout. The same formula stands in `make_gradients.py`.
  private func gradient(_ shape: Shape) -> Tensor { Tensor((0..<shape.count).map { Float($0 * 7919 % 1000) / 500 - 1 }, shape: shape) }

  /// The same for pictures `[N, H, W, C]`.
  private func gradient(ofPictures shape: Shape) -> Tensor { gradient([shape[0], shape[3], shape[1], shape[2]]).channelsLast() }

  private func back(_ result: Tensor) throws -> Gradients {
    try tape.gradients(of: result, times: result.shape.rank == 4 ? gradient(ofPictures: result.shape) : gradient(result.shape), in: context)
  }

  private var recording: ExecutionContext { context.recording(on: tape) }

  @Test(arguments: [ConvolutionMethod.direct, .winograd]) func convolutions(method: ConvolutionMethod) throws {
    for (item, expected) in try cases("convolution", OperationTests.ConvolutionCase.self)
    where method == .direct || item.parameters.suitsWinograd {
      let inputs = try (0..<item.parameters.inputs).map { try item["input\($0)"].channelsLast() }
      let shape = try item["weight"].shape, weights = try PackedMatrix(try #require(try item.weights("weight")), in: context)
      let (bias, residual) = (try item.optional("bias"), try item.optional("residual")?.channelsLast())
      (inputs + [bias, residual].compactMap { $0 }).forEach(tape.follow)
      tape.follow(weights)
      let gradients = try back(
        Tensor.convolution(
          inputs, resizedTo: item.parameters.size, weights: weights, geometry: item.parameters.geometry, bias: bias, adding: residual,
          method: method, in: recording))
      for (index, input) in inputs.enumerated() {
        expectClose(
          try #require(gradients[input]), try expected["input\(index)"].channelsLast(), tolerance: Self.tolerance, "\(item.name), input")
      }
      expectClose(
        try #require(gradients[weights]).reshaped(shape), try expected["weight"], tolerance: Self.tolerance, "\(item.name), weight")
      if let bias {
        expectClose(try #require(gradients[bias]), try expected["bias"], tolerance: Self.tolerance, "\(item.name), bias")
      }
      if let residual {
        expectClose(
          try #require(gradients[residual]), try expected["residual"].channelsLast(), tolerance: Self.tolerance, "\(item.name), residual")
      }
    }
  }

  @Test func products() throws {
    for (item, expected) in try cases("product", OperationTests.ProductCase.self) {
      let x = try item["input"], weights = try PackedMatrix(try #require(try item.weights("weight")), in: context)
      let (bias, residual) = (try item.optional("bias"), try item.optional("residual"))
      [x, bias, residual].compactMap { $0 }.forEach(tape.follow)
      tape.follow(weights)
      let gradients = try back(
        x.multiplied(
          by: weights, bias: bias, adding: residual,
          activation: try #require(OperationTests.activations[item.parameters.activation]), in: recording))
      expectClose(try #require(gradients[x]), try expected["input"], tolerance: Self.tolerance, "\(item.name), input")
      expectClose(try #require(gradients[weights]), try expected["weight"], tolerance: Self.tolerance, "\(item.name), weight")
      if let bias { expectClose(try #require(gradients[bias]), try expected["bias"], tolerance: Self.tolerance, "\(item.name), bias") }
      if let residual {
        expectClose(try #require(gradients[residual]), try expected["residual"], tolerance: Self.tolerance, "\(item.name), residual")
      }
    }
  }

  /// A large mean cancels in x̂, as it does in PyTorch's own float32.
  @Test func normalizations() throws {
    for (item, expected) in try cases("normalization", OperationTests.NormalizationCase.self) {
      let (weight, bias) = (try item["weight"], try item["bias"])
      let isOffset = item.name.contains("large mean") || item.name.contains("small variance")
      let tolerance = isOffset ? 5e-4 : Self.tolerance
      let isLayer = item.parameters.groups == 0
      let inputs = try (0..<item.parameters.inputs).map { try isLayer ? item["input\($0)"] : item["input\($0)"].channelsLast() }
      (inputs + [weight, bias]).forEach(tape.follow)
      let result =
        isLayer
        ? try inputs[0].layerNormalized(weight: weight, bias: bias, epsilon: item.parameters.epsilon, in: recording)
        : try GroupNormalization(groups: item.parameters.groups, epsilon: item.parameters.epsilon, weight: weight, bias: bias)(
          inputs, activation: item.parameters.silu ? .silu : .none, in: recording)
      let gradients = try back(result)
      for (index, input) in inputs.enumerated() {
        let reference = try expected["input\(index)"]
        // Where values are determined by the mean and the variance, as one or two are, gradients cancel to nothing.
        let scale: Float = reference.elements.contains { abs($0) > 1e-5 } ? 0 : 3e-6
        let difference = compare(try #require(gradients[input]).elements, (isLayer ? reference : reference.channelsLast()).elements)
        #expect(difference.error <= tolerance || difference.largest <= scale, "\(item.name), input \(index): \(difference)")
      }
      expectClose(try #require(gradients[bias]), try expected["bias"], tolerance: tolerance, "\(item.name), bias")
      let weights = compare(try #require(gradients[weight]).elements, try expected["weight"].elements)
      #expect(weights.error <= tolerance || weights.largest <= 1e-5, "\(item.name), weight: \(weights)")
    }
  }

  @Test func functions() throws {
    for (item, expected) in try cases("function", OperationTests.Nothing.self) {
      let kind = String(item.name.prefix { $0 != "," })
      var x = try item["input"], reference = try expected["input"]
      if kind == "nearest" { (x, reference) = (x.channelsLast(), reference.channelsLast()) }
      tape.follow(x)
      let result: Tensor
      switch kind {
      case "geglu":
        let columns = x.shape.columns
        let identity = Tensor((0..<columns * columns).map { $0 % (columns + 1) == 0 ? 1 : 0 }, shape: [columns, columns])
        result = try x.multiplied(by: try PackedMatrix(WeightTensor(identity), isGated: true, in: context), in: recording)
      case "softmax": result = try x.softmax(in: recording)
      case "nearest":
        let channels = x.shape[3], size = try item["result"].shape
        let identity = Tensor((0..<channels * channels).map { $0 % (channels + 1) == 0 ? 1 : 0 }, shape: [channels, channels, 1, 1])
        result = try Tensor.convolution(
          [x], resizedTo: (size[2], size[3]), weights: PackedMatrix(WeightTensor(identity), in: context),
          geometry: .init(kernelHeight: 1, kernelWidth: 1, padding: .all(0)), in: recording)
      default: result = try x.activated(try #require(OperationTests.activations[kind]), in: recording)
      }
      let found = try #require(try back(result)[x])
      let difference = compare(found.elements, reference.elements, relative: 4e-5, absolute: splitsFactors ? 1e-4 : 4e-6)
      #expect(difference.isTolerable, "\(item.name): \(difference)")
    }
  }

  @Test func attention() throws {
    for (item, expected) in try cases("attention", OperationTests.AttentionCase.self) {
      let all = try ["queries", "keys", "values"].map { try item[$0] }
      all.forEach(tape.follow)
      let gradients = try back(
        Tensor.attention(
          queries: all[0], keys: all[1], values: all[2], heads: item.parameters.heads, scale: item.parameters.scale,
          causal: item.parameters.causal, in: recording))
      for (name, tensor) in zip(["queries", "keys", "values"], all) {
        let reference = try expected[name]
        // Of one key, and of the probabilities 1 and 0, nothing changes with the scores.
        let scale: Float = item.name == "one token" ? 1e-6 : 0
        let difference = compare(try #require(gradients[tensor]).elements, reference.elements)
        #expect(
          difference.error <= (item.name == "steep" ? 3e-4 : Self.tolerance) || difference.largest <= scale,
          "\(item.name), \(name): \(difference)")
      }
    }
  }

  /// Parts, sums and joined tensors, each used twice. y = 2 (a + b) + 3 with b = [a₀; a₁ joined with itself].
  @Test func layout() throws {
    let a = Tensor((0..<12).map { Float($0) }, shape: [2, 2, 3])
    tape.follow(a)
    let first = try a.rows(0..<1, in: recording), second = try a.channels(1..<3, in: recording)
    let joined = try Tensor.concatenated([first, first], axis: 0, in: recording)
    let middle = try Tensor.concatenated([second, second], axis: 1, in: recording)
    let y = try a.adding(joined, in: recording).scaled(by: 2, plus: 3, in: recording)
    let all = try Tensor.concatenated([y.reshaped([12]), middle.reshaped([16])], axis: 0, in: recording)
    let gradients = try tape.gradients(of: all, times: Tensor((0..<28).map { Float($0) }), in: context)
    // Element (n, l, c) with the index i: 2 i, in the first row also 2 i + 2 (i + 6), and from channel 1 on those of the two copies.
    let expected = (0..<12).map { i -> Float in
      let (n, l, c) = (i / 6, i / 3 % 2, i % 3)
      var sum = Float(2 * i + (n == 0 ? 2 * i + 2 * (i + 6) : 0))
      if c > 0 { for copy in 0..<2 { sum += Float(12 + n * 8 + (copy * 2 + l) * 2 + c - 1) } }
      return sum
    }
    #expect(try #require(gradients[a]).elements == expected)
  }

  /// Rows of a table, some of them several times: the gradient of a row is the sum over its places, and zero where nobody asked for the row.
  @Test func lookups() throws {
    let table = Tensor((0..<10).map { Float($0) }, shape: [5, 2])
    tape.follow(table)
    let y = try table.rows(at: [2, 0, 2, 3, 2], in: recording)
    #expect(y.elements == [4, 5, 0, 1, 4, 5, 6, 7, 4, 5] && y.shape == [5, 2])
    let gradients = try tape.gradients(of: y, times: Tensor((1...10).map { Float($0) }, shape: [5, 2]), in: context)
    #expect(try #require(gradients[table]).elements == [3, 4, 0, 0, 15, 18, 7, 8, 0, 0])
  }

  /// The gradient of a lookup takes the memory of one table, however many rows are looked up.
  @Test func lookupsTakeOneTable() throws {
    let engine = CountingEngine(WorkCounter(), threads: 2), table = engine.input([50_000, 64])
    tape.follow(table)
    let y = try table.rows(at: (0..<77).map { $0 * 31 % 40 }, in: engine.context.recording(on: tape))
    #expect(y.shape == [77, 64])
    let gradients = try tape.gradients(of: y, times: engine.input(y.shape), in: engine.context)
    #expect(try #require(gradients[table]).shape == table.shape)
    let bytes = table.count * 4
    #expect((bytes..<bytes + bytes / 10).contains(engine.counter.peakBytes), "\(engine.counter.peakBytes) bytes, a table has \(bytes)")
  }

  /// Frozen weights of several formats: the gradient of the input is that of the decoded values, for a matrix, a gated one and a kernel, with
  /// sides that fill no panel.
  @Test(arguments: [NumberFormat.float16, .bfloat16, .q8, .q4]) func frozenWeights(format: NumberFormat) throws {
    var numbers = Numbers(seed: 9)
    for (shape, isGated) in [([72, 96], false), ([40, 64], true), ([33, 32, 3, 3], false)] as [(Shape, Bool)] {
      let values = Tensor(numbers.normal(shape.count, deviation: 0.1), shape: shape)
      let weights = try WeightTensor(values).converted(to: format)
      // A product of bytes rounds none of these, whatever a row's largest byte is.
      let x = Tensor((0..<20 * shape[1]).map { i in Float(i * 53 % 7 % 3 - 1) }, shape: [1, 5, 4, shape[1]])
      let geometry = ConvolutionGeometry(kernelHeight: 3, kernelWidth: 3, padding: .all(1))
      let answers = try [weights, WeightTensor(weights.decoded())].map { weights in
        let tape = GradientTape(), matrix = try PackedMatrix(weights, isGated: isGated, in: context)
        tape.follow(x)
        let recording = context.recording(on: tape)
        let y =
          try shape.rank == 4
          ? Tensor.convolution([x], weights: matrix, geometry: geometry, in: recording) : x.multiplied(by: matrix, in: recording)
        return try #require(try tape.gradients(of: y, times: gradient(ofPictures: y.shape), in: context)[x])
      }
      expectClose(answers[0], answers[1], tolerance: Self.tolerance, "\(format), \(shape)")
    }
  }

  /// y = f · x for each row, and a convolution that ends with an activation: the product by 2 and the activation's own gradient.
  @Test func rowsAndEpilogues() throws {
    let x = Tensor([1, -2, 3, 4, -5, 6], shape: [1, 1, 3, 2]), factors = Tensor([2, -1, 0.5])
    tape.follow(x)
    tape.follow(factors)
    let scaled = try x.scaledRows(by: factors, in: recording)
    let doubling = try PackedMatrix(WeightTensor(Tensor([2, 0, 0, 2], shape: [2, 2, 1, 1])), in: context)
    let y = try Tensor.convolution(
      [scaled], weights: doubling, geometry: .init(kernelHeight: 1, kernelWidth: 1, padding: .all(0)), activation: .relu, in: recording)
    #expect(y.elements == [4, 0, 0, 0, 0, 6])
    let gradients = try tape.gradients(of: y, times: Tensor(repeating: 1, shape: y.shape), in: context)
    #expect(try #require(gradients[x]).elements == [4, 0, 0, 0, 0, 1])
    #expect(try #require(gradients[factors]).elements == [2, 0, 12])
  }

  /// What does not depend on a followed tensor has no gradient, and a block that is computed again has the same one to the bit.
  @Test func blocksAreComputedAgain() throws {
    var numbers = Numbers(seed: 3)
    let x = Tensor(numbers.normal(2 * 5 * 16), shape: [2, 5, 16]), other = Tensor(numbers.normal(16))
    let weights = try PackedMatrix(WeightTensor(Tensor(numbers.normal(16 * 16), shape: [16, 16])), in: context)
    @Sendable func block(_ x: Tensor, _ context: ExecutionContext) throws -> Tensor {
      let hidden = try x.multiplied(by: weights, activation: .silu, in: context)
      return try hidden.layerNormalized(weight: other, bias: other, epsilon: 1e-5, in: context).adding(x, in: context)
    }
    func gradients(recomputing: Bool) throws -> (Tensor, Tensor) {
      let tape = GradientTape()
      tape.follow(x)
      tape.follow(weights)
      let recording = context.recording(on: tape, recomputing: recomputing)
      var y = x
      for _ in 0..<3 { y = try recording.recomputes ? recording.recomputed { [y] in try block(y, $0) } : block(y, recording) }
      let found = try tape.gradients(of: y, times: gradient(y.shape), in: context)
      #expect(found[other] == nil)
      return (try #require(found[x]), try #require(found[weights]))
    }
    let (kept, again) = (try gradients(recomputing: false), try gradients(recomputing: true))
    #expect(kept.0.elements == again.0.elements)
    #expect(kept.1.elements == again.1.elements)
  }
}
