import Tensor
import Testing

/// One after the other: there is one pool for the process.
@Suite(.serialized) struct BufferPoolTests {
  /// 256 MiB, more than other tests have at once: what they do meanwhile does not matter.
  @Test func buffersAreUsedAgain() {
    let size = 256 << 20
    func use(_ values: Int = 64 << 20) { #expect(Tensor(repeating: 1, shape: [values]).elements.last == 1) }
    BufferPool.releaseIdle()
    #expect(BufferPool.idleBytes < size)
    for _ in 0..<5 {
      use()
      #expect((size..<2 * size).contains(BufferPool.idleBytes), "\(BufferPool.idleBytes)")
    }
    do {
      let held = Tensor(repeating: 0, shape: [64 << 20])
      #expect(BufferPool.idleBytes < size)
      // A copy shares the storage; the last one to go gives it back.
      let copy = held.reshaped([4, 16 << 20])
      #expect(copy.shape[0] == 4 && BufferPool.idleBytes < size)
    }
    // A shape a little smaller fits into the same buffer.
    use((64 << 20) - 1000)
    #expect((size..<2 * size).contains(BufferPool.idleBytes), "\(BufferPool.idleBytes)")
    BufferPool.releaseIdle()
    #expect(BufferPool.idleBytes < size)
  }

  /// What two neighbours leave serves what is as large as both, and nothing that lives shares a byte with anything else.
  @Test func freedNeighboursBecomeOne() {
    let half = 24 << 20
    BufferPool.releaseIdle()
    var pieces = (0..<4).map { Tensor(repeating: Float($0), shape: [half]) }
    let idle = BufferPool.idleBytes
    pieces.removeSubrange(1...2)
    #expect(BufferPool.idleBytes - idle >= 2 * half * 4 - (8 << 20))
    let whole = Tensor(repeating: 7, shape: [2 * half])
    // It took their place: what other tests hold meanwhile is far smaller.
    #expect(BufferPool.idleBytes - idle < half * 4)
    #expect(pieces[0].elements.allSatisfy { $0 == 0 } && pieces[1].elements.allSatisfy { $0 == 3 })
    #expect(whole.elements.allSatisfy { $0 == 7 })
    pieces = []
    BufferPool.releaseIdle()
    #expect(whole.elements.allSatisfy { $0 == 7 })
  }
}
