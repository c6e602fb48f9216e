import Synchronization

/// A record of a computation, through which gradients are followed back (reverse-mode differentiation).
///
/// ```swift
/// let tape = GradientTape()
/// tape.follow(x)
/// let y = try network(x, in: context.recording(on: tape))
/// let gradient = try tape.gradients(of: y, times: dLdy, in: context)[x]
/// ```
///
/// A tape follows the tensors and matrices that it is told of, and every result that depends on one. It keeps the tensors that it needs to go back, and
/// drops each as soon as its gradient is known. So a tape is good for one way back.
public final class GradientTape: Sendable {
  /// Goes back through one operation: takes the gradient of its result, and adds those of its inputs.
  typealias Step = @Sendable (_ gradient: Tensor, _ gradients: inout Gradients, _ back: WayBack) throws -> Void

  private struct State {
    var followed: Set<UInt64> = []
    var matrices: Set<ObjectIdentifier> = []
    var steps: [(result: UInt64, shape: Shape, step: Step)] = []
  }
  private let state: Mutex<State>

  /// A tape that follows nothing yet.
  public init() { state = Mutex(State()) }

  /// A tape that follows what another one does.
  init(following other: GradientTape) {
    var (own, others) = (State(), other.state.withLock { ($0.followed, $0.matrices) })
    swap(&own.followed, &others.0)
    swap(&own.matrices, &others.1)
    state = Mutex(own)
  }

  /// Follows a tensor: an input, or a parameter that is a vector.
  public func follow(_ tensor: Tensor) { state.withLock { _ = $0.followed.insert(tensor.storage.serial) } }

  /// Follows a matrix or a kernel of float32 values.
  public func follow(_ matrix: PackedMatrix) { state.withLock { _ = $0.matrices.insert(matrix.id) } }

  func follows(_ tensor: Tensor?) -> Bool {
    guard let tensor else { return false }
    return state.withLock { $0.followed.contains(tensor.storage.serial) }
  }

  func follows(_ matrix: PackedMatrix?) -> Bool {
    guard let matrix else { return false }
    return state.withLock { $0.matrices.contains(matrix.id) }
  }

  func record(_ result: Tensor, _ step: @escaping Step) {
    state.withLock { state in
      state.followed.insert(result.storage.serial)
      state.steps.append((result.storage.serial, result.shape, step))
    }
  }

  /// The gradients of Σ result · gradient with respect to everything that the tape follows and that no operation made.
  ///
  /// - Parameters:
  ///   - gradient: that of the function sought with respect to the result, of the same shape.
  ///   - context: its engine must be a `GradientEngine`.
  /// - Throws: `CancellationError`, and what the engine throws.
  public func gradients(of result: Tensor, times gradient: Tensor, in context: ExecutionContext) throws -> Gradients {
    try gradients(of: [(result, gradient)], in: context)
  }

  /// The same for a function of several results: the sum over all of them.
  ///
  /// - Parameters:
  ///   - results: each with the function's gradient with respect to it, of the same shape.
  ///   - context: its engine must be a `GradientEngine`.
  /// - Throws: `CancellationError`, and what the engine throws.
  public func gradients(of results: [(result: Tensor, gradient: Tensor)], in context: ExecutionContext) throws -> Gradients {
    let back = WayBack(context)
    var gradients = Gradients(of: state.withLock(\.followed))
    for (result, gradient) in results { try gradients.add(gradient, to: result, back) }
    // The last step is removed before it runs, so that what it keeps is freed with it.
    while let (key, shape, step) = state.withLock({ $0.steps.popLast() }) {
      try context.checkCancellation()
      guard let own = gradients.take(key) else { continue }
      try step(own.reshaped(shape), &gradients, back)
    }
    return gradients
  }
}

/// What the way back through a tape computes with.
struct WayBack {
  let engine: any GradientEngine
  let context: ExecutionContext

  init(_ context: ExecutionContext) {
    guard let engine = context.engine as? any GradientEngine else {
      preconditionFailure("\(type(of: context.engine)) computes no gradients.")
    }
    (self.engine, self.context) = (engine, context)
  }
}

/// Gradients of a function with respect to tensors and matrices.
public struct Gradients: Sendable {
  private var tensors: [UInt64: Tensor] = [:]
  private var matrices: [ObjectIdentifier: Tensor] = [:]
  /// Gradients of other tensors are dropped.
  private let followed: Set<UInt64>

  init(of followed: Set<UInt64>) { self.followed = followed }

  /// The gradient with respect to a tensor, in its shape; nil if the function does not depend on it.
  public subscript(tensor: Tensor) -> Tensor? { tensors[tensor.storage.serial]?.reshaped(tensor.shape) }

  /// The gradient with respect to a matrix `[O, I]` or kernel `[O, C · kh · kw]`, in the order of a checkpoint; nil if the function does not depend on it.
  public subscript(matrix: PackedMatrix) -> Tensor? { matrices[matrix.id] }

  mutating func add(_ gradient: Tensor, to tensor: Tensor, _ back: WayBack) throws { try add(gradient, to: tensor.storage.serial, back) }

  mutating func add(_ gradient: Tensor, to key: UInt64, _ back: WayBack) throws {
    guard followed.contains(key) else { return }
    let before = tensors.removeValue(forKey: key)
    tensors[key] = try before.map { try back.engine.sum($0, gradient.reshaped($0.shape), in: back.context) } ?? gradient
  }

  /// - Parameter gradient: `[biasColumns, taps · C]`, as products have the matrix.
  mutating func add(_ gradient: Tensor, to matrix: PackedMatrix, _ back: WayBack) throws {
    let own = matrix.inCheckpointOrder(gradient), before = matrices.removeValue(forKey: matrix.id)
    matrices[matrix.id] = try before.map { try back.engine.sum($0, own, in: back.context) } ?? own
  }

  mutating func add(_ others: Gradients, _ back: WayBack) throws {
    for (key, gradient) in others.tensors { try add(gradient, to: key, back) }
    for (key, gradient) in others.matrices {
      let before = matrices.removeValue(forKey: key)
      matrices[key] = try before.map { try back.engine.sum($0, gradient, in: back.context) } ?? gradient
    }
  }

  fileprivate mutating func take(_ key: UInt64) -> Tensor? { tensors.removeValue(forKey: key) }
}
