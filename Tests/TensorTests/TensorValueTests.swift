import Tensor
import LatentDiffusionTestSupport
import Testing

/// Shapes, and tensors as values: made, taken apart, put together.
struct TensorValueTests {
  private func counted(_ shape: Shape) -> Tensor { Tensor((0..<shape.count).map { Float($0) }, shape: shape) }

  @Test func counts() {
    #expect(Shape([]).count == 1)
    #expect(([2, 3, 4] as Shape).count == 24)
    #expect(([2, 0, 4] as Shape).count == 0)
    #expect(([0, .max, .max] as Shape).count == 0)
    for absurd in [[.max, 2], [1 << 32, 1 << 32], [-1], [-1, -1], [2, -3, 0], [.min, -1], [1 << 62, 2], [0, -1]] as [Shape] {
      #expect(absurd.count == .max, "\(absurd)")
    }
  }

  @Test func rowsAndColumns() {
    for (shape, rows, columns) in [([2, 3, 4], 6, 4), ([5], 1, 5), ([], 1, 1), ([2, 0], 2, 0), ([0, 3], 0, 3)] as [(Shape, Int, Int)] {
      #expect(shape.rows == rows && shape.columns == columns, "\(shape)")
    }
    let shape: Shape = [2, 3, 4]
    #expect([shape[0], shape[2], shape[-1], shape[-3]] == [2, 4, 4, 2])
    #expect("\(shape)" == "[2, 3, 4]")
    #expect(shape == Shape([2, 3, 4]) && shape != [2, 4, 3])
  }

  @Test func making() {
    #expect(Tensor([1, 2, 3]).shape == [3])
    #expect(Tensor([5], shape: []).elements == [5])
    #expect(Tensor(repeating: 2, shape: [2, 2]).elements == [2, 2, 2, 2])
    #expect(Tensor(shape: [3]).elements == [0, 0, 0])
    #expect(Tensor([], shape: [2, 0]).count == 0)
    #expect(counted([2, 3]).reshaped([3, 2]).elements == counted([6]).elements)
  }

  @Test func parts() {
    let x = counted([3, 2, 4])
    #expect(x.rows(1..<3).shape == [2, 2, 4])
    #expect(x.rows(1..<3).elements == (8..<24).map { Float($0) })
    #expect(x.rows(2..<2).shape == [0, 2, 4])
    #expect(x.channels(1..<3).shape == [3, 2, 2])
    #expect(x.channels(1..<3).elements == [1, 2, 5, 6, 9, 10, 13, 14, 17, 18, 21, 22])
    #expect(x.channels(4..<4).shape == [3, 2, 0])
    #expect(counted([5]).channels(3..<5).elements == [3, 4])
  }

  @Test func concatenating() {
    let a = counted([2, 3]), b = counted([2, 1]) + 100
    #expect(Tensor.concatenated([a, b], axis: 1).elements == [0, 1, 2, 100, 3, 4, 5, 101])
    #expect(Tensor.concatenated([a, b], axis: -1).shape == [2, 4])
    #expect(Tensor.concatenated([a, a + 10], axis: 0).elements == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15])
    #expect(Tensor.concatenated([a, Tensor(shape: [0, 3])], axis: -2).elements == a.elements)
    let middle = Tensor.concatenated([counted([2, 1, 2]), counted([2, 2, 2]) + 50], axis: 1)
    #expect(middle.shape == [2, 3, 2] && middle.elements == [0, 1, 50, 51, 52, 53, 2, 3, 54, 55, 56, 57])
    #expect(Tensor.concatenated([a], axis: 0).elements == a.elements)
    #expect(counted([1, 2]).repeated(3).elements == [0, 1, 0, 1, 0, 1])
    // What was put together comes apart again.
    let parts = [1, 4, 2].map { counted([3, 2, $0]) }
    let whole = Tensor.concatenated(parts, axis: 2)
    #expect(whole.channels(1..<5).elements == parts[1].elements)
    #expect(whole.channels(5..<7).elements == parts[2].elements)
  }

  @Test func permuting() {
    #expect(counted([2, 3]).permuted([1, 0]).elements == [0, 3, 1, 4, 2, 5])
    #expect(counted([]).permuted([]).elements == [0])
    #expect(counted([2, 0, 3]).permuted([2, 0, 1]).shape == [3, 2, 0])
    let shape: Shape = [2, 3, 4, 5]
    let x = counted(shape)
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 3, 1], [0, 3, 1, 2], [2, 0, 3, 1], [1, 0, 2, 3]] {
      let found = x.permuted(order), extents = order.map { shape[$0] }
      #expect(found.shape == Shape(extents))
      let isRight = (0..<x.count).allSatisfy { target in
        var place = [0, 0, 0, 0], rest = target
        for axis in (0..<4).reversed() { (place[order[axis]], rest) = (rest % extents[axis], rest / extents[axis]) }
        return found.elements[target] == Float(((place[0] * 3 + place[1]) * 4 + place[2]) * 5 + place[3])
      }
      #expect(isRight, "\(order)")
    }
    #expect(x.channelsLast().shape == [2, 4, 5, 3])
    #expect(x.channelsLast().channelsFirst().elements == x.elements)
  }

  @Test func arithmetic() {
    let a = Tensor([1, -2, 3]), b = Tensor([4, 5, -6])
    #expect((a + b).elements == [5, 3, -3] && (a - b).elements == [-3, -7, 9])
    #expect((a * b).elements == [4, -10, -18] && (b / a).elements == [4, -2.5, -2])
    #expect((a + 1).elements == [2, -1, 4] && (a - 1).elements == [0, -3, 2] && (-a).elements == [-1, 2, -3])
    #expect((a * 2).elements == [2, -4, 6] && (2 * a).elements == [2, -4, 6] && (a / 2).elements == [0.5, -1, 1.5])
    #expect(a.clamped(to: -1...2).elements == [1, -1, 2])
    #expect(Tensor([0, -.infinity]).exponential().elements == [1, 0])
    #expect(a.isFinite && !Tensor([1, .nan]).isFinite && !Tensor([-.infinity]).isFinite && Tensor([]).isFinite)
    // None of this has changed what it was made from.
    #expect(a.elements == [1, -2, 3] && b.elements == [4, 5, -6])
  }

  @Test func weightsAsTensors() {
    let x = counted([3, 2]), weights = WeightTensor(x)
    #expect(weights.decoded().elements == x.elements && weights.decoded().shape == x.shape)
    #expect(weights.rows(1..<3).decoded().elements == [2, 3, 4, 5] && weights.rows(1..<3).shape == [2, 2])
    #expect(weights.rows(1..<3).rows(1..<2).decoded().elements == [4, 5])
    #expect(weights.rows(3..<3).decoded().count == 0)
    #expect(weights.reshaped([2, 3]).decoded().shape == [2, 3])
  }
}
