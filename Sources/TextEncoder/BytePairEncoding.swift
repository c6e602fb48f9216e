/// Byte-pair encoding of one word (Sennrich, Haddow and Birch 2016) over bytes, with `</w>` at a word's last one.
struct BytePairEncoding: Sendable {
  /// The most merges whose ranks fit in a queue's key.
  private static let maximumMerges = 1 << 24

  /// The identifiers of the 256 bytes inside a word, and at its end.
  private let inner, last: [UInt32]
  /// The rank at which two neighbours are merged: the lower, the earlier.
  private var merges: [UInt64: Int] = [:]
  /// The merged tokens, by rank.
  private var results: [UInt32] = []

  /// - Parameter unknown: the token for bytes that the vocabulary lacks.
  /// - Throws: `TokenizerError` if a merge names a token outside of the vocabulary, or the vocabulary lacks a byte and `unknown`.
  init(vocabulary: [Spelling: UInt32], merges pairs: [MergeRule], unknown: Spelling) throws(TokenizerError) {
    func identifier(_ byte: UInt8, _ suffix: Spelling) throws(TokenizerError) -> UInt32 {
      let spelling = ByteAlphabet.spelling(of: byte) + suffix
      guard let identifier = vocabulary[spelling] ?? vocabulary[unknown] else {
        throw .invalidVocabulary(
          reason: "it has no entry \"\(spelling.text)\" for the byte \(byte), nor the unknown token \"\(unknown.text)\"")
      }
      return identifier
    }
    var inner: [UInt32] = []
    var last: [UInt32] = []
    for byte in UInt8.min...UInt8.max {
      inner.append(try identifier(byte, []))
      last.append(try identifier(byte, ByteAlphabet.endOfWord))
    }
    self.inner = inner
    self.last = last
    guard pairs.count <= Self.maximumMerges else {
      throw .invalidMerges(line: Self.maximumMerges, reason: "more merges than \(Self.maximumMerges) are not supported")
    }
    results.reserveCapacity(pairs.count)
    merges.reserveCapacity(pairs.count)
    for (rank, pair) in pairs.enumerated() {
      func identifier(_ spelling: Spelling) throws(TokenizerError) -> UInt32 {
        guard let identifier = vocabulary[spelling] else {
          throw .invalidMerges(line: pair.line, reason: "\"\(spelling.text)\" is not in the vocabulary")
        }
        return identifier
      }
      let key = Self.key(try identifier(pair.left), try identifier(pair.right))
      results.append(try identifier(pair.left + pair.right))
      merges[key] = rank
    }
  }

  private static func key(_ left: UInt32, _ right: UInt32) -> UInt64 {
    UInt64(left) << 32 | UInt64(right)
  }

  /// Appends the tokens of a word of UTF-8 bytes, in O(n log n), because a word may be megabytes long.
  func encode(_ bytes: [UInt8], into tokens: inout [Int]) {
    guard let final = bytes.last else { return }
    var symbols = bytes.indices.map { Symbol(token: inner[Int(bytes[$0])], previous: $0 - 1, next: $0 + 1) }
    symbols[symbols.count - 1].token = last[Int(final)]

    var queue = MergeQueue()
    for left in symbols.indices.dropLast() { propose(left, in: symbols, to: &queue) }
    while let (proposed, left) = queue.pop() {
      let right = symbols[left].next
      // The proposed pair may be gone, because another merge has taken one of its tokens.
      guard !symbols[left].isMerged, right < symbols.count,
        let rank = merges[Self.key(symbols[left].token, symbols[right].token)], results[rank] == results[proposed]
      else { continue }
      let next = symbols[right].next
      symbols[left].token = results[rank]
      symbols[left].next = next
      symbols[right].isMerged = true
      if next < symbols.count {
        symbols[next].previous = left
        propose(left, in: symbols, to: &queue)
      }
      if symbols[left].previous >= 0 { propose(symbols[left].previous, in: symbols, to: &queue) }
    }
    for symbol in symbols where !symbol.isMerged { tokens.append(Int(symbol.token)) }
  }

  private func propose(_ left: Int, in symbols: [Symbol], to queue: inout MergeQueue) {
    guard let rank = merges[Self.key(symbols[left].token, symbols[symbols[left].next].token)] else { return }
    queue.push(rank: rank, position: left)
  }
}

/// A line of `merges.txt`.
struct MergeRule {
  let left, right: Spelling
  let line: Int
}

extension Spelling {
  var text: String { String(decoding: self, as: UTF8.self) }
}

/// A node of the linked list of a word's parts during merging.
private struct Symbol {
  var token: UInt32
  var previous, next: Int
  /// Whether it has become a part of the symbol before it.
  var isMerged = false
}

/// The possible merges, lowest rank first, then leftmost: a heap whose nodes have four children, for words of megabytes.
private struct MergeQueue {
  private static let positionBits = 40

  /// Rank and position in one word.
  private var heap: [UInt64] = []

  mutating func push(rank: Int, position: Int) {
    let key = UInt64(truncatingIfNeeded: rank) << Self.positionBits | UInt64(truncatingIfNeeded: position)
    var index = heap.count
    heap.append(key)
    while index > 0, key < heap[(index - 1) / 4] {
      heap[index] = heap[(index - 1) / 4]
      index = (index - 1) / 4
    }
    heap[index] = key
  }

  mutating func pop() -> (rank: Int, position: Int)? {
    guard let first = heap.first, let moved = heap.popLast() else { return nil }
    var index = 0
    while 4 * index + 1 < heap.count {
      var child = 4 * index + 1
      for other in child + 1..<min(child + 4, heap.count) where heap[other] < heap[child] { child = other }
      guard heap[child] < moved else { break }
      heap[index] = heap[child]
      index = child
    }
    if !heap.isEmpty { heap[index] = moved }
    return (Int(first >> Self.positionBits), Int(first & (1 << Self.positionBits - 1)))
  }
}
