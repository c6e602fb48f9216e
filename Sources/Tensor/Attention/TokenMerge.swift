/// Merges similar tokens, so that each row's sequence becomes shorter, and undoes this.
///
/// Some tokens are destinations. Of the other tokens, the ones most similar to a destination are merged into it. A merged token is the mean of its
/// members. Undoing the merge gives each member the merged token's new value. Source: Bolya and Hoffman 2023 (arXiv:2303.17604),
/// `bipartite_soft_matching_random2d`.
public struct TokenMerge: Sendable {
  /// Tokens before merging.
  public let length: Int
  /// Tokens after merging.
  public let mergedLength: Int
  private let rows: Int
  /// `[rows][length]`: each token's place in the merged sequence.
  private let places: [Int32]
  /// `[rows][length]`: the tokens in the order of their places.
  private let members: [Int32]
  /// `[rows][mergedLength + 1]`: the index in a row's `members` at which each place's tokens begin.
  private let starts: [Int32]

  /// Finds the tokens to merge.
  ///
  /// - Parameters:
  ///   - tokens: `[N, L, C]`, compared by the cosine of the angle between them.
  ///   - destinations: indices of tokens, ascending; the same in every row.
  ///   - count: the number of tokens to merge; at most all that are no destinations.
  /// - Precondition: the indices are below L.
  /// - Throws: `CancellationError`.
  public init(_ tokens: Tensor, into destinations: [Int], count: Int, in context: ExecutionContext) throws {
    precondition(tokens.shape.rank == 3, "Tokens of shape \(tokens.shape).")
    (rows, length) = (tokens.shape[0], tokens.shape[1])
    var isDestination = [Bool](repeating: false, count: length)
    for index in destinations { isDestination[index] = true }
    let sources = (0..<length).filter { !isDestination[$0] }
    let merged = destinations.isEmpty ? 0 : min(max(count, 0), sources.count)
    mergedLength = length - merged
    var places = [Int32](repeating: 0, count: rows * length)
    for row in 0..<rows where length > 0 {
      let nearest = try Nearest(tokens, row: row, sources: sources, destinations: destinations, in: context)
      // The most similar come first, and equally similar ones in their order: Swift's sort need not be stable.
      let order = sources.indices.sorted { (-nearest.similarity[$0], $0) < (-nearest.similarity[$1], $1) }
      var isMerged = [Bool](repeating: false, count: sources.count)
      for source in order.prefix(merged) { isMerged[source] = true }
      let kept = sources.count - merged
      for (index, token) in destinations.enumerated() { places[row * length + token] = Int32(kept + index) }
      var next: Int32 = 0
      for (index, token) in sources.enumerated() {
        places[row * length + token] = isMerged[index] ? Int32(kept) + nearest.destination[index] : next
        if !isMerged[index] { next += 1 }
      }
    }
    self.places = places
    (starts, members) = Self.membership(places, rows: rows, length: length, mergedLength: mergedLength)
  }

  /// The tokens of each place, found by a counting sort.
  private static func membership(_ places: [Int32], rows: Int, length: Int, mergedLength: Int) -> (starts: [Int32], members: [Int32]) {
    var starts = [Int32](repeating: 0, count: rows * (mergedLength + 1))
    var members = [Int32](repeating: 0, count: rows * length)
    for row in 0..<rows {
      let (begin, first) = (row * (mergedLength + 1), row * length)
      for token in 0..<length { starts[begin + Int(places[first + token]) + 1] += 1 }
      for place in 0..<mergedLength { starts[begin + place + 1] += starts[begin + place] }
      var next = Array(starts[begin..<begin + mergedLength])
      for token in 0..<length {
        let place = Int(places[first + token])
        members[first + Int(next[place])] = Int32(token)
        next[place] += 1
      }
    }
    return (starts, members)
  }

  /// Tokens in a task.
  private static let blockTokens = 256

  /// `[N, L, C]` → `[N, mergedLength, C]`: the mean of each place's tokens.
  /// - Precondition: N and L are those of the tokens that the merge was made from.
  /// - Throws: `CancellationError`.
  public func merged(_ tokens: Tensor, in context: ExecutionContext) throws -> Tensor {
    precondition(tokens.shape.rank == 3 && tokens.shape[0] == rows && tokens.shape[1] == length, "\(tokens.shape) is not what is merged.")
    let channels = tokens.shape.columns
    let result = Tensor(uninitialized: [rows, mergedLength, channels])
    try forEachBlock(of: mergedLength, in: context) { row, places in
      for place in places {
        let members = members[range(ofPlace: place, row: row)]
        let target = result.mutablePointer + (row * mergedLength + place) * channels
        guard let first = members.first else { continue }
        target.update(from: tokens.pointer + (row * length + Int(first)) * channels, count: channels)
        guard members.count > 1 else { continue }
        for member in members.dropFirst() {
          let source = tokens.pointer + (row * length + Int(member)) * channels
          for channel in 0..<channels { target[channel] += source[channel] }
        }
        let share = 1 / Float(members.count)
        for channel in 0..<channels { target[channel] *= share }
      }
    }
    return result
  }

  /// `[N, mergedLength, C]` → `[N, L, C]`: each token becomes the value at its place plus `residual`.
  ///
  /// - Parameter residual: `[N, L, C]`.
  /// - Precondition: the shapes fit the merge.
  /// - Throws: `CancellationError`.
  public func unmerged(_ merged: Tensor, adding residual: Tensor, in context: ExecutionContext) throws -> Tensor {
    let channels = merged.shape.columns
    precondition(
      merged.shape == [rows, mergedLength, channels] && residual.shape == [rows, length, channels],
      "\(merged.shape) and \(residual.shape) are not what was merged.")
    let result = Tensor(uninitialized: residual.shape)
    try forEachBlock(of: length, in: context) { row, tokens in
      for token in tokens {
        let source = merged.pointer + (row * mergedLength + Int(places[row * length + token])) * channels
        let offset = (row * length + token) * channels
        let (target, other) = (result.mutablePointer + offset, residual.pointer + offset)
        for channel in 0..<channels { target[channel] = source[channel] + other[channel] }
      }
    }
    return result
  }

  private func range(ofPlace place: Int, row: Int) -> Range<Int> {
    let start = row * (mergedLength + 1) + place
    return row * length + Int(starts[start])..<row * length + Int(starts[start + 1])
  }

  private func forEachBlock(of count: Int, in context: ExecutionContext, _ body: (_ row: Int, _ range: Range<Int>) -> Void) throws {
    let blocks = (count + Self.blockTokens - 1) / Self.blockTokens
    try context.parallel(rows * blocks) { task in
      let begin = task % blocks * Self.blockTokens
      body(task / blocks, begin..<min(count, begin + Self.blockTokens))
    }
  }
}

/// For each source the most similar destination, and the cosine of the angle between the two.
private struct Nearest {
  let destination: [Int32]
  let similarity: [Float]

  /// Sources compared at once. All similarities together would take memory that grows with the square of the number of tokens.
  private static let blockSources = 1008

  init(_ tokens: Tensor, row: Int, sources: [Int], destinations: [Int], in context: ExecutionContext) throws {
    var destination = [Int32](repeating: 0, count: sources.count)
    var similarity = [Float](repeating: 0, count: sources.count)
    let lengths = try Self.directions(of: tokens, row: row, indices: destinations, in: context)
    let targets = try PackedMatrix(WeightTensor(lengths), in: context)
    for begin in stride(from: 0, to: destinations.isEmpty ? 0 : sources.count, by: Self.blockSources) {
      let block = begin..<min(sources.count, begin + Self.blockSources)
      let directions = try Self.directions(of: tokens, row: row, indices: Array(sources[block]), in: context)
      let scores = try directions.multiplied(by: targets, in: context)
      try destination.withUnsafeMutableBufferPointer { destination in
        try similarity.withUnsafeMutableBufferPointer { similarity in
          nonisolated(unsafe) let (destination, similarity) = (destination, similarity)
          try context.parallel(block.count) { index in
            let (place, best) = largest(scores.pointer + index * destinations.count, count: destinations.count)
            (destination[begin + index], similarity[begin + index]) = (Int32(place), best)
          }
        }
      }
    }
    (self.destination, self.similarity) = (destination, similarity)
  }

  /// The tokens at these indices, each divided by its length as a vector.
  private static func directions(of tokens: Tensor, row: Int, indices: [Int], in context: ExecutionContext) throws -> Tensor {
    let channels = tokens.shape.columns
    let result = Tensor(uninitialized: [indices.count, channels])
    let first = tokens.pointer + row * tokens.shape[1] * channels
    try context.parallel(indices.count) { index in
      let (source, target) = (first + indices[index] * channels, result.mutablePointer + index * channels)
      var sums = SIMD16<Float>.zero
      var channel = 0
      while channel + 16 <= channels {
        let values = UnsafeRawPointer(source + channel).loadUnaligned(as: SIMD16<Float>.self)
        sums += values * values
        channel += 16
      }
      var square = sums.sum()
      while channel < channels {
        square += source[channel] * source[channel]
        channel += 1
      }
      // A zero vector has similarity 0 to all others.
      let scale = square > 0 ? 1 / square.squareRoot() : 0
      for channel in 0..<channels { target[channel] = scale * source[channel] }
    }
    return result
  }
}

/// The largest value and its index; of equal values the first.
private func largest(_ values: UnsafePointer<Float>, count: Int) -> (index: Int, value: Float) {
  var (index, value) = (0, values[0])
  for i in 1..<max(count, 1) where values[i] > value { (index, value) = (i, values[i]) }
  return (index, value)
}
