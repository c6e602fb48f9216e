import Foundation
import LatentDiffusionFiles
import Testing

@Suite struct ContentHashTests {
  @Test func filesAreToldApartByTheirContents() throws {
    let folder = try Scratch()
    let large = Data((0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 11) })
    let first = folder.file("a.bin"), second = folder.file("b.bin")
    for file in [first, second] { try large.write(to: file) }
    let hash = try ContentHash(sampling: [first])
    #expect(try ContentHash(sampling: [second]) == hash)
    #expect(try ContentHash(sampling: [first, second]) != hash)
    for change in [0, 2_999_999] {
      var changed = large
      changed[change] ^= 1
      try changed.write(to: second)
      #expect(try ContentHash(sampling: [second]) != hash)
    }
    try (large + [0]).write(to: second)
    #expect(try ContentHash(sampling: [second]) != hash)
    for length in [0, 1, 4095, 4096, 4097, 300_000] {
      try large.prefix(length).write(to: folder.file("c.bin"))
      #expect(try ContentHash(sampling: [folder.file("c.bin")]).description.count == 16)
    }
    #expect(throws: FileReadError.missing(path: folder.file("none").path(percentEncoded: false))) {
      try ContentHash(sampling: [folder.file("none")])
    }
    #expect(try JSONDecoder().decode([ContentHash].self, from: JSONEncoder().encode([hash])) == [hash])
    // The published value of FNV-1a for "foobar".
    var known = ContentHash()
    known.add("foobar".utf8)
    #expect(known.description == "85944171f73967e8")
  }

  /// Words are added as a whole: what differs in one bit differs.
  @Test func wordsAreToldApart() {
    func hash(_ words: [UInt32]) -> ContentHash {
      var hash = ContentHash()
      hash.add(words: words)
      return hash
    }
    #expect(hash([1, 2, 3]) == hash([1, 2, 3]))
    for bit in 0..<32 { #expect(hash([1, 2 ^ (1 << bit), 3]) != hash([1, 2, 3])) }
    #expect(hash([2, 1, 3]) != hash([1, 2, 3]))
  }
}
