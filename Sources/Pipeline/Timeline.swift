/// What changes from step to step: values, each of which holds for steps in a row.
struct Timeline<Value: Sendable>: Sendable {
  /// Each once.
  let values: [Value]
  /// Steps in a row, in order: the last of them, and which value holds.
  private let stretches: [(last: Int, index: Int)]

  /// The same in all steps.
  init(_ value: Value) { (values, stretches) = ([value], [(.max, 0)]) }

  /// - Parameter stretches: at least one, in order, each with its last step.
  init(_ stretches: [(last: Int, value: Value)]) where Value: Hashable {
    var (values, places, known) = ([Value](), [(last: Int, index: Int)](), [Value: Int]())
    for (last, value) in stretches {
      if known[value] == nil {
        known[value] = values.count
        values.append(value)
      }
      places.append((last, known[value] ?? 0))
    }
    (self.values, self.stretches) = (values, places)
  }

  private init(values: [Value], stretches: [(last: Int, index: Int)]) { (self.values, self.stretches) = (values, stretches) }

  /// The values in the order in which they hold; one that holds again is there again.
  var inOrder: [Value] { stretches.map { values[$0.index] } }

  private func index(at step: Int) -> Int { (stretches.first { step <= $0.last } ?? stretches[stretches.count - 1]).index }

  /// What holds in a step; after the last stretch, what held there.
  subscript(step: Int) -> Value { values[index(at: step)] }

  /// - Parameter change: is given a value and its first place in `inOrder`.
  func map<Other>(_ change: (Value, _ place: Int) throws -> Other) rethrows -> Timeline<Other> {
    Timeline<Other>(
      values: try values.indices.map { index in try change(values[index], stretches.firstIndex { $0.index == index } ?? 0) },
      stretches: stretches)
  }

  /// Several as one, which changes where one of them does.
  /// - Parameter join: makes a value of theirs, once for each combination.
  static func joined<Part>(_ parts: [Timeline<Part>], _ join: ([Part]) throws -> Value) rethrows -> Timeline {
    var (values, stretches, known) = ([Value](), [(last: Int, index: Int)](), [[Int]: Int]())
    for last in Set(parts.flatMap { $0.stretches.map(\.last) }).sorted() {
      let places = parts.map { $0.index(at: last) }
      if known[places] == nil {
        known[places] = values.count
        values.append(try join(zip(parts, places).map { $0.values[$1] }))
      }
      stretches.append((last, known[places] ?? 0))
    }
    return Timeline(values: values, stretches: stretches)
  }
}
