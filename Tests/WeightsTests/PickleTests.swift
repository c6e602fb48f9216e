import Foundation
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing

/// Pickles and archives that somebody made to do harm, or by mistake.
@Suite struct PickleTests {
  /// The bytes of a text whose characters are below 256.
  private static func bytes(_ text: String) -> Data { Data(text.unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) }) }

  private func error(_ file: Data) throws -> PyTorchFileError? {
    let folder = try TemporaryFolder()
    let url = try folder.write("x.pt", file)
    do {
      _ = try PyTorchFile(url)
      return nil
    } catch {
      #expect(error.description.hasPrefix(url.path) && error.description.hasSuffix(".") && !error.description.contains { $0.isNewline })
      return error
    }
  }

  private func error(pickle: String, storage: Data = Data(count: 16)) throws -> PyTorchFileError? {
    try error(Archive([("x/data.pkl", Self.bytes(pickle)), ("x/byteorder", Data("little".utf8)), ("x/data/0", storage)]).data)
  }

  /// A call in each way that a pickle can call, and the functions that such files have called.
  @Test(arguments: [
    ("cposix\nsystem\n(S'true'\ntR.", "posix.system"),
    ("\u{80}\u{4}\u{8C}\u{2}os\u{8C}\u{6}system\u{93}\u{8C}\u{4}true\u{85}R.", "os.system"),
    ("(S'true'\nios\nsystem\n.", "os.system"), ("(cos\nsystem\nS'true'\no.", "os.system"),
    ("\u{80}\u{2}csubprocess\nPopen\n(S'true'\nt\u{81}.", "subprocess.Popen"),
    ("\u{80}\u{4}csubprocess\nPopen\n)}\u{92}.", "subprocess.Popen"),
    ("c__builtin__\neval\n(S'1'\ntR.", "builtins.eval"), ("cbuiltins\nexec\n(S'1'\ntR.", "builtins.exec"),
    ("cbuiltins\ngetattr\n(cos\nsystem\nS'x'\ntR.", "builtins.getattr"), ("c__builtin__\n__import__\n(S'os'\ntR.", "builtins.__import__"),
    ("ctorch.storage\n_load_from_bytes\n(C\u{1}xtR.", "torch.storage._load_from_bytes"), ("ctorch.hub\nload\n(S'x'\ntR.", "torch.hub.load"),
    ("ccopy_reg\n_reconstructor\n(cos\nsystem\nNNtR.", "copy_reg._reconstructor"),
    ("cfunctools\npartial\n(cos\nsystem\ntR.", "functools.partial"),
    ("ctorch.nn.modules.linear\nLinear\n)\u{81}}b.", "torch.nn.modules.linear.Linear"), ("cbuiltins\nset.pop\n)R.", "builtins.set.pop"),
    ("(dS'a'\n(lccollections\ndeque\n)R0s.", "ccollections.deque".replacing("cc", with: "c")),
    ("ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_sparse_tensor\nN)NtR.", "torch._utils._rebuild_sparse_tensor"),
  ])
  func callsNothingElse(_ pickle: String, _ name: String) throws {
    let error = try error(pickle: pickle)
    guard case .forbidden(_, name) = error else {
      Issue.record("\(pickle): \(String(describing: error))")
      return
    }
  }

  /// Names that nobody calls are names.
  @Test(arguments: [
    "}cos\nsystem\nK\u{1}s.", "}S'a'\ncos\nsystem\ns.", "(lcos\nsystem\na.", "ccollections\ndefaultdict\n(cos\nsystem\ntR.",
  ])
  func namesAreNoCalls(_ pickle: String) throws { #expect(try error(pickle: pickle) == nil, "\(pickle)") }

  private static let storage = "(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\ntQ"

  private static func tensor(
    _ storage: String = storage, _ offset: String = "I0\n", _ shape: String = "(I4\nt", _ strides: String = "(I1\nt"
  ) -> String {
    "}S'a'\nctorch._utils\n_rebuild_tensor_v2\n(\(storage)\(offset)\(shape)\(strides)I00\nNtRs."
  }

  @Test func readsByHand() throws {
    #expect(try error(pickle: Self.tensor()) == nil)
    #expect(try error(pickle: Self.tensor(Self.storage, "I3\n", "(I1\nI1\nt", "(I9223372036854775807\nI9223372036854775807\nt")) == nil)
    #expect(try error(pickle: "}" + "V\\u00e9\\U0001F642\\\nS'\\x41\\n\\''\ns.") == nil)
  }

  private enum Kind { case malformed, unsupported, tensor }

  private static let bad: [(String, Kind)] = [
    // The stack, the memo, and what ends early.
    ("", .malformed), (".", .malformed), ("N", .malformed), ("0.", .malformed), ("1.", .malformed), ("2.", .malformed), ("(2.", .malformed),
    ("N(\u{85}.", .malformed), ("t.", .malformed), ("N\u{86}.", .malformed), ("a.", .malformed), ("Na.", .malformed), ("NNa.", .malformed),
    ("e.", .malformed), ("]N(e0e.", .malformed), ("}Ns.", .malformed), ("}NNNs.", .malformed), ("}(Nu.", .malformed), ("]NNs.", .malformed),
    ("}Na.", .malformed),
    ("(Nd.", .malformed), ("u.", .malformed), ("\u{90}.", .malformed), (")(N\u{90}.", .malformed), ("g0\n.", .malformed),
    ("h\u{1}.", .malformed),
    ("gx\n.", .malformed), ("g-1\n.", .malformed), ("p1\n.", .malformed), ("q\u{1}.", .malformed), ("\u{94}.", .malformed),
    ("j\u{FF}\u{FF}\u{FF}\u{FF}.", .malformed),
    ("R.", .malformed), ("NR.", .malformed), ("N)R.", .malformed), ("cos\nsystem\nNR.", .malformed), ("\u{81}.", .malformed),
    ("\u{92}.", .malformed),
    ("(o.", .malformed), ("b.", .malformed), ("Nb.", .malformed), ("NNb.", .malformed), ("cos\nsystem\nNb.", .malformed),
    ("]Nb.", .malformed),
    ("ios\n", .malformed), ("c\u{FF}\nx\n.", .malformed), ("NN\u{93}.", .malformed), ("cos", .malformed),
    // Numbers and text.
    ("Ix\n.", .malformed), ("Fx\n.", .malformed), ("F1", .malformed), ("S'a\n.", .malformed), ("S'\n.", .malformed),
    ("S'\\q'\n.", .malformed), ("S'\\x4'\n.", .malformed),
    ("V\\ud800\n.", .malformed), ("J\u{1}.", .malformed), ("\u{8A}\u{9}.", .malformed), ("\u{8B}\u{FF}\u{FF}\u{FF}\u{FF}.", .malformed),
    ("X\u{FF}\u{FF}\u{FF}\u{FF}.", .malformed), ("X\u{1}\u{0}\u{0}\u{0}\u{FF}.", .malformed), ("B\u{FF}\u{FF}\u{FF}\u{7F}.", .malformed),
    ("\u{8D}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}.", .malformed),
    ("\u{8E}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}\u{7F}.", .malformed),
    ("\u{96}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}.", .malformed),
    ("\u{95}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}\u{FF}.", .malformed),
    ("G\u{1}.", .malformed), ("U\u{9}.", .malformed), ("T\u{FF}\u{FF}\u{FF}\u{FF}.", .malformed), ("C\u{9}.", .malformed),
    ("\u{8C}\u{9}.", .malformed),
    // What torch.save does not write.
    ("\u{FF}.", .malformed), ("\u{80}\u{6}N.", .unsupported), ("\u{82}\u{1}.", .unsupported), ("\u{83}\u{1}\u{0}.", .unsupported),
    ("\u{84}\u{1}\u{0}\u{0}\u{0}.", .unsupported), ("\u{97}.", .unsupported), ("\u{98}.", .unsupported), ("Pstorage\n.", .unsupported),
    ("I1\nQ.", .malformed),
    ("(S'module'\ntQ.", .malformed), ("(S'storage'\nctorch\nQInt8Storage\nS'0'\nS'cpu'\nI4\ntQ.", .unsupported),
    ("(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI-4\ntQ.", .malformed),
    ("(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI4\n(S'1'\nI3\nI2\nttQ.", .malformed),
    ("cos\nsystem\n)(S'a'\nNd\u{92}.", .unsupported), ("ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN)NtR.", .malformed),
    ("ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nN)NtR.", .malformed),
    ("ctorch._utils\n_rebuild_parameter\n(NI00\nNtR.", .malformed), ("ctorch._utils\n_rebuild_tensor_v2\n)R.", .malformed),
    ("ctorch._utils\n_rebuild_tensor_v3\n(\(storage)I0\n(I4\nt(I1\ntI00\nNctorch\nint3\ntR.", .unsupported),
    ("ctorch.nn.modules.container\nParameterDict\n)\u{81}}b.", .malformed), ("ccollections\nOrderedDict\n((lNatR.", .malformed),
    // Tensors outside of their storages.
    (tensor("N"), .malformed), (tensor(storage, "I1\n"), .tensor), (tensor(storage, "I-1\n"), .malformed),
    (tensor(storage, "I0\n", "(I5\nt"), .tensor),
    (tensor(storage, "I9223372036854775807\n"), .tensor), (tensor(storage, "I0\n", "(I-4\nt"), .malformed),
    (tensor(storage, "I0\n", "(I2\nt", "(I4\nt"), .tensor),
    (tensor(storage, "I0\n", "(I2\nt", "(I9223372036854775807\nt"), .tensor), (tensor(storage, "I0\n", "(I2\nI2\nt"), .tensor),
    (tensor(storage, "I0\n", "(I9223372036854775807\nI2\nt", "(I0\nI0\nt"), .tensor),
    (tensor(storage, "I0\n", "(I1000000000000\nt", "(I0\nt"), .unsupported),
    (tensor(storage.replacing("I4", with: "I3")), .tensor), (tensor(storage.replacing("I4", with: "I9223372036854775807")), .tensor),
    (tensor(storage.replacing("'0'", with: "'../0'")), .tensor),
    (tensor(storage, "I0\n", "(" + String(repeating: "I1\n", count: 17) + "t"), .malformed),
    // Names.
    ("ctorch._utils\n_rebuild_tensor_v2\n(\(storage)I0\n(I4\nt(I1\ntI00\nNtR.", .unsupported),
    (tensor().replacing("'a'", with: "'__metadata__'"), .unsupported),
    ("})Ns.", .unsupported), (tensor().replacing("'a'", with: "'\(String(repeating: "a", count: 5000))'"), .unsupported),
    ("}S'a.b'\n" + tensor().dropFirst(5).dropLast(2) + "sS'a'\n}S'b'\n" + tensor().dropFirst(5).dropLast(2) + "ss.", .malformed),
  ]

  @Test(arguments: bad.indices) func refusesDamage(_ index: Int) throws {
    let (pickle, kind) = Self.bad[index]
    let error = try error(pickle: pickle)
    let found: Kind? =
      switch error {
      case .malformed: .malformed
      case .unsupported: .unsupported
      case .invalidTensor: .tensor
      default: nil
      }
    #expect(found == kind, "\(pickle): \(String(describing: error))")
  }

  /// Neither cycles nor objects that refer to one another many times take time or memory, nor does depth take the stack.
  @Test func boundsWhatIsNested() throws {
    let cycle = "}q\u{0}S'a'\nh\u{0}s."
    let doubled =
      "]q\u{0}"
      + (1...60).map {
        "](h\(Character(UnicodeScalar(UInt8($0 - 1))))h\(Character(UnicodeScalar(UInt8($0 - 1))))eq\(Character(UnicodeScalar(UInt8($0))))"
      }.joined() + "."
    let deep = String(repeating: "(", count: 100_000) + String(repeating: "l", count: 1) + "."
    let nested = String(repeating: "]", count: 100_000) + String(repeating: "a", count: 99_999) + "."
    let pairs =
      "(l" + "q\u{0}" + String(repeating: "NN\u{86}a", count: 10_000)
      + String(repeating: "0ccollections\nOrderedDict\nh\u{0}\u{85}R", count: 10_000) + "."
    for (pickle, words) in [(cycle, "nested"), (doubled, "nested"), (nested, "nested"), (pairs, "operations")] {
      let error = try error(pickle: pickle)
      #expect(error?.description.contains(words) == true, "\(pickle.prefix(40)): \(String(describing: error))")
    }
    #expect(try error(pickle: deep) == nil)
  }

  // MARK: archives

  private static let pickle = bytes(tensor())
  private static let entries = [("x/data.pkl", pickle), ("x/data/0", Data(count: 16))]

  @Test func readsArchives() throws {
    #expect(try error(Archive(Self.entries).data) == nil)
    #expect(try error(Archive(Self.entries, isWide: true).data) == nil)
    // torch.save fills the space before data with a field of its own.
    #expect(try error(Archive(Self.entries, padding: 64).data) == nil)
    #expect(try error(Archive(Self.entries, comment: Data("PK\u{5}\u{6}".utf8)).data) != nil)
    #expect(try error(Archive(Self.entries, comment: Data("made by hand".utf8)).data) == nil)
  }

  @Test func refusesOtherArchives() throws {
    func words(_ archive: Archive, _ words: String) throws {
      let error = try error(archive.data)
      #expect(error?.description.contains(words) == true, "\(words): \(String(describing: error))")
    }
    try words(Archive([("x/a", Data())]), "no data.pkl")
    try words(Archive(Self.entries + [("y/data.pkl", Self.pickle)]), "more than one data.pkl")
    try words(Archive(Self.entries + [("x/data/0", Data(count: 16))]), "twice")
    try words(Archive(Self.entries + [("x/constants.pkl", Data())]), "TorchScript")
    try words(Archive(Self.entries + [("x/byteorder", Data("big".utf8))]), "highest byte first")
    try words(Archive(Self.entries, method: 8), "compressed")
    try words(Archive(Self.entries, flags: 1), "encrypted")
    // A bomb: sizes that are not those in the file.
    try words(Archive(Self.entries, size: 1 << 31), "leaves the file")
    try words(Archive(Self.entries, isWide: true, size: 1 << 62), "leaves the file")
    try words(Archive(Self.entries, isWide: true, size: .max), "leaves the file")
    try words(Archive(Self.entries, size: 40), "leaves the file")
    try words(Archive(Self.entries, begin: 1 << 31), "where the directory says")
    try words(Archive(Self.entries, isWide: true, begin: .max), "where the directory says")
    try words(Archive(Self.entries, begin: 0), "shares bytes")
    try words(Archive(Self.entries, count: 1), "as many entries")
    try words(Archive(Self.entries, count: 3), "as many entries")
    try words(Archive(Self.entries, directory: 1 << 31), "outside of the file")
    try words(Archive(Self.entries, isWide: true, directory: .max), "outside of the file")
    try words(Archive(Self.entries, directory: 3), "directory of its archive")
  }
}

/// An archive of stored entries, as truthful as its maker wants. What is changed for an entry is changed for the last one.
private struct Archive {
  private(set) var data = Data()

  init(
    _ entries: [(name: String, contents: Data)], isWide: Bool = false, padding: Int = 0, comment: Data = Data(), method: UInt64 = 0,
    flags: UInt64 = 0,
    size: UInt64? = nil, begin: UInt64? = nil, count: UInt64? = nil, directory: UInt64? = nil
  ) {
    var records = Data()
    func put(_ value: UInt64, _ bytes: Int, to target: inout Data) {
      for byte in 0..<bytes { target.append(UInt8(truncatingIfNeeded: value >> (8 * UInt64(byte)))) }
    }
    for (index, (name, contents)) in entries.enumerated() {
      let isLast = index == entries.count - 1
      let place = isLast ? begin ?? UInt64(data.count) : UInt64(data.count)
      let length = isLast ? size ?? UInt64(contents.count) : UInt64(contents.count)
      put(0x0403_4B50, 4, to: &data)
      data.append(Data(count: 22))
      put(UInt64(name.utf8.count), 2, to: &data)
      put(UInt64(padding), 2, to: &data)
      data.append(Data(name.utf8) + Data(count: padding) + contents)
      put(0x0201_4B50, 4, to: &records)
      for value: UInt64 in [0, 0, isLast ? flags : 0, isLast ? method : 0, 0, 0, 0, 0] { put(value, 2, to: &records) }
      for _ in 0..<2 { put(isWide ? 0xFFFF_FFFF : length, 4, to: &records) }
      for value: UInt64 in [UInt64(name.utf8.count), isWide ? 28 + 5 : 0, 0, 0, 0, 0, 0] { put(value, 2, to: &records) }
      put(isWide ? 0xFFFF_FFFF : place, 4, to: &records)
      records.append(Data(name.utf8))
      // Another field stands before that of ZIP64.
      if isWide {
        for (value, bytes): (UInt64, Int) in [(7, 2), (1, 2), (0, 1), (1, 2), (24, 2), (length, 8), (length, 8), (place, 8)] {
          put(value, bytes, to: &records)
        }
      }
    }
    let (start, total) = (directory ?? UInt64(data.count), count ?? UInt64(entries.count))
    data.append(records)
    if isWide {
      let end = UInt64(data.count)
      for (value, bytes): (UInt64, Int) in [
        (0x0606_4B50, 4), (44, 8), (0, 4), (0, 8), (total, 8), (total, 8), (UInt64(records.count), 8), (start, 8),
      ] {
        put(value, bytes, to: &data)
      }
      for (value, bytes): (UInt64, Int) in [(0x0706_4B50, 4), (0, 4), (end, 8), (1, 4)] { put(value, bytes, to: &data) }
    }
    let (narrowStart, narrowSize): (UInt64, UInt64) = isWide ? (0xFFFF_FFFF, 0xFFFF_FFFF) : (start, UInt64(records.count))
    for (value, bytes): (UInt64, Int) in [
      (0x0605_4B50, 4), (0, 4), (total, 2), (total, 2), (narrowSize, 4), (narrowStart, 4), (UInt64(comment.count), 2),
    ] {
      put(value, bytes, to: &data)
    }
    data.append(comment)
  }
}
