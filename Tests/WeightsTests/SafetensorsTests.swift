import LatentDiffusionFiles
import Foundation
import Tensor
import LatentDiffusionTestSupport
import Testing
import LatentDiffusionWeights

@Suite struct SafetensorsTests {
  private let folder = fixtures.appending(path: "weights")

  @Test func readsWhatTheReferenceWrote() throws {
    let file = try SafetensorsFile(folder.appending(path: "mixed.safetensors"))
    let expected = try JSONDecoder().decode([String: [Float]].self, from: Data(contentsOf: folder.appending(path: "mixed.json")))
    #expect(expected.count == 6)
    for (name, values) in expected {
      let shape = try #require(file.tensors[name]).shape
      let tensor = try file.tensor(name, shape: shape).decoded()
      #expect(tensor.elements == values, "\(name)")
    }
    #expect(file.metadata == ["format": "pt", "note": "line\nbreak, \"quotes\" and 🙂"])
    #expect(file.names.count == 8)
    #expect(file.tensors["position_ids"]?.shape == [1, 7])
    #expect(file.tensors["scalar"]?.shape == [])
    #expect(try file.tensor("position_ids", shape: [1, 7]).decoded().elements == [0, 1, 2, 3, 4, 5, 6])
    #expect(throws: WeightError.wrongShape(name: "f16", expected: [5, 3], found: [3, 5])) { try file.tensor("f16", shape: [5, 3]) }
    #expect(throws: WeightError.missing(name: "position_id", similar: "position_ids")) { try file.tensor("position_id", shape: [1]) }
    #expect(throws: WeightError.missing(name: "unet", similar: nil)) { try file.tensor("unet", shape: [1]) }
  }

  @Test func readsItsOwnWriting() throws {
    let folder = try TemporaryFolder()
    let url = folder.url.appending(path: "ours.safetensors")
    let latents = Tensor((0..<24).map { Float($0) / 7 }, shape: [1, 4, 2, 3])
    let name = "a \"b\" \\ \u{1} ü 🙂"
    try SafetensorsWriter.write([name: latents, "one": Tensor([3])], metadata: ["prompt": "x\ny"], to: url)
    let file = try SafetensorsFile(url)
    #expect(try file.tensor(name, shape: [1, 4, 2, 3]).decoded().elements == latents.elements)
    #expect(try file.tensor("one", shape: [1]).decoded().elements == [3])
    #expect(file.metadata == ["prompt": "x\ny"])

    let half = try SafetensorsFile(fixtures.appending(path: "weights/mixed.safetensors")).tensor("f16", shape: [3, 5])
    try SafetensorsWriter.write(["one": WeightTensor(Tensor([1])), "half": half], to: url)
    #expect(try SafetensorsFile(url).tensor("half", shape: [3, 5]).data == half.data)
    #expect(throws: FileWriteError.self) {
      try SafetensorsWriter.write(["one": Tensor([1])], to: folder.url.appending(path: "none/x.safetensors"))
    }
  }

  @Test func readsEmptyFiles() throws {
    let folder = try TemporaryFolder()
    #expect(try SafetensorsFile(folder.write("a", rawSafetensors("{}", data: Data()))).names.isEmpty)
    #expect(try SafetensorsFile(folder.write("b", rawSafetensors("{}   \n", data: Data()))).names.isEmpty)
  }

  /// What each kind of damage is called.
  enum Damage: Equatable { case tooShort, headerTooLong, header, type, tensor, length }

  private func damage(_ data: Data) throws -> Damage? {
    let folder = try TemporaryFolder()
    let url = try folder.write("x.safetensors", data)
    do {
      _ = try SafetensorsFile(url)
      return nil
    } catch {
      #expect(error.description.hasSuffix(".") && !error.description.contains { $0.isNewline }, "\(error)")
      switch error {
      case .tooShort: return .tooShort
      case .headerTooLong: return .headerTooLong
      case .malformedHeader: return .header
      case .unknownElementType: return .type
      case .invalidTensor: return .tensor
      case .wrongLength: return .length
      default: return nil
      }
    }
  }

  private static func entry(_ name: String, _ type: String = "F32", _ shape: String = "[2]", _ offsets: String = "[0,8]") -> String {
    "\"\(name)\":{\"dtype\":\"\(type)\",\"shape\":\(shape),\"data_offsets\":\(offsets)}"
  }

  private static let bad: [(String, Int, Damage)] = [
    ("[]", 0, .header), ("", 0, .header), ("7", 0, .header), ("{", 0, .header), ("{}x", 0, .header), ("{\"a\"}", 0, .header),
    ("{\"a\":1}", 0, .header), ("{\"a\":{}}", 0, .header), ("{\(entry("a")),}", 8, .header), ("{\(entry("a"))", 8, .header),
    ("{\(entry("a")),\(entry("a"))}", 8, .header), ("\u{B}{\(entry("a"))}", 8, .header),
    ("{\(entry("a", "F32", "[2]", "[0,8],\"x\":NaN"))}", 8, .header),
    ("{\(entry("a", "F32", "[2]", "[0,8],\"x\":01"))}", 8, .header), ("{\(entry("a", "F32", "[2]", "[0,8],\"x\":1e400"))}", 8, .header),
    ("{\(entry("a", "F32", "[2]", "[0,8],\"x\":tru"))}", 8, .header), ("{\"__metadata__\":nul}", 0, .header),
    ("{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, .header),
    ("{\"__metadata__\":{\"a\":1}}", 0, .header),
    ("{\"__metadata__\":{},\"__metadata__\":{}}", 0, .header),
    ("{\"a\":{\"x\":" + String(repeating: "[", count: 100_000), 0, .header),
    (String(repeating: "{\"a\":", count: 100_000), 0, .header),
    ("{\(entry(String(repeating: "a.", count: 10_000)))}", 8, .header), ("{\(entry("\u{1}"))}", 8, .header),
    ("{\(entry("\\ud800"))}", 8, .header), ("{\(entry("\\q"))}", 8, .header),
    ("{\(entry("\\u12"))}", 8, .header), ("{\"a", 0, .header),
    ("{\(entry("a", "F32", "[-1]"))}", 8, .header), ("{\(entry("a", "F32", "[2.0]"))}", 8, .header),
    ("{\(entry("a", "F32", "[1e308]"))}", 8, .header), ("{\(entry("a", "F32", "[02]"))}", 8, .header),
    ("{\(entry("a", "F32", "[\"2\"]"))}", 8, .header), ("{\(entry("a", "F32", "[99999999999999999999]"))}", 8, .header),
    ("{\(entry("a", "F32", "[2]", "[0]"))}", 8, .header), ("{\(entry("a", "F32", "[2]", "[0,8,8]"))}", 8, .header),
    ("{\(entry("a", "F32", "[2]", "[-8,0]"))}", 8, .header), ("{\(entry("a", "F32", "[2]", "[0,18446744073709551616]"))}", 8, .header),
    ("{\(entry("a", "F33"))}", 8, .type), ("{\(entry("a", ""))}", 8, .type),
    ("{\(entry("a", "F32", "[4611686018427387904,4]"))}", 8, .tensor), ("{\(entry("a", "F32", "[9223372036854775807]"))}", 8, .tensor),
    ("{\(entry("a", "F32", "[2305843009213693952]"))}", 8, .tensor), ("{\(entry("a", "F32", "[3]"))}", 8, .tensor),
    ("{\(entry("a", "F16"))}", 8, .tensor), ("{\(entry("a", "F32", "[2]", "[8,0]"))}", 8, .tensor),
    ("{\(entry("a", "F32", "[2]", "[4,12]"))}", 12, .tensor), ("{\(entry("a")),\(entry("b"))}", 8, .tensor),
    ("{\(entry("a")),\(entry("b", "F32", "[2]", "[4,12]"))}", 12, .tensor),
    ("{\(entry("a")),\(entry("b", "F32", "[2]", "[12,20]"))}", 20, .tensor), ("{\(entry("a", "F4", "[3]", "[0,1]"))}", 1, .tensor),
    ("{\(entry("a"))}", 7, .length), ("{\(entry("a"))}", 9, .length), ("{\(entry("a"))}", 0, .length), ("{}", 1, .length),
    ("{\(entry("a", "F32", "[2305843009213693951]", "[0,9223372036854775804]"))}", 8, .tensor),
    ("{\(entry("a", "U8", "[9223372036854775806]", "[0,9223372036854775806]"))}", 8, .tensor),
    ("{\(entry("a", "U8", "[1000000000000000]", "[0,1000000000000000]"))}", 8, .length),
  ]

  /// What the reference implementation accepts, too: white space in front, no metadata, a metadata key twice, anything that is JSON in unknown keys.
  @Test(arguments: [
    " \n\t\r{\(entry("a"))}", "{\"__metadata__\":null,\(entry("a"))}", "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"},\(entry("a"))}",
    "{\(entry("a", "F32", "[2]", "[0,8],\"x\":[-0.5e-3,true,null,{\"y\":\"z\"}]"))}",
    "{\(entry("a", "F32", "[2]", "[0,8],\"x\":" + String(repeating: "[", count: 100) + String(repeating: "]", count: 100)))}  \n",
  ])
  func acceptsWhatTheReferenceAccepts(_ header: String) throws {
    let folder = try TemporaryFolder()
    let file = try SafetensorsFile(folder.write("x.safetensors", rawSafetensors(header, data: Data(count: 8))))
    #expect(file.names == ["a"] && (file.metadata.isEmpty || file.metadata == ["k": "2"]))
  }

  /// Every float of 8 bits, and whole numbers, truth values and doubles, become what PyTorch makes of them.
  @Test func convertsOtherTypesAsPyTorchDoes() throws {
    let file = try SafetensorsFile(folder.appending(path: "numbers.safetensors"))
    let names = file.names.filter { !$0.hasSuffix(".expected") }
    #expect(names.count == 15)
    for name in names {
      let shape = try #require(file.tensors[name]).shape
      let found = try file.tensor(name, shape: shape).decoded().elements
      let expected = try file.tensor(name + ".expected", shape: shape).decoded().elements
      #expect(found.count == expected.count)
      for (index, (a, b)) in zip(found, expected).enumerated() {
        #expect(a.isNaN && b.isNaN || a.bitPattern == b.bitPattern, "\(name) \(index): \(a), \(b)")
      }
    }
    let other = WeightTable(["a": StoredTensor(shape: [2], elementType: "F4", data: Data(count: 1))])
    #expect(throws: WeightError.unsupportedElementType(name: "a", type: "F4")) { try other.tensor("a", shape: [2]) }
    let short = WeightTable(["a": StoredTensor(shape: [2], elementType: "F64", data: Data(count: 15))])
    #expect(throws: WeightError.self) { try short.tensor("a", shape: [2]) }
  }

  @Test(arguments: bad.indices) func refusesDamage(_ index: Int) throws {
    let (header, count, expected) = Self.bad[index]
    #expect(try damage(rawSafetensors(header, data: Data(count: count))) == expected, "\(header.prefix(200))")
  }

  @Test func refusesFilesCutAnywhere() throws {
    let whole = SafetensorsWriter.encode(["a": WeightTensor(Tensor([1, 2])), "b": WeightTensor(Tensor([3]))], metadata: ["k": "v"])
    for count in 0..<whole.count { #expect(try damage(whole.prefix(count)) != nil, "cut to \(count) bytes") }
    #expect(try damage(whole) == nil)
  }

  @Test func refusesFalseHeaderLengths() throws {
    #expect(try damage(Data(count: 7)) == .tooShort)
    #expect(try damage(rawSafetensors("{}", data: Data(), length: 3)) == .headerTooLong)
    #expect(try damage(rawSafetensors("{}", data: Data(), length: .max)) == .headerTooLong)
    #expect(try damage(rawSafetensors("{}", data: Data(), length: 1 << 63)) == .headerTooLong)
    #expect(try damage(rawSafetensors("{}", data: Data(), length: 0)) == .header)
  }

  @Test func refusesStringsThatAreNoText() throws {
    var data = rawSafetensors("{\(Self.entry("abc"))}", data: Data(count: 8))
    data[data.startIndex + 11] = 0xFF
    #expect(try damage(data) == .header)
  }

  @Test func acceptsWhatTheReferenceAccepts() throws {
    let more = "{\"a\":{\"extra\":{\"x\":[1,-2.5e3,null,\"\\ud83d\\ude42\"]},\"shape\":[ 2 ],\"dtype\":\"F32\",\"data_offsets\":[0, 8]}}"
    #expect(try damage(rawSafetensors(more, data: Data(count: 8))) == nil)
    let empty = "{\(Self.entry("a")),\(Self.entry("b", "F32", "[0,9]", "[8,8]")),\(Self.entry("c", "U8", "[1]", "[8,9]"))}"
    #expect(try damage(rawSafetensors(empty, data: Data(count: 9))) == nil)
  }

  /// Whatever single bytes are changed, reading ends in a model or in an error, never in a trap.
  @Test(arguments: ["mixed", "sd2"]) func survivesChangedBytes(_ name: String) throws {
    let whole = try Data(contentsOf: folder.appending(path: "\(name).safetensors"))
    let header = whole.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
    let temporary = try TemporaryFolder()
    var state: UInt64 = 1
    func random(_ limit: Int) -> Int {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return Int(state >> 33) % limit
    }
    let telling = Array("{}[]\",:.0129\\eu-".utf8)
    var opened = 0
    for _ in 0..<300 {
      var changed = whole
      for _ in 0...random(3) { changed[random(8 + header)] = random(2) == 0 ? telling[random(telling.count)] : UInt8(random(256)) }
      let url = try temporary.write("x.safetensors", changed)
      guard let file = try? SafetensorsFile(url) else { continue }
      opened += 1
      for (key, stored) in file.tensors { _ = try? file.tensor(key, shape: stored.shape).decoded() }
      if let files = try? ModelFiles(url) { _ = InspectReport(files, family: "") }
    }
    #expect(opened > 0)
  }

  @Test func namesFilesThatCannotBeRead() throws {
    let folder = try TemporaryFolder()
    for url in [folder.url, folder.url.appending(path: "none"), folder.url.appending(path: "x\0y"), URL(filePath: "/dev/null")] {
      let error = #expect(throws: SafetensorsError.self) { try SafetensorsFile(url) }
      guard case .unreadable = error else {
        Issue.record("\(url): \(String(describing: error))")
        continue
      }
    }
  }
}

@Suite struct ShardTests {
  private static let index = "diffusion_pytorch_model.safetensors.index.json"

  @Test func joinsShards() throws {
    let unet = fixtures.appending(path: "models/sd2/unet")
    let sharded = try ShardedTensorFile(index: unet.appending(path: Self.index))
    #expect(sharded.shards.count == 3)
    let parts = try (1...3).map { try SafetensorsFile(unet.appending(path: "diffusion_pytorch_model-0000\($0)-of-00003.safetensors")) }
    #expect(sharded.names.count == parts.map(\.names.count).reduce(0, +))
    for part in parts {
      for (name, stored) in part.tensors { #expect(try sharded.tensor(name, shape: stored.shape).data == stored.data, "\(name)") }
    }
  }

  @Test(arguments: [
    ("{\"weight_map\":{\"a\":\"gone.safetensors\"}}", "gone.safetensors, which is not beside it"),
    ("{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "not the name of a file beside it"),
    ("{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "not the name of a file beside it"),
    ("{\"weight_map\":{\"a\":\"..\"}}", "not the name of a file beside it"),
    ("{\"weight_map\":{\"a\":\"\"}}", "not the name of a file beside it"),
    ("{\"weight_map\":{\"z\":\"one.safetensors\"}}", "The tensor z is not in"),
    ("{\"weight_map\":{\"a\":7}}", "no weight_map"), ("{}", "no weight_map"), ("[]", "no weight_map"), ("x", "no weight_map"),
    (String(repeating: "[", count: 100_000), "no weight_map"),
  ])
  func refusesBadIndices(_ json: String, _ expected: String) throws {
    let folder = try TemporaryFolder()
    try folder.write("one.safetensors", SafetensorsWriter.encode(["a": WeightTensor(Tensor([1]))]))
    let index = try folder.write(Self.index, json)
    let error = #expect(throws: SafetensorsError.self) { try ShardedTensorFile(index: index) }
    #expect(error?.description.contains(expected) == true, "\(String(describing: error))")
  }
}
