import Foundation

/// What a pickle describes. Values that can change or refer to one another are objects, which are numbered, so that a cycle is no danger.
struct Pickle {
  var root = PickleValue.none
  var objects: [PickleObject] = []
}

/// A value that a pickle describes.
enum PickleValue {
  case none
  case truth(Bool)
  case number(Int)
  case float(Double)
  case text(String)
  case bytes(Data)
  /// The name of a class or a function, with its module. It is a name and nothing more.
  case global(String)
  /// The place of an object in `Pickle.objects`.
  case object(Int)
}

enum PickleObject {
  case tuple([PickleValue])
  /// A list or a set.
  case list([PickleValue])
  case dictionary([(key: PickleValue, value: PickleValue)])
  indirect case storage(PickledStorage)
  indirect case tensor(PickledTensor)
  /// A `ParameterDict`, and the dictionary of its parameters.
  case parameters(PickleValue)
  /// A value that is carried and not looked into: a device, a scalar of NumPy.
  case opaque

  /// Adds to a list; false where this is none. Nothing else holds the array meanwhile, so it grows in its place.
  mutating func append(_ items: [PickleValue]) -> Bool {
    guard case .list(var list) = self else { return false }
    self = .opaque
    list += items
    self = .list(list)
    return true
  }

  /// Adds to a dictionary; false where this is none.
  mutating func append(_ entries: [(key: PickleValue, value: PickleValue)]) -> Bool {
    guard case .dictionary(var dictionary) = self else { return false }
    self = .opaque
    dictionary += entries
    self = .dictionary(dictionary)
    return true
  }
}

/// The numbers that tensors are views of.
struct PickledStorage {
  /// Its name among all storages.
  let key: String
  let type: PyTorchType
  /// How many elements the storage has.
  let count: Int
  /// Which of its elements are seen. Old files have storages that are parts of others.
  let visible: Range<Int>
}

/// A view of a storage.
struct PickledTensor {
  let storage: PickledStorage
  let type: PyTorchType
  /// The first element, counted in elements of the tensor.
  let offset: Int
  let shape: [Int]
  let strides: [Int]
}

/// The type of a tensor's elements.
struct PyTorchType: Equatable {
  /// As safetensors names it.
  let name: String
  let bytes: Int

  private init?(_ name: String?) {
    guard let name, let bits = SafetensorsFile.elementBits[name] else { return nil }
    (self.name, bytes) = (name, bits / 8)
  }

  /// - Parameter storage: a class, such as `torch.HalfStorage`.
  init?(storage: String) { self.init(Self.storages[storage]) }

  /// - Parameter type: a value, such as `torch.float16`.
  init?(dtype type: String) { self.init(Self.types[type]) }

  private static let storages = [
    "torch.FloatStorage": "F32", "torch.DoubleStorage": "F64", "torch.HalfStorage": "F16", "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64", "torch.IntStorage": "I32", "torch.ShortStorage": "I16", "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8", "torch.BoolStorage": "BOOL", "torch.ComplexFloatStorage": "C64",
    // Bytes: `_rebuild_tensor_v3` says what they are.
    "torch.UntypedStorage": "U8", "torch.storage.UntypedStorage": "U8", "torch.storage._UntypedStorage": "U8",
  ]

  private static let types = [
    "torch.float32": "F32", "torch.float64": "F64", "torch.float16": "F16", "torch.bfloat16": "BF16", "torch.int64": "I64",
    "torch.int32": "I32", "torch.int16": "I16", "torch.int8": "I8", "torch.uint8": "U8", "torch.uint16": "U16", "torch.uint32": "U32",
    "torch.uint64": "U64", "torch.bool": "BOOL", "torch.complex64": "C64", "torch.float8_e4m3fn": "F8_E4M3", "torch.float8_e5m2": "F8_E5M2",
    "torch.float8_e4m3fnuz": "F8_E4M3FNUZ", "torch.float8_e5m2fnuz": "F8_E5M2FNUZ", "torch.float8_e8m0fnu": "F8_E8M0",
  ]
}
