import LatentDiffusionTestSupport
import Tensor
import Testing

/// Attention along the second axis is that of a sequence for each place, which `OperationTests` compares with PyTorch.
@Suite struct FrameAttentionTests {
  private struct Sizes: Sendable, CustomTestStringConvertible {
    let n: Int, length: Int, keys: Int, places: Int, heads: Int, width: Int
    var testDescription: String { "\(n)×\(length)×\(keys) of \(places) places, \(heads) heads of \(width)" }
  }

  private static let sizes = [
    Sizes(n: 2, length: 16, keys: 16, places: 12, heads: 8, width: 40), Sizes(n: 1, length: 1, keys: 1, places: 3, heads: 2, width: 4),
    Sizes(n: 3, length: 5, keys: 5, places: 1, heads: 1, width: 3), Sizes(n: 1, length: 33, keys: 70, places: 2, heads: 3, width: 33),
    Sizes(n: 1, length: 24, keys: 24, places: 60, heads: 2, width: 64), Sizes(n: 1, length: 7, keys: 32, places: 5, heads: 2, width: 160),
  ]

  private static func tensors(_ sizes: Sizes) -> [Tensor] {
    var generator = TorchGenerator(seed: 3)
    return [sizes.length, sizes.keys, sizes.keys, sizes.length].map { length in
      let shape: Shape = [sizes.n, length, sizes.places, sizes.heads * sizes.width]
      return Tensor(generator.normal(shape.count), shape: shape)
    }
  }

  private static func sequences(_ x: Tensor) -> Tensor {
    x.permuted([0, 2, 1, 3]).reshaped([x.shape[0] * x.shape[2], x.shape[1], x.shape[3]])
  }

  @Test(arguments: sizes) private func isThatOfSequences(_ sizes: Sizes) throws {
    let all = Self.tensors(sizes), context = ExecutionContext(threads: 2), scale = 1 / Float(sizes.width).squareRoot()
    let found = try Tensor.attention(acrossFrames: all[0], keys: all[1], values: all[2], heads: sizes.heads, scale: scale, in: context)
    let expected = Plain.attention(
      Self.sequences(all[0]), Self.sequences(all[1]), Self.sequences(all[2]), heads: sizes.heads, scale: scale, causal: false)
    #expect(found.shape == all[0].shape)
    expectClose(Self.sequences(found), expected, tolerance: 1e-5, "\(sizes)")
    let again = try Tensor.attention(
      acrossFrames: all[0], keys: all[1], values: all[2], heads: sizes.heads, scale: scale, in: ExecutionContext(threads: 1))
    #expect(found.elements == again.elements)
  }

  @Test(arguments: sizes) private func gradientsAreThoseOfSequences(_ sizes: Sizes) throws {
    let all = Self.tensors(sizes), context = ExecutionContext(threads: 2), scale = 1 / Float(sizes.width).squareRoot()
    let tape = GradientTape()
    all.prefix(3).forEach(tape.follow)
    let result = try Tensor.attention(
      acrossFrames: all[0], keys: all[1], values: all[2], heads: sizes.heads, scale: scale, in: context.recording(on: tape))
    let gradients = try tape.gradients(of: result, times: all[3], in: context)
    let plainTape = GradientTape(), plain = all.prefix(3).map(Self.sequences)
    plain.forEach(plainTape.follow)
    let sequences = try Tensor.attention(
      queries: plain[0], keys: plain[1], values: plain[2], heads: sizes.heads, scale: scale, in: context.recording(on: plainTape))
    let expected = try plainTape.gradients(of: sequences, times: Self.sequences(all[3]), in: context)
    for (tensor, own) in zip(all, plain) {
      expectClose(Self.sequences(try #require(gradients[tensor])), try #require(expected[own]), tolerance: 1e-6, "\(sizes)")
    }
  }

  @Test func isCounted() throws {
    let engine = CountingEngine(WorkCounter(), threads: 2), x = engine.input([2, 16, 64, 32])
    let result = try Tensor.attention(acrossFrames: x, keys: x, values: x, heads: 4, scale: 1, in: engine.context)
    #expect(result.shape == x.shape && engine.counter.operations == 4 * Double(x.count) * 16)
  }
}
