import CLatentDiffusionKernels
import Foundation

/// A run of the elements of several tensors of one count, which one task computes with. It is valid only during the call that it is passed to.
///
/// Elements are counted from the beginning of the run. Loops over `0..<count` need no test of each index, so they become SIMD code.
package struct ElementRun {
  /// The place of the tensors in their lists.
  package let place: Int
  /// The first element of the run, counted from the beginning of the tensors.
  package let begin: Int
  /// The number of elements.
  package let count: Int
  @usableFromInline let targets: [UnsafeMutablePointer<Float>]
  @usableFromInline let sources: [UnsafePointer<Float>]

  /// - Parameters:
  ///   - targets: where the updated tensors begin.
  ///   - sources: where the read ones begin.
  fileprivate init(place: Int, _ range: Range<Int>, targets: [UnsafeMutablePointer<Float>], sources: [UnsafePointer<Float>]) {
    (self.place, begin, count) = (place, range.lowerBound, range.count)
    self.targets = targets.map { $0 + range.lowerBound }
    self.sources = sources.map { $0 + range.lowerBound }
  }

  /// The elements of a tensor that is only read.
  package struct Source {
    @usableFromInline let pointer: UnsafePointer<Float>
    @usableFromInline let count: Int

    @inlinable init(pointer: UnsafePointer<Float>, count: Int) { (self.pointer, self.count) = (pointer, count) }

    @inlinable package subscript(index: Int) -> Float {
      precondition(index >= 0 && index < count, "An element outside of its run.")
      return pointer[index]
    }
  }

  /// The elements of a tensor that is updated.
  package struct Target {
    @usableFromInline let pointer: UnsafeMutablePointer<Float>
    @usableFromInline let count: Int

    @inlinable init(pointer: UnsafeMutablePointer<Float>, count: Int) { (self.pointer, self.count) = (pointer, count) }

    @inlinable package subscript(index: Int) -> Float {
      get {
        precondition(index >= 0 && index < count, "An element outside of its run.")
        return pointer[index]
      }
      nonmutating set {
        precondition(index >= 0 && index < count, "An element outside of its run.")
        pointer[index] = newValue
      }
    }
  }

  /// The elements of the updated tensor with this number.
  @inlinable package func target(_ number: Int) -> Target { Target(pointer: targets[number], count: count) }

  /// The elements of the read tensor with this number.
  @inlinable package func source(_ number: Int) -> Source { Source(pointer: sources[number], count: count) }
}

/// What a step of Adam with decoupled weight decay multiplies by.
package struct AdamStep {
  private let factors: ck_adam

  /// - Parameters:
  ///   - rate: η.
  ///   - decay: λ.
  ///   - betas: β₁ and β₂.
  ///   - epsilon: ε.
  ///   - number: t, from 1.
  package init(rate: Double, decay: Double, betas: (Double, Double), epsilon: Double, number: Int) {
    factors = ck_adam(
      kept: Float(1 - rate * decay), first_gain: Float(1 - betas.0), second_kept: Float(betas.1), second_gain: Float(1 - betas.1),
      step: Float(rate / (1 - pow(betas.0, Double(number)))), root: Float((1 - pow(betas.1, Double(number))).squareRoot()),
      epsilon: Float(epsilon))
  }

  /// Updates a parameter and its moments m and v, the three targets of a run, by its gradient, the source.
  package func callAsFunction(_ run: ElementRun) {
    precondition(run.targets.count == 3 && run.sources.count == 1, "Adam has a parameter, two moments and a gradient.")
    withUnsafePointer(to: factors) { Kernels.active.adam(run.count, $0, run.targets[0], run.targets[1], run.targets[2], run.sources[0]) }
  }
}

/// Arithmetic on the elements of large tensors, in place and in parallel: what a formula does with several tensors is one pass over their memory.
///
/// The runs follow from the shapes alone, and sums add up in the order of the runs. So results are the same bytes for any number of threads.
/// A pass is never cancelled half-way. Tensors that are only counted are left alone.
extension Tensor {
  /// Elements of a run: 32 KiB of each tensor.
  private static let run = 8192

  /// Updates the tensors of a list in place, and those of other lists at the same places.
  ///
  /// A tensor that somebody else holds too gets memory of its own first, and so another `id`.
  /// - Parameters:
  ///   - tensors: the first target of each run.
  ///   - state: further targets, each a list like `tensors`.
  ///   - sources: lists like `tensors` that are only read.
  ///   - body: computes the new elements of a run.
  /// - Precondition: all lists have the same counts in the same order.
  package static func update(
    _ tensors: inout [Tensor], beside state: inout [[Tensor]], reading sources: [[Tensor]], in context: ExecutionContext,
    _ body: (ElementRun) -> Void
  ) {
    let counts = counts([tensors] + state + sources)
    for place in tensors.indices {
      tensors[place].becomeUnique()
      for slot in state.indices { state[slot][place].becomeUnique() }
    }
    let written = tensors.indices.map { place in [tensors[place].mutablePointer] + state.map { $0[place].mutablePointer } }
    let read = tensors.indices.map { place in sources.map { $0[place].pointer } }
    forEachRun(of: counts, in: context) { _, place, range in
      body(ElementRun(place: place, range, targets: written[place], sources: read[place]))
    }
  }

  /// Updates the tensors of a list in place: see `update(_:beside:reading:in:_:)`.
  package static func update(
    _ tensors: inout [Tensor], reading sources: [[Tensor]] = [], in context: ExecutionContext, _ body: (ElementRun) -> Void
  ) {
    var nothing: [[Tensor]] = []
    update(&tensors, beside: &nothing, reading: sources, in: context, body)
  }

  /// Updates this tensor in place.
  ///
  /// - Parameters:
  ///   - sources: tensors of the same count that are only read.
  ///   - rowLength: runs begin and end at multiples of this many elements.
  ///   - body: computes the new elements of a run.
  package mutating func update(
    reading sources: [Tensor] = [], rowLength: Int = 1, in context: ExecutionContext, _ body: (ElementRun) -> Void
  ) {
    precondition(sources.allSatisfy { $0.count == count }, "\(sources.map(\.shape)) do not match \(shape).")
    guard !isCounted, !sources.contains(where: \.isCounted) else { return }
    becomeUnique()
    let written = [mutablePointer], read = sources.map(\.pointer)
    Self.forEachRun(of: [count], rowLength: rowLength, in: context) { _, place, range in
      body(ElementRun(place: place, range, targets: written, sources: read))
    }
  }

  /// The sum of what `body` returns for every run of the tensors.
  ///
  /// - Parameters:
  ///   - lists: each with tensors of the same counts in the same order; the sources of each run.
  ///   - body: the sum over a run.
  package static func sum(over lists: [[Tensor]], in context: ExecutionContext, _ body: (ElementRun) -> Double) -> Double {
    let counts = counts(lists)
    let read = counts.indices.map { place in lists.map { $0[place].pointer } }
    var sums = [Double](repeating: 0, count: runs(of: counts, rowLength: 1).count)
    sums.withUnsafeMutableBufferPointer { sums in
      let place = sums
      forEachRun(of: counts, in: context) { number, tensor, range in
        place[number] = body(ElementRun(place: tensor, range, targets: [], sources: read[tensor]))
      }
    }
    return sums.reduce(0, +)
  }

  /// Zeros in another tensor's shape; only counted if the other one is.
  package init(zerosLike other: Tensor) {
    self = .counted(other.shape, like: [other]) ?? Tensor(shape: other.shape)
  }

  private mutating func becomeUnique() {
    guard !isCounted, !isKnownUniquelyReferenced(&storage) else { return }
    let copy = Tensor(uninitialized: shape)
    copy.mutablePointer.update(from: pointer, count: count)
    self = copy
  }

  /// The elements of the tensors at each place of the lists; none where one of them has no memory.
  private static func counts(_ lists: [[Tensor]]) -> [Int] {
    guard let first = lists.first else { return [] }
    precondition(lists.allSatisfy { $0.map(\.count) == first.map(\.count) }, "Lists of tensors do not match.")
    return first.indices.map { place in lists.contains { $0[place].isCounted } ? 0 : first[place].count }
  }

  /// The runs of tensors with these counts, one tensor after the other.
  private static func runs(of counts: [Int], rowLength: Int) -> [(place: Int, range: Range<Int>)] {
    let length = max(1, run / max(rowLength, 1)) * max(rowLength, 1)
    return counts.enumerated().flatMap { place, count in
      stride(from: 0, to: count, by: length).map { (place, $0..<min(count, $0 + length)) }
    }
  }

  private static func forEachRun(
    of counts: [Int], rowLength: Int = 1, in context: ExecutionContext, _ body: (_ number: Int, _ place: Int, Range<Int>) -> Void
  ) {
    let runs = runs(of: counts, rowLength: rowLength)
    context.parallelToTheEnd(runs.count) { body($0, runs[$0].place, runs[$0].range) }
  }
}
