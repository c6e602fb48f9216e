import Foundation
import LatentDiffusionTestSupport
import LatentDiffusionWeights
import Tensor
import Testing

/// Files that PyTorch wrote hold the tensors that it reads from them.
@Suite struct PyTorchFileTests {
  private let folder = fixtures.appending(path: "weights/pytorch")

  private func expectSame(_ file: any TensorFile, _ reference: any TensorFile, names: Set<String>? = nil) throws {
    for name in names ?? reference.names {
      let (found, expected) = (try #require(file.tensors[name], "\(name)"), try #require(reference.tensors[name]))
      #expect(found.shape == expected.shape && found.elementType == expected.elementType, "\(name)")
      #expect(found.data == expected.data, "\(name)")
    }
  }

  @Test func readsACheckpointOfTraining() throws {
    let reference = try SafetensorsFile(fixtures.appending(path: "weights/sd1.safetensors"))
    let file = try TensorFileFormat.open(folder.appending(path: "sd1.ckpt"))
    #expect(file is PyTorchFile && reference.names.count == 468)
    try expectSame(file, reference)
    let callback = "callbacks.pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"
    #expect(file.names.subtracting(reference.names) == ["\(callback).best_model_score", "optimizer_states.0.state.0.exp_avg"])
    #expect(try file.tensor("optimizer_states.0.state.0.exp_avg", shape: [2, 3]).decoded().elements == [0, 1, 2, 3, 4, 5])
    #expect(
      file.metadata == [
        "epoch": "3", "global_step": "875000", "pytorch-lightning_version": "1.4.2", "\(callback).monitor": "val/loss",
        "optimizer_states.0.state.0.step": "12", "optimizer_states.0.param_groups.0.lr": "0.0001",
      ])
    // What is contiguous stays in the file, and what is transposed does not.
    let mapped = file.tensors.values.filter(\.isMapped).count
    #expect((300..<450).contains(mapped), "\(mapped)")
    #expect(file.tensors.values.allSatisfy { $0.isMapped == (try? Data(contentsOf: file.url).range(of: $0.data) != nil) || !$0.isMapped })
  }

  @Test func readsTheOldFormat() throws {
    let reference = try SafetensorsFile(fixtures.appending(path: "models/lcm/vae/diffusion_pytorch_model.safetensors"))
    let file = try PyTorchFile(folder.appending(path: "lcm-vae.bin"))
    #expect(file.names == reference.names && file.tensors.values.filter { !$0.isMapped }.count == 1)
    try expectSame(file, reference)
  }

  @Test func readsEveryTypeAndStride() throws {
    let reference = try SafetensorsFile(folder.appending(path: "types.safetensors"))
    let file = try PyTorchFile(folder.appending(path: "types.pt"))
    #expect(file.names == reference.names && file.names.count == 29)
    try expectSame(file, reference)
    for name in ["shared.a", "shared.b", "float64"] { #expect(file.tensors[name]?.isMapped == true) }
  }

  @Test(arguments: 1...5) func readsEveryProtocol(_ version: Int) throws {
    let file = try PyTorchFile(folder.appending(path: "protocol-\(version).pt"))
    #expect(file.names == ["layers.0", "pair.0"])
    #expect(try file.tensor("layers.0", shape: [2]).decoded().elements == [1, 2])
    #expect(try file.tensor("pair.0", shape: [2]).decoded().elements == [3, 4])
    var expected = [
      "text": "a\nb\\ ü🙂", "number": "-7", "big": "\(1 << 40)", "minus": "\(-(1 << 35))", "half": "0.5", "yes": "true", "no": "false",
      "nested.deep.er": "x", "nested.deep.5": "6", "again.deep.er": "x", "again.deep.5": "6", "default.a": "b", "dtype": "torch.float16",
    ]
    // Protocol 1 has digits where the others have bytes.
    expected["huge"] = version == 1 ? "1208925819614629174706176" : nil
    #expect(file.metadata == expected)
  }

  @Test func readsAnEmbedding() throws {
    let file = try PyTorchFile(folder.appending(path: "embedding.pt"))
    #expect(try file.tensor("string_to_param.*", shape: [2, 4]).decoded().elements == [0, 1, 2, 3, 4, 5, 6, 7])
    #expect(file.names.count == 1 && file.metadata["string_to_token.*"] == "265" && file.metadata["step"] == "500")
    let error = #expect(throws: ModelFilesError.self) { try ModelFiles(file.url) }
    #expect(error?.description.contains("an embedding") == true)
  }

  /// The contents decide: what is safetensors is read as that, whatever its name, and a pickle by any name is one.
  @Test func contentsDecide() throws {
    let temporary = try TemporaryFolder()
    let renamed = try temporary.write("x.ckpt", SafetensorsWriter.encode(["a": WeightTensor(Tensor([1]))]))
    #expect(try TensorFileFormat.open(renamed) is SafetensorsFile)
    let pickle = try temporary.write("x.safetensors", Data(contentsOf: folder.appending(path: "types.pt")))
    #expect(try TensorFileFormat.open(pickle) is PyTorchFile)
    let pointer = try temporary.write("y.ckpt", "version https://git-lfs.github.com/spec/v1\n")
    #expect(try #require(throws: SafetensorsError.self) { try TensorFileFormat.open(pointer) }.description.contains("Git LFS"))
    let other = try temporary.write("z.ckpt", "Nothing.")
    #expect(throws: PyTorchFileError.self) { try TensorFileFormat.open(other) }
    #expect(throws: PyTorchFileError.self) { try PyTorchFile(temporary.url.appending(path: "none.pt")) }
  }

  @Test func joinsShards() throws {
    let temporary = try TemporaryFolder()
    for name in ["types.pt", "protocol-4.pt"] {
      try temporary.write("\(name).bin", Data(contentsOf: folder.appending(path: name)))
    }
    let map = "{\"weight_map\":{\"layers.0\":\"protocol-4.pt.bin\",\"float32\":\"types.pt.bin\"}}"
    let file = try TensorFileFormat.open(temporary.write("pytorch_model.bin.index.json", map))
    #expect(file.names.count == 31 && file.parts.count == 2)
  }

  // MARK: damage

  private static let small = ["types.pt", "embedding.pt", "protocol-1.pt", "protocol-4.pt", "lcm-vae.bin"]

  /// Reads everything that is left of a file, to see that nothing traps.
  @discardableResult private func use(_ data: Data, in temporary: TemporaryFolder) throws -> Bool {
    let url = try temporary.write("x.pt", data)
    do {
      let file = try PyTorchFile(url)
      for (name, stored) in file.tensors { _ = try? file.tensor(name, shape: stored.shape).decoded() }
      return true
    } catch {
      #expect(error.description.hasSuffix(".") && !error.description.contains { $0.isNewline }, "\(error)")
      return false
    }
  }

  @Test(arguments: small) func refusesFilesCutAnywhere(_ name: String) throws {
    let temporary = try TemporaryFolder()
    let whole = Data([UInt8](try Data(contentsOf: folder.appending(path: name))))
    for count in stride(from: 0, to: whole.count, by: 97) { #expect(try !use(whole.prefix(count), in: temporary), "cut to \(count) bytes") }
    #expect(try use(whole, in: temporary))
  }

  @Test(arguments: small) func survivesChangedBytes(_ name: String) throws {
    let temporary = try TemporaryFolder()
    let whole = Data([UInt8](try Data(contentsOf: folder.appending(path: name))))
    var random = Numbers(seed: 5)
    var opened = 0
    for _ in 0..<200 {
      var changed = whole
      for _ in 0...Int.random(in: 0...2, using: &random) {
        changed[Int.random(in: 0..<min(whole.count, 9000), using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      opened += try use(changed, in: temporary) ? 1 : 0
    }
    #expect((1..<200).contains(opened), "\(opened)")
  }
}
