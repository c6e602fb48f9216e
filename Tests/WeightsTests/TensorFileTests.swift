import Foundation
import LatentDiffusionTestSupport
import Tensor
import Testing
import LatentDiffusionWeights

/// A format of its own, written here and nowhere else: a line for each tensor, its name, its rows and its numbers.
private struct TextFile: TensorFile {
  struct Malformed: Error { let line: Substring }

  let url: URL
  let metadata: [String: String]
  let table: WeightTable

  static let format = TensorFileFormat("text") { _, beginning in
    beginning.starts(with: Data("tensors\n".utf8))
  } opened: {
    try Self($0)
  }

  init(_ url: URL) throws {
    var tensors: [String: StoredTensor] = [:]
    for line in try String(contentsOf: url, encoding: .utf8).split(separator: "\n").dropFirst() {
      let words = line.split(separator: " ")
      guard words.count > 2, let rows = Int(words[1]) else { throw Malformed(line: line) }
      let values = Tensor(words.dropFirst(2).compactMap { Float($0) })
      tensors[String(words[0])] = StoredTensor(
        shape: [rows, values.count / rows], elementType: NumberFormat.float32.name, data: WeightTensor(values).data, origin: .file(url))
    }
    (self.url, metadata, table) = (url, ["lines": String(tensors.count)], WeightTable(tensors))
  }
}

@Suite struct TensorFileTests {
  private let context = ExecutionContext(threads: 1)

  @Test func aNewFormatIsOneType() throws {
    let folder = try TemporaryFolder()
    let text = try folder.write("weights.txt", Data("tensors\na 2 1 2 3 4 5 6\nb 1 7 8\n".utf8))
    let binary = try folder.write("weights.safetensors", SafetensorsWriter.encode(["a": Tensor([1, 2])].mapValues { WeightTensor($0) }))
    let formats = [TextFile.format] + TensorFileFormat.all
    let file = try TensorFileFormat.open(text, as: formats)
    #expect(file is TextFile && file.names == ["a", "b"] && file.metadata["lines"] == "2" && file.parts.map(\.url) == [text])
    #expect(try file.tensor("a", shape: [2, 3]).decoded().elements == [1, 2, 3, 4, 5, 6])
    #expect(file.tensors["b"]?.shape == [1, 2] && file.origin(of: "b") == .file(text) && file.origin(of: "c") == .memory)
    let matrix = try LoadReport.load(from: file, in: context) { try $0.matrix("a", shape: [2, 3]) }.component
    #expect(matrix.label.origin == .file(text) && matrix.label.name == "a")
    #expect(try Tensor([1, 0, 1], shape: [1, 3]).multiplied(by: matrix.value, in: context).elements == [4, 10])
    let other = try TensorFileFormat.open(binary, as: formats)
    #expect(other is SafetensorsFile)
  }

  /// What nobody recognises is opened as safetensors, whose errors say what it is.
  @Test func othersAreSafetensors() throws {
    let folder = try TemporaryFolder()
    let text = try folder.write("weights.txt", Data("tensors\n".utf8))
    let page = try folder.write("weights.bin", Data("<!doctype html>".utf8))
    #expect(throws: SafetensorsError.self) { try TensorFileFormat.open(text) }
    let error = #expect(throws: SafetensorsError.self) { try TensorFileFormat.open(page) }
    #expect(error?.description.contains("a web page") == true)
    #expect(throws: SafetensorsError.self) { try TensorFileFormat.open(folder.url.appending(path: "none")) }
    let renamed = try folder.write("weights", SafetensorsWriter.encode(["a": WeightTensor(Tensor([1, 2]))]))
    #expect(try TensorFileFormat.open(renamed).names == ["a"])
  }
}
