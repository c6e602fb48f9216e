import Tensor

/// Makes changes of a module's tensors. Shapes are compared with the parameter's before anything is computed.
extension AdapterModule {
  /// What the module changes.
  ///
  /// - Parameters:
  ///   - weight: how strongly.
  ///   - settings: what the file says beside its tensors.
  /// - Returns: changes by the name of the parameter, `weight` or `bias`, and the names of tensors that have no parameter.
  /// - Throws: `AdapterError`.
  func changes(
    of module: AdapterTargets.Module, in targets: AdapterTargets, weight: Float, settings: AdapterSettings
  ) throws(AdapterError) -> (changes: [String: [WeightChange]], unused: [String]) {
    let reader = ChangeReader(
      source: self, module: module, matrix: targets.shape(of: "weight", in: module), bias: targets.shape(of: "bias", in: module),
      weight: weight, settings: settings)
    let matrix = try reader.matrixChanges(), bias = try reader.biasChanges()
    let used = Set((matrix.isEmpty ? [] : reader.matrixRoles) + (bias.isEmpty ? [] : reader.biasRoles))
    return (["weight": matrix, "bias": bias], tensors.filter { !used.contains($0.key) }.map(\.value.key))
  }
}

private struct ChangeReader {
  let source: AdapterModule
  let module: AdapterTargets.Module
  let matrix: Shape?
  let bias: Shape?
  let weight: Float
  let settings: AdapterSettings

  /// Roles of tensors that change a module's weight.
  var matrixRoles: [AdapterRole] { source.tensors.keys.filter { !biasRoles.contains($0) } }
  let biasRoles: [AdapterRole] = [.diffBias, .upBias]

  func matrixChanges() throws(AdapterError) -> [WeightChange] {
    guard let shape = matrix, shape.rank > 0, shape.count > 0 else { return [] }
    var changes: [WeightChange] = []
    if has(.up) || has(.down) { changes.append(try change(.product(factor(.up, .down, .mid, shape)), shape, rank: source.required(.down))) }
    if has(.hadaW1A) {
      let first = try factor(.hadaW1A, .hadaW1B, .hadaT1, shape), second = try factor(.hadaW2A, .hadaW2B, .hadaT2, shape)
      changes.append(try change(.hadamard(first, second), shape, rank: source.required(.hadaW1B)))
    }
    if has(.lokrW1) || has(.lokrW1A) { changes.append(try kronecker(shape)) }
    if let diff = source.optional(.diff) {
      guard diff.shape.count == shape.count else { throw misfit(diff, shape) }
      changes.append(try change(.product(.whole(diff.values())), shape, rank: nil))
    }
    if let gain = try gain(shape) { changes.append(gain) }
    return changes
  }

  func biasChanges() throws(AdapterError) -> [WeightChange] {
    guard let shape = bias else { return [] }
    var changes: [WeightChange] = []
    for role in biasRoles {
      guard let diff = source.optional(role) else { continue }
      guard diff.shape.count == shape.count else { throw misfit(diff, shape) }
      var change = WeightChange(kind: .product(.whole(try diff.values())), weight: weight, path: source.path)
      if role == .upBias { change.scale = try scale(rank: source.required(.down).shape[0]) }
      changes.append(change)
    }
    // PEFT scales a layer's result, to which the bias belongs.
    if let ia3 = source.optional(.ia3), let matrix, try !isOfInputs(ia3, matrix), ia3.shape.count == shape.count {
      changes.append(try gain(ia3, ofInputs: false, isLessOne: false))
    }
    return changes
  }

  private func has(_ role: AdapterRole) -> Bool { source.tensors[role] != nil }

  private func misfit(_ tensor: AdapterTensor, _ shape: Shape) -> AdapterError { tensor.wrongShape(for: module.full, shape) }

  /// A change with its scale and DoRA's lengths.
  private func change(_ kind: WeightChange.Kind, _ shape: Shape, rank: AdapterTensor?) throws(AdapterError) -> WeightChange {
    var change = WeightChange(kind: kind, weight: weight, path: source.path)
    if let rank { change.scale = try scale(rank: rank.shape[0]) }
    if let lengths = source.optional(.magnitude) {
      guard lengths.shape.count == shape[0] else { throw misfit(lengths, shape) }
      change.lengths = .ofOutputs(try lengths.values())
    } else if let lengths = source.optional(.doraScale) {
      // The axis that has as many lengths; of outputs if they are all alone.
      let ofInputs = lengths.shape.rank > 1 && lengths.shape[0] == 1 && shape.rank > 1
      guard lengths.shape.count == shape[ofInputs ? 1 : 0] else { throw misfit(lengths, shape) }
      change.lengths = .blended(try lengths.values(), ofInputs: ofInputs)
    }
    return change
  }

  /// alpha / rank: of the module's alpha, or else of the file's settings; 1 if nothing is said.
  private func scale(rank: Int) throws(AdapterError) -> Float {
    if let alpha = source.optional(.alpha) { return rank > 0 ? try alpha.number() / Float(rank) : 1 }
    return settings.scale(component: module.component, module: module.name, rank: rank) ?? 1
  }

  /// B · A, or B · mid · A, of a parameter's shape. With LyCORIS' and PEFT's kernel between them, B of LoHa and LoKr stands transposed.
  private func factor(_ up: AdapterRole, _ down: AdapterRole, _ mid: AdapterRole, _ shape: Shape) throws(AdapterError) -> AdapterFactor {
    let (b, a, kernel) = (try source.required(up), try source.required(down), source.optional(mid))
    let isTransposed = kernel != nil && up != .up
    let (outputs, taps) = (shape[0], shape.dimensions.dropFirst(2).reduce(1, *))
    let rank = b.shape.extent(isTransposed ? 0 : 1) ?? 0, inputs = shape.count / max(outputs * taps, 1)
    let upShape = isTransposed ? [rank, outputs] : [outputs, rank]
    guard rank > 0, outputs > 0, b.shape.isMatrix(upShape[0], upShape[1]) else { throw misfit(b, shape) }
    guard let kernel else {
      guard a.shape.isMatrix(rank, inputs * taps) else { throw misfit(a, shape) }
      return .product(up: try b.values(), isTransposed: false, mid: nil, down: try a.values())
    }
    let inner = a.shape.extent(0) ?? 0
    guard inner > 0, a.shape.isMatrix(inner, inputs) else { throw misfit(a, shape) }
    guard kernel.shape.extent(1) == inner, kernel.shape.isMatrix(rank, inner * taps) else { throw misfit(kernel, shape) }
    return .product(up: try b.values(), isTransposed: isTransposed, mid: try kernel.values(), down: try a.values())
  }

  /// LoKr: each factor is whole or a product. alpha counts only where one is a product, unless PEFT's settings say what the scale is.
  private func kronecker(_ shape: Shape) throws(AdapterError) -> WeightChange {
    let first = try source.required(has(.lokrW1) ? .lokrW1 : .lokrW1A)
    let last = try source.required(has(.lokrW1) ? .lokrW1 : .lokrW1B)
    let rows = first.shape.extent(0) ?? 0, columns = last.shape.extent(1) ?? 0
    guard shape.rank > 1, rows > 0, columns > 0, shape[0] % rows == 0, shape[1] % columns == 0 else { throw misfit(first, shape) }
    let inner = Shape([shape[0] / rows, shape[1] / columns] + shape.dimensions.dropFirst(2))
    let left = try factor(whole: .lokrW1, .lokrW1A, .lokrW1B, nil, [rows, columns])
    let right = try factor(whole: .lokrW2, .lokrW2A, .lokrW2B, .lokrT2, inner)
    let ranked = source.optional(.lokrW1B) ?? source.optional(.lokrW2B)
    var result = try change(.kronecker(left, right), shape, rank: ranked)
    if ranked == nil { result.scale = settings.scale(component: module.component, module: module.name, rank: nil) ?? 1 }
    return result
  }

  private func factor(
    whole: AdapterRole, _ up: AdapterRole, _ down: AdapterRole, _ mid: AdapterRole?, _ shape: Shape
  ) throws(AdapterError) -> AdapterFactor {
    guard let tensor = source.optional(whole) else { return try factor(up, down, mid ?? .mid, shape) }
    guard tensor.shape.extent(0) == shape[0], tensor.shape.count == shape.count else { throw misfit(tensor, shape) }
    return .whole(try tensor.values())
  }

  // MARK: (IA)³

  private func gain(_ shape: Shape) throws(AdapterError) -> WeightChange? {
    if let factors = source.optional(.ia3) { return try gain(factors, ofInputs: isOfInputs(factors, shape), isLessOne: false) }
    guard let factors = source.optional(.gain), let onInput = source.optional(.onInput) else { return nil }
    let ofInputs = try onInput.number() != 0
    guard shape.extent(ofInputs ? 1 : 0) == factors.shape.count else { throw misfit(factors, shape) }
    return try gain(factors, ofInputs: ofInputs, isLessOne: true)
  }

  private func gain(_ factors: AdapterTensor, ofInputs: Bool, isLessOne: Bool) throws(AdapterError) -> WeightChange {
    WeightChange(
      kind: .gain(try factors.values(), ofInputs: ofInputs, isLessOne: isLessOne), weight: weight, path: source.path)
  }

  /// PEFT's factors are `[O, 1]` or `[1, I]` for a matrix, and `[1, F, 1, 1]` for a kernel's outputs or inputs.
  private func isOfInputs(_ factors: AdapterTensor, _ shape: Shape) throws(AdapterError) -> Bool {
    let count = factors.shape.count, isSaid = settings.isFeedForward(component: module.component, module: module.name)
    let fits = (outputs: count == shape[0], inputs: count == shape.extent(1))
    guard fits.outputs || fits.inputs else { throw misfit(factors, shape) }
    guard fits.outputs, fits.inputs else { return fits.inputs }
    return factors.shape.rank == 2 ? factors.shape[0] == 1 && factors.shape[1] != 1 : isSaid
  }
}

extension Shape {
  /// An extent; nil if there is no such axis.
  fileprivate func extent(_ axis: Int) -> Int? { axis < rank ? dimensions[axis] : nil }

  /// Whether it is `[rows, …]` with so many elements in each row.
  fileprivate func isMatrix(_ rows: Int, _ columns: Int) -> Bool {
    guard rank > 0, dimensions[0] == rows else { return false }
    return Shape(Array(dimensions.dropFirst())).count == columns
  }
}
