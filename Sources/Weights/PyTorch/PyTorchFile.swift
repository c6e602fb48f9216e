import LatentDiffusionFiles
import Foundation
import Tensor

extension TensorFileFormat {
  /// One file of PyTorch: `.ckpt`, `.bin`, `.pt`, `.pth`. What begins otherwise is left to other formats, whatever its name.
  public static let pyTorch = TensorFileFormat("PyTorch") { url, beginning in
    PyTorchFile.isPickle(Array(beginning)) || PyTorchFile.mayBeFile(url, beginning: beginning)
  } opened: {
    try PyTorchFile($0)
  }
}

/// A file that `torch.save` wrote, as an archive or in the format before version 1.6, mapped into memory. Nothing in it is run.
///
/// A pickle in the file says what the tensors are. It is read by an interpreter that knows tensors, storages and plain containers, and that
/// refuses to call anything else; classes that are only named are names. Tensors that are contiguous stay in the mapped file. Others are
/// copied at opening, and together take no more bytes than the file has.
public struct PyTorchFile: TensorFile {
  public let url: URL
  /// Numbers and texts of the file's dictionaries, such as `global_step`, by their joined names.
  public let metadata: [String: String]
  public let table: WeightTable

  /// - Throws: `PyTorchFileError`.
  public init(_ url: URL) throws(PyTorchFileError) {
    let path = url.path(percentEncoded: false)
    guard let file = try? Data(mapping: url) else {
      throw .unreadable(path: path, reason: "it does not exist, it is no ordinary file, or its permissions forbid it")
    }
    self.url = url
    let contents: PyTorchContents
    let names: PickledTensors
    do throws(PickleProblem) {
      contents = try PyTorchContents(file)
      names = try PickledTensors(contents.pickle, bytes: contents.pickleBytes)
    } catch {
      throw error.error(path: path)
    }
    var room = file.count
    var tensors = Dictionary<String, StoredTensor>(minimumCapacity: names.tensors.count)
    for (name, tensor) in names.tensors {
      do throws(PickleProblem) {
        tensors[name] = try contents.stored(tensor, room: &room, origin: .file(url))
      } catch {
        guard case .malformed(let reason) = error else { throw error.error(path: path) }
        throw .invalidTensor(path: path, name: name, reason: reason)
      }
    }
    metadata = names.metadata
    table = WeightTable(tensors)
  }

  /// Whether a file begins as a pickle of protocol 2 to 5, or as an archive with one.
  static func isPickle(_ bytes: [UInt8]) -> Bool {
    if bytes.count > 2, bytes[0] == 0x80, (2...5).contains(bytes[1]) { return true }
    guard bytes.starts(with: [0x50, 0x4B, 0x03, 0x04]) else { return false }
    let name = Array("data.pkl".utf8)
    return bytes.indices.contains { bytes[$0...].starts(with: name) }
  }

  /// Whether a file has PyTorch's extension and does not begin as something else.
  static func mayBeFile(_ url: URL, beginning: Data) -> Bool {
    guard ["ckpt", "bin", "pt", "pth"].contains(url.pathExtension.lowercased()) else { return false }
    let isArchive = beginning.starts(with: [0x50, 0x4B])
    return isArchive || ForeignFile(beginning: beginning) == nil && beginning.dropFirst(8).first != UInt8(ascii: "{")
  }
}

/// The pickle of a file, and its storages.
private struct PyTorchContents {
  let pickle: Pickle
  let pickleBytes: Int
  /// The bytes of each storage by its key.
  private let storages: [String: Data]

  init(_ file: Data) throws(PickleProblem) {
    if file.starts(with: [0x50, 0x4B]) { try self.init(archive: file) } else { try self.init(old: file) }
  }

  /// An archive has the entries `NAME/data.pkl`, `NAME/data/KEY` for each storage, and `NAME/byteorder`.
  private init(archive file: Data) throws(PickleProblem) {
    let entries = try StoredArchive(file).entries
    let pickles = entries.keys.filter { $0 == "data.pkl" || $0.hasSuffix("/data.pkl") }
    guard let name = pickles.first, pickles.count == 1, let bytes = entries[name] else {
      throw .malformed(pickles.isEmpty ? "its archive has no data.pkl" : "its archive has more than one data.pkl")
    }
    let folder = name.dropLast("data.pkl".count)
    guard entries[folder + "constants.pkl"] == nil else { throw .unsupported("it is a program (TorchScript), not a checkpoint") }
    guard entries[folder + "byteorder"].map({ $0 == Data("little".utf8) }) ?? true else {
      throw .unsupported("its numbers have their highest byte first")
    }
    var cursor = ByteCursor(bytes)
    pickle = try PickleReader.read(&cursor)
    pickleBytes = bytes.count
    let prefix = folder + "data/"
    var storages: [String: Data] = [:]
    for (name, bytes) in entries where name.hasPrefix(prefix) { storages[String(name.dropFirst(prefix.count))] = bytes }
    self.storages = storages
  }

  /// 0x1950A86A20F9469CFC6C, its lowest byte first.
  private static let magic = Data([0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19])

  /// A file before archives has five pickles (a number that marks it, a version, the machine, the tensors, the keys of the storages), then each
  /// storage behind its count.
  private init(old file: Data) throws(PickleProblem) {
    var cursor = ByteCursor(file)
    guard case .bytes(Self.magic) = try PickleReader.read(&cursor).root, case .number(1001) = try PickleReader.read(&cursor).root else {
      throw .malformed("it is a pickle that torch.save did not write")
    }
    let machine = try PickleReader.read(&cursor)
    if case .object(let place) = machine.root, case .dictionary(let facts) = machine.objects[place],
      case .truth(false) = facts.last(where: { $0.key.text == "little_endian" })?.value
    {
      throw .unsupported("its numbers have their highest byte first")
    }
    let begin = cursor.position
    pickle = try PickleReader.read(&cursor)
    pickleBytes = cursor.position - begin
    let keys = try PickleReader.read(&cursor)
    guard case .object(let place) = keys.root, case .list(let names) = keys.objects[place] else {
      throw .malformed("it does not say in which order its storages are")
    }
    let types = pickle.storageTypes
    var storages: [String: Data] = [:]
    for name in names {
      guard let key = name.text, let type = types[key], storages[key] == nil else {
        throw .malformed("it has a storage that nothing refers to")
      }
      let (bytes, overflow) = try cursor.number(8).multipliedReportingOverflow(by: UInt64(type.bytes))
      guard !overflow else { throw .malformed("it ends early") }
      storages[key] = try cursor.take(bytes)
    }
    self.storages = storages
  }

  /// A tensor in the file, or a copy where its elements do not follow one another.
  /// - Parameter room: how many bytes may still be copied.
  func stored(_ tensor: PickledTensor, room: inout Int, origin: WeightOrigin) throws(PickleProblem) -> StoredTensor {
    let shape = Shape(tensor.shape), width = tensor.type.bytes
    guard shape.count != Int.max, tensor.shape.count == tensor.strides.count else { throw .malformed("has no proper shape") }
    let storage = tensor.storage
    guard let bytes = storages[storage.key] else { throw .malformed("is in the storage \(storage.key), which is not there") }
    let (length, overflow) = storage.count.multipliedReportingOverflow(by: storage.type.bytes)
    guard !overflow, length == bytes.count else {
      throw .malformed("is in a storage that should have \(storage.count) elements and has \(bytes.count) bytes")
    }
    func made(_ data: Data, isMapped: Bool) -> StoredTensor {
      StoredTensor(shape: shape, elementType: tensor.type.name, data: data, origin: origin, isMapped: isMapped)
    }
    guard shape.count > 0 else { return made(Data(), isMapped: false) }
    let visible = bytes.dropFirst(storage.visible.lowerBound * storage.type.bytes).prefix(storage.visible.count * storage.type.bytes)
    guard let last = tensor.lastElement, last < visible.count / width else { throw .malformed("leaves its storage") }
    let view = visible.dropFirst(tensor.offset * width)
    if tensor.isContiguous { return made(view.prefix(shape.count * width), isMapped: true) }
    guard shape.count <= room / width else {
      throw .unsupported("it has tensors with the same elements many times, which take more memory than the file")
    }
    room -= shape.count * width
    // Along an axis of one element nothing is crossed, whatever its stride says.
    let strides = zip(tensor.shape, tensor.strides).map { $0 == 1 ? 0 : $1 }
    return made(view.gathered(shape: tensor.shape, strides: strides, elementBytes: width), isMapped: false)
  }
}

extension Pickle {
  /// The type of each storage by its key.
  fileprivate var storageTypes: [String: PyTorchType] {
    objects.reduce(into: [:]) { types, object in if case .storage(let storage) = object { types[storage.key] = storage.type } }
  }
}

extension PickledTensor {
  /// The place of the last element in the storage; nil where it is too large. No extent is 0.
  fileprivate var lastElement: Int? {
    var last = offset
    for (extent, stride) in zip(shape, strides) {
      let (distance, isTooFar) = (extent - 1).multipliedReportingOverflow(by: stride)
      let (sum, isTooLarge) = last.addingReportingOverflow(distance)
      guard !isTooFar, !isTooLarge else { return nil }
      last = sum
    }
    return last
  }

  /// Whether the elements follow one another.
  fileprivate var isContiguous: Bool {
    var expected = 1
    for (extent, stride) in zip(shape, strides).reversed() {
      guard extent == 1 || stride == expected else { return false }
      expected *= extent
    }
    return true
  }
}
