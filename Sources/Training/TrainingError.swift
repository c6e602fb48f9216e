import Tensor

/// Why training cannot begin, or cannot take a step.
public enum TrainingError: Error, Sendable, Equatable, CustomStringConvertible {
  /// Nothing is trained.
  case noParameters
  /// The model has no component of this name with parameters.
  case noComponent(String, known: [String])
  /// There are more or fewer gradients than parameters.
  case wrongCount(of: String, expected: Int, found: Int)
  /// A tensor does not have the shape of what it belongs to; `of` says which tensor.
  case wrongShape(of: String, expected: Shape, found: Shape)
  /// A learning rate that nothing can be trained with.
  case unusableLearningRate(Float)
  /// A setting that nothing can be computed with.
  case unusableSetting(name: String, found: String, needed: String)
  /// A gradient is infinite, not a number, or so large that its square is; the parameter's place in the list.
  case gradientNotFinite(parameter: Int)
  /// The loss is infinite or not a number.
  case lossNotFinite
  /// A timestep beyond the noise table.
  case timestepOutOfRange(Int, count: Int)
  /// A saved state does not belong to the optimiser.
  case foreignState(optimizer: String, reason: String)

  public var description: String {
    switch self {
    case .noParameters:
      "There is nothing to train: the list of parameters is empty."
    case .noComponent(let name, let known):
      "The model has no \(name) that could be trained; it has \(known.joined(separator: ", "))."
    case .wrongCount(let what, let expected, let found):
      "There are \(found) \(what) for \(expected) parameters."
    case .wrongShape(let what, let expected, let found):
      "\(what) has the shape \(found), but \(expected) belongs there."
    case .unusableLearningRate(let rate):
      "Nothing can be trained with a learning rate of \(rate); give a number above 0 and up to \(LearningRateSchedule.largestRate), such as 1e-4."
    case .unusableSetting(let name, let found, let needed):
      "\(name) is \(found), but it must be \(needed)."
    case .gradientNotFinite(let parameter):
      "The gradient of parameter \(parameter) has grown beyond all numbers; lower the learning rate or clip the gradients to a smaller norm."
    case .lossNotFinite:
      "The loss has grown beyond all numbers; lower the learning rate or clip the gradients to a smaller norm, and go on from the last state."
    case .timestepOutOfRange(let timestep, let count):
      "There is no training timestep \(timestep); they are counted from 0 to \(count - 1)."
    case .foreignState(let optimizer, let reason):
      "The saved state does not fit the optimiser \(optimizer): \(reason)."
    }
  }

  /// - Throws: `unusableSetting` unless the number is finite and `isUsable`.
  static func check(_ name: String, _ value: Double, _ needed: String, _ isUsable: (Double) -> Bool) throws(TrainingError) {
    guard value.isFinite, isUsable(value) else { throw .unusableSetting(name: name, found: "\(value)", needed: needed) }
  }

  /// - Throws: `wrongShape` unless the shapes are equal.
  static func check(_ what: @autoclosure () -> String, _ found: Shape, _ expected: Shape) throws(TrainingError) {
    guard found == expected else { throw .wrongShape(of: what(), expected: expected, found: found) }
  }
}
