import Foundation
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing

@Suite struct GGUFTests {
  private let folder = fixtures.appending(path: "weights")

  private func values(_ file: any TensorFile, _ name: String) throws -> Tensor {
    try file.tensor(name, shape: #require(file.tensors[name], "\(name)").shape).decoded()
  }

  /// What gguf-py wrote, bit by bit what it reads.
  @Test(.compares("GGUF: every type of block", in: .files, with: "gguf", unit: .equality)) func readsEveryType() throws {
    let file = try TensorFileFormat.open(folder.appending(path: "gguf-types.gguf"))
    let expected = try SafetensorsFile(folder.appending(path: "gguf-types.safetensors"))
    #expect(file is GGUFFile && file.names.count == 19)
    for name in file.names where name != "exact" {
      let (found, wanted) = try (values(file, name), values(expected, name))
      #expect(found.shape == wanted.shape)
      expectSame(found.elements, wanted.elements, name)
    }
    #expect(file.tensors["I32"]?.shape == [2, 3, 1, 5] && file.tensors["Q4_K"]?.elementType == "Q4_K")
    #expect(try file.tensor("Q4_K", shape: [3, 512]).isMapped)
    #expect(try values(file, "exact").elements == values(expected, "exact.Q4_0").elements)
  }

  @Test func readsItsDescription() throws {
    let metadata = try GGUFFile(folder.appending(path: "gguf-types.gguf")).metadata
    let expected = [
      "general.architecture": "test", "general.alignment": "64", "test.uint8": "200", "test.int8": "-100", "test.uint16": "60000",
      "test.int16": "-30000", "test.uint32": "4000000000", "test.int32": "-2000000000", "test.uint64": "18446744073709551615",
      "test.int64": "-9223372036854775808", "test.float32": "0.5", "test.float64": "-1e+300", "test.bool": "true",
      "test.string": "a line\nand 水彩画", "test.integers": "320,4,3,3", "test.strings": "[100 values]",
    ]
    #expect(metadata == expected)
  }

  /// The bytes that gguf-py makes.
  @Test func quantisesAsTheReference() throws {
    let file = try GGUFFile(folder.appending(path: "gguf-types.gguf"))
    let exact = try SafetensorsFile(folder.appending(path: "gguf-types.safetensors")).tensor("exact", shape: [6, 64])
    let stored = try file.tensor("exact", shape: [6, 64])
    #expect(try exact.converted(to: .q4).data == stored.data)
    #expect(try stored.converted(to: .float32).data == WeightTensor(stored.decoded()).data)
    #expect(throws: WeightConversionError.outOfRange(.q4)) { try WeightTensor(Tensor(repeating: 1e6, shape: [1, 32])).converted(to: .q4) }
  }

  /// ComfyUI-GGUF's rows of 256 get their shape back. Blocks that reach across rows are cut into their groups.
  @Test func tensorsInOtherRows() throws {
    let file = try GGUFFile(folder.appending(path: "gguf-comfy.gguf"))
    let expected = try SafetensorsFile(folder.appending(path: "gguf-comfy.safetensors"))
    #expect(file.metadata["general.architecture"] == "sd1")
    var kinds: Set<String> = []
    for name in expected.names where name.hasPrefix("weight.model.diffusion_model.") {
      let key = String(name.dropFirst("weight.model.diffusion_model.".count)), wanted = try values(expected, name)
      let tensor = try file.tensor(key, shape: wanted.shape)
      kinds.insert(tensor.elementType.name)
      #expect(tensor.decoded().elements == wanted.elements, "\(key)")
    }
    print(kinds.sorted())
    #expect(kinds.isSuperset(of: ["Q4_0", "Q5_0", "Q4_K/32", "Q3_K/16"]))
  }

  /// A vector in blocks becomes float32; a matrix whose groups reach across rows, half precision.
  @Test func tensorsThatBlocksDoNotFit() throws {
    let types = try GGUFFile(folder.appending(path: "gguf-types.gguf"))
    let stored = try #require(types.tensors["Q4_K"]), exact = try types.tensor("Q4_K", shape: [3, 512]).decoded()
    for (extents, type) in [([1536], NumberFormat.float32), ([128, 12], .float16), ([12, 8, 4, 4], nil)] as [([Int], NumberFormat?)] {
      let shape = Shape(extents)
      let tensor = StoredTensor(shape: shape, elementType: "Q4_K", data: stored.data, order: .tensor)
      let found = try WeightTable(["a": tensor]).tensor("a", shape: shape)
      #expect(type.map { found.elementType == $0 } ?? (found.elementType.name == "Q4_K/32"))
      #expect(try found.decoded().elements == WeightTensor(exact).converted(to: type ?? .float32).decoded().elements)
    }
    for (extents, data) in [([0, 32], Data()), ([3, 500], stored.data), ([3, 768], stored.data), ([2], stored.data)] {
      let shape = Shape(extents)
      let table = WeightTable(["a": StoredTensor(shape: shape, elementType: "Q4_K", data: data, order: .tensor)])
      #expect(throws: WeightError.self) { try table.tensor("a", shape: shape) }
    }
  }

  // MARK: damage

  /// A file of one tensor of 64 numbers.
  private struct Small {
    var version: UInt32 = 3
    var tensors: UInt64 = 1
    var values: UInt64 = 0
    var pairs = Data()
    var name = "a"
    var nameLength: UInt64?
    var rank: UInt32 = 2
    var extents: [UInt64] = [32, 2]
    var type: UInt32 = 0
    var offset: UInt64 = 0
    var more = Data()
    var contents = Data(count: 256)

    static func little<Number: FixedWidthInteger>(_ number: Number) -> Data { withUnsafeBytes(of: number.littleEndian) { Data($0) } }
    static func text(_ text: String, length: UInt64? = nil) -> Data { little(length ?? UInt64(text.utf8.count)) + Data(text.utf8) }
    static func pair(_ key: String, _ type: UInt32, _ value: Data) -> Data { text(key) + little(type) + value }

    func entry(_ name: String) -> Data {
      extents.reduce(Self.text(name, length: nameLength) + Self.little(rank)) { $0 + Self.little($1) } + Self.little(type)
        + Self.little(offset)
    }

    var data: Data {
      var data = Data("GGUF".utf8) + Self.little(version) + Self.little(tensors) + Self.little(values) + pairs + entry(name) + more
      data.append(Data(count: (32 - data.count % 32) % 32))
      return data + contents
    }
  }

  private func error(_ change: (inout Small) -> Void) throws -> String? {
    let folder = try TemporaryFolder()
    var file = Small()
    change(&file)
    do {
      _ = try GGUFFile(folder.write("x.gguf", file.data))
      return nil
    } catch {
      let text = "\(error)"
      #expect(text.contains("x.gguf") && text.hasSuffix(".") && text.count < 600)
      return text
    }
  }

  @Test func damagedFiles() throws {
    func expect(_ part: String?, line: Int = #line, _ change: (inout Small) -> Void) throws {
      let text = try error(change)
      #expect(part.map { text?.contains($0) ?? false } ?? (text == nil), "line \(line): \(text ?? "no error")")
    }
    try expect(nil) { _ in }
    try expect(nil) { $0.version = 2 }
    try expect("version 1,") { $0.version = 1 }
    try expect("big-endian") { $0.version = UInt32(3).byteSwapped }
    try expect("damaged header") { $0.tensors = .max }
    try expect("damaged header") { $0.values = .max }
    try expect("65536 bytes") { ($0.values, $0.pairs) = (1, Small.text("", length: 65536)) }
    try expect("more than the file has") { ($0.values, $0.pairs) = (1, Small.pair("k", 8, Small.text("", length: 1 << 62))) }
    try expect("k is a text of 18446744073709551615") { ($0.values, $0.pairs) = (1, Small.pair("k", 8, Small.text("", length: .max))) }
    try expect("no text in UTF-8") { ($0.values, $0.pairs) = (1, Small.pair("k", 8, Small.little(UInt64(1)) + Data([0xFF]))) }
    try expect("unknown type 13") { ($0.values, $0.pairs) = (1, Small.pair("k", 13, Data())) }
    try expect("k occurs twice") { ($0.values, $0.pairs) = (2, Small.pair("k", 0, Data([1])) + Small.pair("k", 0, Data([1]))) }
    for type: UInt32 in [0, 8, 9, 12] {
      for count in [UInt64.max, 1 << 61, 1 << 20] {
        let array = Small.little(type) + Small.little(count)
        try expect("damaged header") { ($0.values, $0.pairs) = (1, Small.pair("k", 9, array)) }
      }
    }
    let nested = (0..<5).reduce(Data()) { all, _ in all + Small.little(UInt32(9)) + Small.little(UInt64(1)) }
    try expect("arrays in arrays") { ($0.values, $0.pairs) = (1, Small.pair("k", 9, nested)) }
    for alignment: UInt32 in [0, 33, .max] {
      try expect("no power of two") { ($0.values, $0.pairs) = (1, Small.pair("general.alignment", 4, Small.little(alignment))) }
    }
    try expect("text of 4097 bytes") { $0.name = String(repeating: "n", count: 4097) }
    try expect("5 extents") { ($0.rank, $0.extents) = (5, [2, 2, 2, 2, 4]) }
    try expect("extents") { $0.rank = .max }
    try expect("is too large") { $0.extents = [.max, 1] }
    try expect("is too large") { $0.extents = [1 << 40, 1 << 40] }
    try expect("is too large") { $0.extents = [1 << 61, 1] }
    try expect("truncated") { $0.extents = [1 << 40, 1] }
    try expect("truncated") { $0.contents = Data(count: 255) }
    try expect("file has") { $0.contents = Data(count: 320) }
    try expect("IQ4_NL") { $0.type = 20 }
    try expect("type 77") { $0.type = 77 }
    try expect("no whole blocks of Q4_0") { ($0.type, $0.extents) = (2, [16, 4]) }
    try expect("where none is expected") { $0.offset = 32 }
    try expect("where none is expected") { $0.offset = 7 }
    try expect("beyond the end") { $0.offset = .max }
    try expect("where none is expected") { $0.offset = 1 << 62 }
    try expect("a occurs twice") { ($0.tensors, $0.more) = (2, $0.entry("a")) }
    try expect("overlaps another") { file in
      (file.tensors, file.offset) = (2, 0)
      var other = file
      other.offset = 128
      file.more = other.entry("b")
    }
    for shape: [UInt64] in [[], [64], [64, 2], [1 << 40, 1 << 40], [.max, 1]] {
      let array = shape.reduce(Small.little(UInt32(10)) + Small.little(UInt64(shape.count))) { $0 + Small.little($1) }
      try expect(shape == [64] ? nil : "comfy.gguf.orig_shape.a says") {
        ($0.values, $0.pairs) = (1, Small.pair("comfy.gguf.orig_shape.a", 9, array))
      }
    }
  }

  @Test func otherFiles() throws {
    let folder = try TemporaryFolder()
    for (contents, words) in [
      ("version https://git-lfs.github.com/spec/v1", "Git LFS"), ("<html>", "web page"), ("", "ends too early"),
      ("no tensors", "does not begin with GGUF"),
      ("GGUF", "ends too early"),
    ] {
      let file = try folder.write("x.gguf", contents)
      let error = #expect(throws: GGUFError.self) { try TensorFileFormat.open(file) }
      #expect(error?.description.contains(words) == true, "\(String(describing: error))")
    }
    #expect(throws: GGUFError.self) { try GGUFFile(folder.url.appending(path: "none.gguf")) }
    #expect(throws: GGUFError.self) { try GGUFFile(folder.url) }
  }

  /// A file cut anywhere, or with any byte of its header changed, is read or refused.
  @Test func cutAndChangedFiles() throws {
    let folder = try TemporaryFolder(), whole = try Data(contentsOf: self.folder.appending(path: "gguf-types.gguf"))
    var refused = 0
    func open(_ data: Data) throws {
      do {
        let file = try GGUFFile(folder.write("x.gguf", data))
        for (name, tensor) in file.tensors where tensor.shape.count < 1 << 20 { _ = try? file.tensor(name, shape: tensor.shape).decoded() }
      } catch is GGUFError {
        refused += 1
      }
    }
    for length in stride(from: 0, to: whole.count, by: 97) { try open(whole.prefix(length)) }
    #expect(refused == (whole.count + 96) / 97)
    refused = 0
    for place in stride(from: 0, to: 2200, by: 3) {
      var data = whole
      data[place] = data[place] ^ 0xFF
      try open(data)
    }
    #expect(refused > 300)
  }
}
