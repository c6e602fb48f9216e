import LatentDiffusionTestSupport
import Tensor
import Testing

/// Arithmetic on large tensors in place, against plain loops.
@Suite struct ElementRunTests {
  private static let shapes: [Shape] = [[5], [3, 8192], [8193], [0], [1, 1], [2, 4000, 3]]

  /// Every element is equal, and the shape.
  private func expectEqual(_ found: Tensor, _ expected: Tensor, sourceLocation: SourceLocation = #_sourceLocation) {
    expectClose(found, expected, tolerance: 0, sourceLocation: sourceLocation)
  }

  private func lists(_ count: Int) -> [[Tensor]] {
    var numbers = Numbers(seed: 12)
    return (0..<count).map { _ in Self.shapes.map { numbers.tensor($0) } }
  }

  @Test(arguments: [1, 2, 5]) func listsAreUpdatedInPlace(threads: Int) {
    let lists = lists(3)
    var (first, state) = (lists[0], [lists[1]])
    Tensor.update(&first, beside: &state, reading: [lists[2]], in: ExecutionContext(threads: threads)) { run in
      let (a, b, c) = (run.target(0), run.target(1), run.source(0))
      for i in 0..<run.count { (a[i], b[i]) = (a[i] + c[i], b[i] - a[i] * c[i]) }
    }
    for place in Self.shapes.indices {
      let (a, b, c) = (lists[0][place], lists[1][place], lists[2][place])
      expectEqual(first[place], a + c)
      expectEqual(state[0][place], b - a * c)
    }
  }

  @Test func runsKnowWhereTheyAre() {
    var tensor = Tensor(shape: [700, 37])
    tensor.update(rowLength: 37, in: ExecutionContext(threads: 2)) { run in
      for i in 0..<run.count { run.target(0)[i] = Float(run.begin + i + (run.begin % 37 == 0 && run.count % 37 == 0 ? 0 : 1_000_000)) }
    }
    expectEqual(tensor, Tensor((0..<25_900).map { Float($0) }, shape: [700, 37]))
  }

  @Test func sumsDoNotDependOnThreads() {
    let lists = lists(2)
    let sums = [1, 2, 5].map { threads in
      Tensor.sum(over: lists, in: ExecutionContext(threads: threads)) { run in
        (0..<run.count).reduce(0) { $0 + Double(run.source(0)[$1]) * Double(run.source(1)[$1]) }
      }
    }
    let exact = zip(lists[0], lists[1]).reduce(0.0) { sum, pair in
      sum + zip(pair.0.elements, pair.1.elements).reduce(0.0) { $0 + Double($1.0) * Double($1.1) }
    }
    #expect(sums[0] == sums[1] && sums[1] == sums[2] && abs(sums[0] - exact) < 1e-9 * abs(exact) + 1e-9)
    #expect(Tensor.sum(over: [[]], in: ExecutionContext(threads: 1)) { _ in 1 } == 0)
  }

  @Test func tensorsOfOthersAreCopied() {
    let tensor = Tensor([1, 2, 3])
    var (copy, list) = (tensor, [tensor])
    copy.update(in: ExecutionContext(threads: 1)) { $0.target(0)[1] = 7 }
    Tensor.update(&list, in: ExecutionContext(threads: 1)) { $0.target(0)[2] = 8 }
    #expect(tensor.elements == [1, 2, 3] && copy.elements == [1, 7, 3] && list[0].elements == [1, 2, 8])
  }

  @Test(arguments: [0, 1, 2, 3, -1]) func meansAlongAxes(axis: Int) {
    var numbers = Numbers(seed: 2)
    for shape: Shape in [[4, 3, 5, 2], [1, 1, 1, 1], [2, 300, 7, 600], [40, 30, 3, 3]] {
      let x = numbers.tensor(shape), number = axis < 0 ? 4 + axis : axis
      var order = Array(0..<4)
      order.append(order.remove(at: number))
      let rows = x.permuted(order), length = shape[number], elements = rows.elements
      let means = (0..<x.count / length).map { row in
        Float((0..<length).reduce(0.0) { $0 + Double(elements[row * length + $1]) } / Double(length))
      }
      let expected = Tensor(means, shape: Shape(order.dropLast().map { shape[$0] }))
      for threads in [1, 3] { expectEqual(x.mean(axis: axis, in: ExecutionContext(threads: threads)), expected) }
    }
  }

  /// ⟨A x, y⟩ = ⟨x, Aᵀ y⟩ for every pair of a map and its transpose, and the maps against plain loops.
  @Test(arguments: [[1, 2, 2, 1], [2, 7, 6, 3], [3, 33, 40, 4], [1, 3, 9, 1]]) func mapsOfPicturesHaveTransposes(dimensions: [Int]) {
    var numbers = Numbers(seed: 3)
    let shape = Shape(dimensions), context = ExecutionContext(threads: 3), x = numbers.tensor(shape)
    func product(_ a: Tensor, _ b: Tensor) -> Double { zip(a.elements, b.elements).reduce(0) { $0 + Double($1.0) * Double($1.1) } }
    func expectTranspose(_ mapped: Tensor, _ name: String, _ add: (Tensor, inout Tensor) -> Void) {
      let y = numbers.tensor(mapped.shape), start = numbers.tensor(shape)
      var back = start
      add(y, &back)
      #expect(abs(product(mapped, y) - product(x, back - start)) < 1e-4 * Double(x.count).squareRoot(), "\(name) of \(shape)")
    }
    let vertical = x.differences(.vertical, in: context), horizontal = x.differences(.horizontal, in: context)
    let (height, width) = (shape[1], shape[2])
    expectEqual(vertical, x.part(rows: 1..<height, columns: 0..<width) - x.part(rows: 0..<height - 1, columns: 0..<width))
    expectEqual(horizontal, x.part(rows: 0..<height, columns: 1..<width) - x.part(rows: 0..<height, columns: 0..<width - 1))
    expectTranspose(vertical, "vertical differences") { $0.addDifferences(.vertical, to: &$1, in: context) }
    expectTranspose(horizontal, "horizontal differences") { $0.addDifferences(.horizontal, to: &$1, in: context) }
    expectTranspose(x.averagePooled(in: context), "means") { $0.addAveragePooled(to: &$1, in: context) }
    let ones = Tensor(repeating: 1, shape: shape).averagePooled(in: context)
    #expect(ones.shape == [shape[0], height / 2, width / 2, shape[3]] && ones.elements.allSatisfy { $0 == 1 })
  }
}
