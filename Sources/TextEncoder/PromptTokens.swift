import LatentDiffusionComponents

/// The tokens of a prompt as a text encoder is given them: in chunks, each of which it reads by itself.
public struct PromptTokens: Sendable, Equatable {
  /// As many tokens as the text encoder reads at once, with the begin, the end and padding.
  public struct Chunk: Sendable, Equatable {
    /// The identifiers.
    public let tokens: [Int]
    /// How much each token counts: 1 for all that is not of the prompt.
    public let weights: [Double]
    /// Those of the prompt itself.
    public let content: Range<Int>
    /// Those of texts that count less than 1, each in one range: compel encodes a chunk once more without each. Of other profiles none.
    public let lessened: [Range<Int>]

    init(tokens: [Int], weights: [Double], content: Range<Int>, lessened: [Range<Int>] = []) {
      (self.tokens, self.weights, self.content, self.lessened) = (tokens, weights, content, lessened)
    }

    /// Whether a token has a weight.
    var isWeighted: Bool { weights.contains { $0 != 1 } }
  }

  /// What stands beside others.
  public struct Place: Sendable, Equatable {
    /// What each of its chunks counts, which are blended; one of 1 where there is nothing to blend.
    public let shares: [Double]
    /// How far its states are from those of an empty text; 1 is where they are.
    public let weight: Double
  }

  /// In their order, at least one.
  public let chunks: [Chunk]
  /// Tokens that are left out, since there is no room for them.
  public let dropped: [Int]
  /// The chunks side by side. Only compel blends some and weighs others.
  public let places: [Place]
  /// The tokens that the pooled state is of: the first chunk's, or of compel's the whole text's with its marks.
  public let pooled: [Int]

  init(chunks: [Chunk], dropped: [Int], places: [Place]? = nil, pooled: [Int]? = nil) {
    (self.chunks, self.dropped) = (chunks, dropped)
    self.places = places ?? chunks.map { _ in Place(shares: [1], weight: 1) }
    self.pooled = pooled ?? chunks.first?.tokens ?? []
  }

  /// Tokens of the whole prompt, without begins, ends and padding.
  public var count: Int { kept + dropped.count }
  /// Tokens that are read.
  var kept: Int { chunks.reduce(0) { $0 + $1.content.count } }

  /// The most chunks that are read of a prompt.
  public static let mostChunks = 100
}

/// A word of a prompt, as people see it.
public struct PromptWord: Sendable, Equatable {
  /// What its tokens say.
  public let text: String
  /// At least one.
  public let tokens: [Int]
  /// Of all.
  public let weight: Double
  /// From 0; nil where the word is left out.
  public let chunk: Int?
}

extension CLIPTokenizer {
  /// The words of a prompt in their order, then those that are left out. Where a chunk ends, a word does, too.
  public func words(of tokens: PromptTokens) -> [PromptWord] {
    var words: [PromptWord] = []
    func cut(_ tokens: ArraySlice<Int>, _ weights: ArraySlice<Double>, chunk: Int?) {
      var start = tokens.startIndex
      for place in tokens.indices {
        let isLast = place + 1 == tokens.endIndex || weights[place + 1] != weights[place] || endsWord(tokens[place])
        guard isLast else { continue }
        let own = Array(tokens[start...place])
        words.append(PromptWord(text: decode(own), tokens: own, weight: weights[place], chunk: chunk))
        start = place + 1
      }
    }
    for (index, chunk) in tokens.chunks.enumerated() { cut(chunk.tokens[chunk.content], chunk.weights[chunk.content], chunk: index) }
    cut(tokens.dropped[...], Array(repeating: 1, count: tokens.dropped.count)[...], chunk: nil)
    return words
  }

  /// Cuts a prompt into tokens, weighs them and puts them into chunks, as the program does whose profile it has.
  ///
  /// diffusers reads one chunk. The webui ends a chunk at `BREAK`, and where one is full behind the last comma, if that is among its last 20 tokens. ComfyUI
  /// keeps texts of fewer than 8 tokens with one weight together. Vectors of a learned word stay together in both. At most 100 chunks are read. compel reads
  /// one chunk of each text that is blended or stands beside others.
  ///
  /// - Parameter text: with the profile's marks.
  /// - Returns: chunks, and what is left out.
  /// - Throws: what `CompelPrompt` throws with the profile `compel`, and nothing with the others.
  /// - Complexity: grows with the length of the text.
  public func tokens(of text: String, profile: PromptProfile) throws(ComponentError) -> PromptTokens {
    switch profile {
    case .diffusers: plainTokens(of: text)
    case .webui: try webUITokens(of: text)
    case .comfy: try comfyTokens(of: text)
    case .compel: try compelTokens(of: text)
    }
  }

  private func plainTokens(of text: String) -> PromptTokens {
    let all = Array(encode(text).dropFirst().dropLast()), room = maximumLength - 2, kept = min(all.count, room)
    let padded = encodePadded(text), start = padded.firstIndex(of: bosTokenID).map { $0 + 1 } ?? 1
    let chunk = PromptTokens.Chunk(
      tokens: padded, weights: Array(repeating: 1, count: padded.count), content: start..<start + kept)
    return PromptTokens(chunks: [chunk], dropped: Array(truncatesRight ? all.dropFirst(kept) : all.dropLast(kept)))
  }

  private func webUITokens(of text: String) throws(ComponentError) -> PromptTokens {
    var filling = ChunkFilling(self), comma: Int?
    let commaToken = groups(of: ",").first?.tokens.first
    for part in try PromptProfile.webui.weightedTexts(text) {
      guard !part.isChunkBreak else {
        filling.endChunk()
        comma = nil
        continue
      }
      for group in groups(of: part.text) {
        if group.tokens[0] == commaToken {
          comma = filling.count
        } else if filling.isFull, let last = comma, filling.count - last <= Self.commaBacktrack {
          filling.endChunk(keeping: last + 1)
          comma = nil
        }
        if filling.isFull || group.isLearned && !filling.hasRoom(for: group.tokens.count) {
          filling.endChunk()
          // Also a comma that opens the chunk: the webui forgets it with those before.
          comma = nil
        }
        filling.add(group.tokens, weight: part.weight)
      }
    }
    if filling.count > 0 || filling.chunks.isEmpty { filling.endChunk() }
    return filling.result
  }

  /// How many tokens of the webui's chunks are moved on, so that the next one begins behind a comma.
  private static let commaBacktrack = 20

  private func comfyTokens(of text: String) throws(ComponentError) -> PromptTokens {
    var filling = ChunkFilling(self)
    for part in try PromptProfile.comfy.weightedTexts(text) {
      // What stands between learned words belongs together.
      var runs: [(tokens: [Int], isLearned: Bool)] = []
      for group in groups(of: part.text.replacing(Self.embeddingMark, with: "")) {
        if let last = runs.last, !last.isLearned, !group.isLearned {
          runs[runs.count - 1].tokens += group.tokens
        } else {
          runs.append(group)
        }
      }
      for run in runs { filling.add(run.tokens, weight: part.weight, breaking: run.tokens.count >= Self.longComfyRun) }
    }
    filling.endChunk()
    return filling.result
  }

  private func compelTokens(of text: String) throws(ComponentError) -> PromptTokens {
    let parts = try CompelPrompt(text).parts
    let read = parts.flatMap { $0.blend.map { compelChunk(of: $0.texts) } }
    return PromptTokens(
      chunks: read.map(\.chunk), dropped: read.flatMap(\.dropped),
      places: parts.map { PromptTokens.Place(shares: $0.blend.map(\.share), weight: $0.weight) },
      pooled: plainTokens(of: text).pooled)
  }

  private func compelChunk(of texts: [WeightedText]) -> (chunk: PromptTokens.Chunk, dropped: [Int]) {
    let room = max(1, maximumLength - 2), length = room + 2
    var (tokens, weights, lessened): ([Int], [Double], [Range<Int>]) = ([], [], [])
    for text in texts {
      let own = groups(of: text.text).flatMap(\.tokens), start = 1 + tokens.count
      // compel cuts each text, and counts the end to a text that is cut by those before it.
      if text.weight < 1, !own.isEmpty, start <= room { lessened.append(start..<min(start + min(own.count, room), length)) }
      tokens += own
      weights += Array(repeating: text.weight, count: own.count)
    }
    let kept = min(tokens.count, room), padding = Array(repeating: padTokenID, count: room - kept)
    let chunk = PromptTokens.Chunk(
      tokens: [bosTokenID] + tokens[..<kept] + [eosTokenID] + padding,
      weights: [1] + weights[..<kept] + Array(repeating: 1, count: 1 + room - kept), content: 1..<1 + kept, lessened: lessened)
    return (chunk, Array(tokens[kept...]))
  }

  /// Learned words are known wherever a text has them, so that ComfyUI's mark before them says nothing.
  private static let embeddingMark = "embedding:"
  /// Tokens from which on ComfyUI cuts what belongs together where a chunk is full.
  private static let longComfyRun = 8
}

/// Chunks that are filled one after the other.
private struct ChunkFilling {
  private(set) var chunks: [PromptTokens.Chunk] = []
  private var tokens: [Int] = []
  private var weights: [Double] = []
  private var dropped: [Int] = []
  private let bos, eos, padding, room: Int

  init(_ tokenizer: CLIPTokenizer) {
    (bos, eos, padding) = (tokenizer.bosTokenID, tokenizer.eosTokenID, tokenizer.padTokenID)
    room = max(1, tokenizer.maximumLength - 2)
  }

  /// Of the chunk that is being filled.
  var count: Int { tokens.count }
  var isFull: Bool { tokens.count == room }
  func hasRoom(for more: Int) -> Bool { tokens.count + more <= room }

  /// Tokens of one weight.
  /// - Parameter breaking: whether they fill the chunk, instead of standing together in the next one.
  mutating func add(_ more: [Int], weight: Double, breaking: Bool = false) {
    if !hasRoom(for: more.count), !breaking, count > 0 { endChunk() }
    var rest = more[...]
    while true {
      let fitting = rest.prefix(room - tokens.count)
      tokens += fitting
      weights += Array(repeating: weight, count: fitting.count)
      rest = rest.dropFirst(fitting.count)
      guard !rest.isEmpty else { return }
      endChunk()
    }
  }

  /// - Parameter kept: the tokens that stay; the others begin the next chunk. Nil: all.
  mutating func endChunk(keeping kept: Int? = nil) {
    let kept = kept ?? tokens.count
    let (own, next) = (tokens[..<kept], (tokens: Array(tokens[kept...]), weights: Array(weights[kept...])))
    if chunks.count < PromptTokens.mostChunks {
      let filled = [bos] + own + [eos], length = room + 2
      chunks.append(
        PromptTokens.Chunk(
          tokens: filled + Array(repeating: padding, count: length - filled.count),
          weights: [1] + weights[..<kept] + Array(repeating: 1, count: length - 1 - own.count), content: 1..<1 + own.count))
    } else {
      dropped += own
    }
    (tokens, weights) = next
  }

  var result: PromptTokens { PromptTokens(chunks: chunks, dropped: dropped) }
}
