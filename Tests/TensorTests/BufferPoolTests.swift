import Tensor
import Testing

@Suite struct MemoryArenaTests {
  private let size = 64 << 20

  private func take(_ bytes: Int, from arena: inout MemoryArena) throws -> UnsafeMutableRawPointer {
    let place = arena.take(bytes)
    return try #require(place)
  }

  @Test func whatWasGivenBackServesAgain() throws {
    var arena = MemoryArena()
    #expect(arena.idleBytes == 0)
    let first = try take(size, from: &arena)
    for _ in 0..<3 {
      arena.giveBack(first, bytes: size)
      #expect(arena.idleBytes == size)
      #expect(try take(size, from: &arena) == first)
      #expect(arena.idleBytes == 0)
    }
    arena.giveBack(first, bytes: size)
    // A little less fits there too, and leaves the rest.
    #expect(try take(size - 8000, from: &arena) == first)
    #expect(arena.idleBytes == 4096)
    arena.giveBack(first, bytes: size - 8000)
    arena.release()
    #expect(arena.idleBytes == 0)
    #expect(try take(size, from: &arena) == first)
  }

  @Test func freedNeighboursBecomeOne() throws {
    var arena = MemoryArena()
    let pieces = try (0..<4).map { _ in try take(size, from: &arena) }
    #expect(Set(pieces).count == 4)
    arena.giveBack(pieces[2], bytes: size)
    arena.giveBack(pieces[1], bytes: size)
    #expect(arena.idleBytes == 2 * size)
    #expect(try take(2 * size, from: &arena) == min(pieces[1], pieces[2]))
    #expect(arena.idleBytes == 0)
  }

  /// Of two gaps the smaller one that is large enough.
  @Test func smallThingsLeaveLargeGapsWhole() throws {
    var arena = MemoryArena()
    let large = try take(2 * size, from: &arena), wall = try take(4096, from: &arena)
    let small = try take(size, from: &arena), end = try take(4096, from: &arena)
    arena.giveBack(large, bytes: 2 * size)
    arena.giveBack(small, bytes: size)
    #expect(try take(size / 2, from: &arena) == small)
    #expect(wall != end)
  }

  /// More than one reservation, which never become one.
  @Test func whatIsLargerThanAReservationIsThere() throws {
    var arena = MemoryArena()
    let small = try take(size, from: &arena), large = try take(5 << 30, from: &arena)
    (large + (5 << 30) - 1).storeBytes(of: 7, as: UInt8.self)
    arena.giveBack(small, bytes: size)
    arena.giveBack(large, bytes: 5 << 30)
    arena.release()
    #expect((large + (5 << 30) - 1).load(as: UInt8.self) == 0)
  }
}

@Suite struct BufferPoolTests {
  /// Nothing that lives shares a byte with anything else, whatever is given back between.
  @Test func tensorsKeepTheirValues() {
    let half = 4 << 20
    var pieces = (0..<4).map { Tensor(repeating: Float($0), shape: [half]) }
    pieces.removeSubrange(1...2)
    let whole = Tensor(repeating: 7, shape: [2 * half])
    // A copy shares the storage; the last one to go gives it back.
    var copy: Tensor? = whole.reshaped([4, half / 2])
    #expect(pieces[0].elements.allSatisfy { $0 == 0 } && pieces[1].elements.allSatisfy { $0 == 3 })
    #expect(whole.elements.allSatisfy { $0 == 7 } && copy?.shape[0] == 4)
    copy = nil
    pieces = []
    BufferPool.releaseIdle()
    #expect(whole.elements.allSatisfy { $0 == 7 })
  }
}
