import Foundation

/// What a pickle may call: what `torch.save` needs for tensors and plain containers. Each is written out here, and nothing else is called.
///
/// The list is that of PyTorch's own restricted reader (`torch.load` with `weights_only`), with `ParameterDict` and NumPy's scalars, which old
/// checkpoints have, and without sparse, quantised and nested tensors.
extension PickleReader {
  mutating func call(_ function: PickleValue, _ arguments: [PickleValue]) throws(PickleProblem) -> PickleValue {
    guard case .global(let name) = function else { throw .malformed("its pickle calls what is no function") }
    switch name {
    case "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3":
      return add(.tensor(try tensor(arguments, hasType: name.hasSuffix("v3"))))
    case "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state", "torch.nn.parameter.Parameter":
      guard let data = arguments.first, isTensor(data) else { throw .malformed("its pickle has a parameter without a tensor") }
      return data
    case "torch._tensor._rebuild_from_type_v2":
      // A tensor with attributes of its own, which are left out. What makes the tensor is no such call again.
      guard arguments.count == 4, case .global(let inner) = arguments[0], inner.hasPrefix("torch._utils._rebuild_") else {
        throw .malformed("its pickle has a tensor that is made of something else")
      }
      return try call(arguments[0], items(of: arguments[2]))
    case "collections.OrderedDict", "collections.Counter", "collections.defaultdict", "builtins.dict": return try dictionary(arguments)
    case "torch.Size", "builtins.tuple", "builtins.list", "builtins.set", "builtins.frozenset":
      guard let items = arguments.first else { return add(.list([])) }
      _ = try self.items(of: items)
      return items
    case "torch.nn.modules.container.ParameterDict": return add(.parameters(.none))
    case "_codecs.encode", "builtins.bytes", "builtins.bytearray", "builtins.complex", "torch.device", "torch.serialization._get_layout",
      "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar":
      return add(.opaque)
    default: throw .forbidden(name)
    }
  }

  /// Gives an object its state. Attributes of dictionaries (`_metadata`), parameters and NumPy's types are no weights.
  mutating func build(_ value: PickleValue, _ state: PickleValue) throws(PickleProblem) {
    guard case .object(let place) = value else { throw .malformed("its pickle gives a state to what is no object") }
    switch pickle.objects[place] {
    case .dictionary, .tensor, .opaque: break
    case .parameters:
      guard case .object(let attributes) = state, case .dictionary(let entries) = pickle.objects[attributes],
        let parameters = entries.last(where: { $0.key.text == "_parameters" })
      else { throw .malformed("its pickle has a ParameterDict without parameters") }
      pickle.objects[place] = .parameters(parameters.value)
    default: throw .malformed("its pickle gives a state to what has none")
    }
  }

  /// What `torch.save` calls a storage: `("storage", class, key, device, count)`, in old files with the part that is seen:
  /// `(key, first, count)` or `None`.
  func storage(_ identity: [PickleValue]) throws(PickleProblem) -> PickledStorage {
    guard identity.count >= 5, identity[0].text == "storage", case .global(let name) = identity[1], let key = identity[2].text,
      case .number(let count) = identity[4], count >= 0
    else { throw .malformed("its pickle refers to a storage in an unknown way") }
    guard let type = PyTorchType(storage: name) else { throw .unsupported("it has numbers of the type \(name)") }
    var visible = 0..<count
    if identity.count > 5, case .object = identity[5] {
      let view = try items(of: identity[5])
      guard view.count == 3, case .number(let first) = view[1], case .number(let seen) = view[2], first >= 0, seen >= 0, first <= count,
        seen <= count - first
      else { throw .malformed("its pickle has a part of a storage that is not in it") }
      visible = first..<first + seen
    }
    return PickledStorage(key: key, type: type, count: count, visible: visible)
  }

  /// - Parameter arguments: `(storage, offset, size, stride, requires_grad, backward_hooks)`, then the type, then what the view does to the numbers.
  private func tensor(_ arguments: [PickleValue], hasType: Bool) throws(PickleProblem) -> PickledTensor {
    guard arguments.count >= 4, case .object(let place) = arguments[0], case .storage(let storage) = pickle.objects[place],
      case .number(let offset) = arguments[1], offset >= 0
    else { throw .malformed("its pickle has a tensor without a storage") }
    var type = storage.type
    if hasType {
      guard arguments.count > 6, case .global(let name) = arguments[6] else { throw .malformed("its pickle has a tensor without a type") }
      guard let known = PyTorchType(dtype: name) else { throw .unsupported("it has numbers of the type \(name)") }
      type = known
    }
    if let last = arguments.dropFirst(hasType ? 7 : 6).first, case .object(let place) = last,
      case .dictionary(let marks) = pickle.objects[place],
      !marks.isEmpty
    {
      throw .unsupported("it has a tensor whose numbers are kept conjugated or negated")
    }
    return PickledTensor(
      storage: storage, type: type, offset: offset, shape: try extents(arguments[2]), strides: try extents(arguments[3]))
  }

  private func extents(_ value: PickleValue) throws(PickleProblem) -> [Int] {
    let values = try items(of: value)
    let extents = values.compactMap { if case .number(let extent) = $0, extent >= 0 { extent } else { nil } }
    guard extents.count == values.count, extents.count <= 16 else { throw .malformed("its pickle has a tensor without a proper shape") }
    return extents
  }

  private func isTensor(_ value: PickleValue) -> Bool {
    guard case .object(let place) = value, case .tensor = pickle.objects[place] else { return false }
    return true
  }

  /// - Parameter arguments: nothing, a dictionary, or a list of pairs. A defaultdict begins with what makes its defaults, which is not called.
  private mutating func dictionary(_ arguments: [PickleValue]) throws(PickleProblem) -> PickleValue {
    guard let last = arguments.last, case .object(let place) = last else { return add(.dictionary([])) }
    if case .dictionary = pickle.objects[place] { return last }
    let pairs = try items(of: last)
    work += pairs.count
    var entries: [(key: PickleValue, value: PickleValue)] = []
    for pair in pairs {
      let parts = try items(of: pair)
      guard parts.count == 2 else { throw .malformed("its pickle has a key without a value") }
      entries.append((parts[0], parts[1]))
    }
    return add(.dictionary(entries))
  }
}

extension PickleValue {
  /// The text; nil for other values.
  var text: String? { if case .text(let text) = self { text } else { nil } }
}
