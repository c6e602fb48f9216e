import Foundation
import Tensor
import LatentDiffusionTestSupport
import Testing
import LatentDiffusionWeights

@Suite struct QuantizedFileTests {
  private let quantised = fixtures.appending(path: "weights/quantised.safetensors")

  /// What is written is, byte for byte, what the reference implementation of the format wrote.
  @Test func writesWhatItReads() throws {
    let file = try SafetensorsFile(quantised)
    #expect(file.names.contains("matrix") && !file.names.contains("matrix.q8_0"))
    #expect(file.tensors["kernel"]?.elementType == "Q8_0" && file.tensors["kernel"]?.shape == [3, 64, 3, 3])
    let tensors = try file.tensors.reduce(into: [String: WeightTensor]()) { all, entry in
      all[entry.key] = try file.tensor(entry.key, shape: entry.value.shape)
    }
    let temporary = try TemporaryFolder()
    let url = temporary.url.appending(path: "x.safetensors")
    try SafetensorsWriter.write(tensors, metadata: file.metadata, to: url)
    #expect(try Data(contentsOf: url) == Data(contentsOf: quantised))
  }

  private func problem(_ header: String, _ count: Int) throws -> String? {
    let temporary = try TemporaryFolder()
    let url = try temporary.write("x.safetensors", rawSafetensors(header, data: Data(count: count)))
    do throws(SafetensorsError) {
      _ = try SafetensorsFile(url)
      return nil
    } catch {
      return error.description
    }
  }

  private static func entry(_ name: String, _ type: String, _ shape: String, _ begin: Int, _ end: Int) -> String {
    "\"\(name)\":{\"dtype\":\"\(type)\",\"shape\":[\(shape)],\"data_offsets\":[\(begin),\(end)]}"
  }

  /// (header, bytes of data, words of the error)
  static let damages: [(String, Int, String)] = [
    ("{\(entry("a.q8_0", "U8", "2,1,34", 0, 68))}", 67, "is truncated"),
    ("{\(entry("a.q8_0", "U8", "2,1,34", 0, 68))}", 0, "is truncated"),
    ("{\(entry("a.q8_0", "U8", "2,1,33", 0, 66))}", 66, "U8 of shape [2, 1, 33], which is not U8 with blocks"),
    ("{\(entry("a.q8_0", "U8", "2,34", 0, 68))}", 68, "U8 of shape [2, 34], which is not"),
    ("{\(entry("a.q8_0", "U8", "2,1,1,34", 0, 68))}", 68, "which is not U8"),
    ("{\(entry("a.q8_0", "U8", "68", 0, 68))}", 68, "which is not U8"),
    ("{\(entry("a.q8_0", "U8", "", 0, 1))}", 1, "which is not U8"),
    ("{\(entry("a.q8_0", "U8", "0,1,34", 0, 0))}", 0, "which is not U8"),
    ("{\(entry("a.q8_0", "U8", "2,0,34", 0, 0))}", 0, "which is not U8"),
    ("{\(entry("a.q8_0", "I8", "2,1,34", 0, 68))}", 68, "I8 of shape [2, 1, 34]"),
    ("{\(entry("a.q8_0", "F16", "2,1,17", 0, 68))}", 68, "F16 of shape"),
    ("{\(entry("a.q8_0", "U8", "0,288230376151711744,34", 0, 0))}", 0, "which is not U8"),
    ("{\(entry("a.q8_0", "U8", "2,1,34", 0, 68)),\(entry("a", "F32", "1", 68, 72))}", 72, "is there twice"),
    ("{\(entry("a.q4_1", "U8", "2,1,20", 0, 40))}", 40, "in the form q4_1, which is not supported"),
    ("{\(entry("a.q8_1", "U8", "2,1,36", 0, 72))}", 72, "in the form q8_1"),
    ("{\(entry("a.q6_K", "U8", "2,1,9", 0, 18))}", 18, "in the form q6_K"),
  ]

  @Test(arguments: damages.indices) func refusesDamage(_ index: Int) throws {
    let (header, count, words) = Self.damages[index]
    let sentence = try problem(header, count)
    #expect(sentence?.contains(words) == true, "\(header): \(sentence ?? "opened")")
  }

  @Test func acceptsNamesThatAreNoForms() throws {
    for name in ["a.q", "q8_0", "a.q_0", "a.q9_0", "a.to_q", "a.q8_0.weight", "a.q8"] {
      #expect(try problem("{\(Self.entry(name, "F32", "1", 0, 4))}", 4) == nil, "\(name)")
    }
  }

  @Test func refusesFilesCutAnywhere() throws {
    let tensor = try RandomWeights(seed: 1, elementType: .q8).tensor("a.weight", shape: [2, 32])
    let whole = SafetensorsWriter.encode(["a": tensor, "b": WeightTensor(Tensor([1]))])
    let temporary = try TemporaryFolder()
    for count in 0..<whole.count {
      let url = try temporary.write("x.safetensors", whole.prefix(count))
      #expect(throws: SafetensorsError.self, "cut to \(count) bytes") { try SafetensorsFile(url) }
    }
  }

  @Test func layersAreToldWhatIsWrong() throws {
    let good = try RandomWeights(seed: 1, elementType: .q8).tensor("a.weight", shape: [2, 64])
    var data = Data(good.data)
    // The scale of the third block: infinite.
    (data[68], data[69]) = (0x00, 0x7C)
    let source = WeightTable([
      "bad": StoredTensor(shape: [2, 64], elementType: "Q8_0", data: data),
      "good": StoredTensor(shape: [2, 64], elementType: "Q8_0", data: good.data),
      "short": StoredTensor(shape: [2, 64], elementType: "Q8_0", data: good.data.dropLast()),
      "vector": StoredTensor(shape: [136], elementType: "Q8_0", data: good.data),
      "bytes": StoredTensor(shape: [2, 2, 34], elementType: "F6_E2M3", data: good.data),
    ])
    let error = #expect(throws: WeightErrors.self) {
      try LoadReport.load(from: source, in: ExecutionContext(threads: 1)) { scope in
        let shapes: [(String, Shape)] = [
          ("bad", [2, 64]), ("good", [2, 64]), ("short", [2, 64]), ("vector", [136]), ("bytes", [2, 2, 34]), ("good", [2, 32]),
          ("none", [1]),
        ]
        return try shapes.map { try scope.tensor($0, shape: $1) }
      }
    }
    #expect(
      error?.problems == [
        .notFinite(name: "bad"), .wrongShape(name: "short", expected: [2, 64], found: [2, 64]),
        .wrongShape(name: "vector", expected: [136], found: [136]), .unsupportedElementType(name: "bytes", type: "F6_E2M3"),
        .wrongShape(name: "good", expected: [2, 32], found: [2, 64]), .missing(name: "none", similar: nil),
      ])
  }
}
