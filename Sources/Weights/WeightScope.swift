import Foundation
import Synchronization
import Tensor

/// A place in a tree of parameters, written as diffusers and PyTorch write it: `w["down_blocks"][0]["resnets"][1]`.
///
/// A layer takes its parameters from its scope. A missing or misshapen tensor is recorded under its full name and replaced by zeros, so that one attempt
/// finds every problem. `LoadReport.load` then throws all problems together and never returns such a model.
public struct WeightScope: Sendable {
  /// The names so far, joined by dots; empty at the root.
  public let prefix: String
  /// Its threads pack the weights, and its cancellation stops the loading.
  public let context: ExecutionContext
  /// Where matrices of this scope are between uses.
  public var residency: WeightResidency
  private let ledger: Ledger

  /// The state of a loading attempt.
  final class Ledger: Sendable {
    struct State {
      var used: Set<String> = []
      var parameters: [ParameterLabel] = []
      var problems: [WeightError] = []
      var standInBytes = 0
    }
    let source: any WeightSource
    let state = Mutex(State())
    init(_ source: any WeightSource) { self.source = source }
  }

  /// If a checkpoint lacks more bytes than this, it has too little of the model for a longer list of problems to help.
  private static let standInLimit = 64 << 20

  init(ledger: Ledger, prefix: String, residency: WeightResidency, context: ExecutionContext) {
    self.ledger = ledger
    self.prefix = prefix
    self.residency = residency
    self.context = context
  }

  private func path(_ name: String) -> String { prefix.isEmpty ? name : prefix + "." + name }

  /// The scope of this name below this one.
  public subscript(name: String) -> WeightScope {
    WeightScope(ledger: ledger, prefix: path(name), residency: residency, context: context)
  }
  /// The scope of this number below this one.
  public subscript(index: Int) -> WeightScope { self[String(index)] }

  /// True if the source has a tensor of this name here.
  public func has(_ name: String) -> Bool { ledger.source.names.contains(path(name)) }

  /// True if the source has no tensor below this scope.
  public var isEmpty: Bool { !ledger.source.names.contains { $0.hasPrefix(path("")) } }

  /// The tensor of this name as stored in its source. It is no parameter: nothing takes its place, and it cannot be trained.
  ///
  /// - Returns: zeros if there is none of this shape; the problem is recorded.
  /// - Throws: `WeightErrors`, once so much is missing that the attempt is hopeless.
  public func tensor(_ name: String, shape: Shape) throws -> WeightTensor {
    let tensor = try find(name, shape: shape)
    return try tensor.isFinite(in: context) ? tensor : standIn(.notFinite(name: path(name)), shape: shape)
  }

  /// The table of this name, `[V, D]`, as stored in its source: its rows are decoded when they are looked up.
  ///
  /// - Returns: zeros if there is none of this shape; the problem is recorded.
  /// - Throws: `WeightErrors`, once so much is missing that the attempt is hopeless.
  public func table(_ name: String, shape: Shape) throws -> Parameter<EmbeddingTable> {
    parameter(name, shape, EmbeddingTable(try tensor(name, shape: shape)), residency: .packed)
  }

  /// The vector of this name, as float32.
  ///
  /// - Parameter matrix: the matrix whose bias it is, if its values are arranged for that.
  /// - Returns: zeros if there is none of this shape; the problem is recorded.
  /// - Throws: `WeightErrors`, once so much is missing that the attempt is hopeless.
  public func vector(_ name: String, shape: Shape, besides matrix: PackedMatrix? = nil) throws -> Parameter<Tensor> {
    let values = try tensor(name, shape: shape).decoded()
    return parameter(name, shape, matrix?.arranged(values) ?? values, residency: .packed, isGated: matrix?.isGated ?? false)
  }

  /// The matrix or kernel of this name, packed now or later, as the scope's residency says.
  ///
  /// - Returns: zeros if there is none of this shape; the problem is recorded.
  /// - Throws: `WeightErrors`, once so much is missing that the attempt is hopeless, and `CancellationError`.
  public func matrix(_ name: String, shape: Shape, isGated: Bool = false) throws -> Parameter<PackedMatrix> {
    let weights = try find(name, shape: shape)
    let matrix =
      try PackedMatrix(checking: weights, isGated: isGated, residency: residency, in: context)
      ?? PackedMatrix(standIn(.notFinite(name: path(name)), shape: shape), isGated: isGated, in: context)
    return parameter(name, shape, matrix, residency: residency, isGated: isGated)
  }

  private func parameter<Value>(
    _ name: String, _ shape: Shape, _ value: Value, residency: WeightResidency, isGated: Bool = false
  ) -> Parameter<Value> {
    let origin = ledger.source.origin(of: path(name))
    let label = ParameterLabel(
      id: value.id, name: path(name), shape: shape, origin: origin, residency: residency, isGated: isGated,
      isMatrix: value is PackedMatrix)
    ledger.state.withLock { $0.parameters.append(label) }
    return Parameter(label: label, value: value)
  }

  private func find(_ name: String, shape: Shape) throws -> WeightTensor {
    let whole = path(name)
    ledger.state.withLock { _ = $0.used.insert(whole) }
    do throws(WeightError) {
      return try ledger.source.tensor(whole, shape: shape)
    } catch {
      return try standIn(error, shape: shape)
    }
  }

  /// Records a problem and returns zeros instead of the tensor.
  private func standIn(_ error: WeightError, shape: Shape) throws -> WeightTensor {
    let (bytes, overflow) = shape.count.multipliedReportingOverflow(by: 2)
    let problems: [WeightError]? = ledger.state.withLock { state in
      state.problems.append(error)
      let (sum, sumOverflow) = state.standInBytes.addingReportingOverflow(bytes)
      state.standInBytes = sum
      return overflow || sumOverflow || sum > Self.standInLimit ? state.problems : nil
    }
    if let problems { throw WeightErrors(problems: problems, isComplete: false) }
    return WeightTensor(shape: shape, elementType: .float16, data: Data(count: bytes))
  }
}

/// What loading a component found out about its tensors.
public struct LoadReport: Sendable {
  /// Tensors of the source that the component did not ask for, sorted.
  public let unused: [String]
  /// The component's parameters, in the order in which its layers were made.
  public let parameters: [ParameterLabel]

  /// Builds a component from a source.
  ///
  /// - Parameters:
  ///   - prefix: the place of the component in the source. Only names below it count as unused.
  ///   - residency: where the component's matrices are between uses, unless the component decides otherwise.
  /// - Throws: `WeightErrors` with everything that is missing or misshapen; what `build` throws.
  public static func load<Component>(
    from source: any WeightSource, prefix: String = "", residency: WeightResidency = .packed, in context: ExecutionContext,
    _ build: (WeightScope) throws -> Component
  ) throws -> (component: Component, report: LoadReport) {
    let ledger = WeightScope.Ledger(source)
    let component = try build(WeightScope(ledger: ledger, prefix: prefix, residency: residency, context: context))
    let found = ledger.state.withLock { $0 }
    guard found.problems.isEmpty else { throw WeightErrors(problems: found.problems, isComplete: true) }
    let unused = source.names.subtracting(found.used).filter { prefix.isEmpty || $0.hasPrefix(prefix + ".") }
    return (component, LoadReport(unused: unused.sorted(), parameters: found.parameters))
  }
}
