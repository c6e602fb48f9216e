import Foundation
import LatentDiffusion
import LatentDiffusionTestSupport
import Testing

/// A folder of Hugging Face's cache is the model in it.
@Suite struct HubCacheTests {
  private let context = ExecutionContext(threads: 1)

  private func cache(_ snapshots: [String], main: String?) throws -> (TemporaryFolder, URL) {
    let temporary = try TemporaryFolder()
    let folder = temporary.url.appending(path: "models--owner--name")
    let original = ReferenceModel("lcm").folder
    let blob = try temporary.write(
      "models--owner--name/blobs/0a", Data(contentsOf: original.appending(path: "vae/diffusion_pytorch_model.safetensors")))
    for snapshot in snapshots {
      let place = folder.appending(path: "snapshots/\(snapshot)")
      try FileManager.default.createDirectory(at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
      try FileManager.default.copyItem(at: original, to: place)
      let file = place.appending(path: "vae/diffusion_pytorch_model.safetensors")
      try FileManager.default.removeItem(at: file)
      try FileManager.default.createSymbolicLink(atPath: file.path, withDestinationPath: "../../../blobs/" + blob.lastPathComponent)
    }
    if let main { try temporary.write("models--owner--name/refs/main", main) }
    return (temporary, folder)
  }

  @Test(arguments: [(["aa"], nil), (["aa", "bb"], "bb"), (["aa"], "aa\n")] as [([String], String?)])
  func opensACache(_ snapshots: [String], _ main: String?) throws {
    let (temporary, folder) = try cache(snapshots, main: main)
    let found = try StableDiffusion.inspect(folder, in: context)
    let expected = try StableDiffusion.inspect(ReferenceModel("lcm").folder, in: context)
    #expect(found.components.map(\.problem) == expected.components.map(\.problem))
    #expect(found.parameters == expected.parameters && found.bytesOnDisk == expected.bytesOnDisk)
    withExtendedLifetime(temporary) {}
  }

  @Test(
    arguments: [
      (["aa", "bb"], nil, "give one of aa, bb"), ([], "aa", "aa, is not there"), (["aa"], "bb", "bb, is not there"),
      (["aa"], "../aa", "is not there"),
    ] as [([String], String?, String)])
  func refusesAHalfCache(_ snapshots: [String], _ main: String?, _ words: String) throws {
    let (temporary, folder) = try cache(snapshots, main: main)
    try FileManager.default.createDirectory(at: folder.appending(path: "snapshots"), withIntermediateDirectories: true)
    let error = #expect(throws: ModelFilesError.self) { try ModelFiles.open(folder) }
    #expect(error?.description.contains(words) == true, "\(String(describing: error))")
    withExtendedLifetime(temporary) {}
  }
}
