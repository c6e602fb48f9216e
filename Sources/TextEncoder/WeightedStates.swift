import LatentDiffusionComponents
import Tensor

/// What a text encoder makes of prompts that are read in chunks, with the weights of their tokens.
struct WeightedStates {
  /// `[N, k · L, D]`: the states of k chunks of L tokens side by side.
  private(set) var states: Tensor
  /// `[N, P]`: of each prompt's first chunk.
  private(set) var pooled: Tensor

  /// - Parameters:
  ///   - prompts: of as many chunks each, and at least one. They are one batch: the webui restores the mean of all of them together.
  ///   - profile: how weights count.
  ///   - end: the token at which a text is pooled.
  ///   - encode: the states `[1, L, D]` and the pooled state `[1, P]` of the tokens of one chunk.
  /// - Throws: what `encode` throws, and `ComponentError.outOfRange` for weights whose states are no numbers.
  init(_ prompts: [[PromptTokens.Chunk]], profile: PromptProfile, empty: [Int], encode: ([Int]) throws -> (states: Tensor, pooled: Tensor))
    throws
  {
    // Chunks that occur twice are read once: those of a prompt that alternates, and empty ones.
    var known: [[Int]: (states: Tensor, pooled: Tensor)] = [:]
    func read(_ tokens: [Int]) throws -> (states: Tensor, pooled: Tensor) {
      if let known = known[tokens] { return known }
      let result = try encode(tokens)
      known[tokens] = result
      return result
    }
    let count = prompts.first?.count ?? 0
    let places = try (0..<count).map { place in
      let chunks = prompts.map { $0[place] }
      let states = Tensor.concatenated(try chunks.map { try read($0.tokens).states }, axis: 0)
      switch profile {
      case .webui where chunks.contains(where: \.isWeighted):
        return Self.restoringMean(of: states, in: Self.weighted(states, by: chunks))
      case .comfy where prompts.contains(where: { $0.contains(where: \.isWeighted) }):
        let empty = try read(empty).states
        let base = empty.repeated(chunks.count)
        return Self.weighted(states - base, by: chunks) + base
      default: return states
      }
    }
    states = try Self.checked(Tensor.concatenated(places, axis: 1))
    pooled = Tensor.concatenated(try prompts.map { try read($0[0].tokens).pooled }, axis: 0)
  }

  /// - Throws: `ComponentError.outOfRange` for what is no number.
  static func checked(_ states: Tensor) throws(ComponentError) -> Tensor {
    guard states.isFinite else {
      throw .outOfRange(component: "The text encoder", option: "weights on words", value: "larger ones", allowed: "that leave numbers")
    }
    return states
  }

  /// Each token's state times its weight.
  static func weighted(_ states: Tensor, by chunks: [PromptTokens.Chunk]) -> Tensor {
    let features = states.shape.columns, weights = chunks.flatMap { $0.weights.map { Float($0) } }
    var place = 0
    return states.map { state in
      defer { place += 1 }
      return state * weights[place / features]
    }
  }

  /// Scaled so that the mean of all elements is that of the original. Source: "Original" emphasis of stable-diffusion-webui.
  private static func restoringMean(of original: Tensor, in changed: Tensor) -> Tensor {
    func mean(_ tensor: Tensor) -> Double { tensor.elements.reduce(0) { $0 + Double($1) } / Double(max(tensor.count, 1)) }
    return changed * (Float(mean(original)) / Float(mean(changed)))
  }
}

extension CLIPTokenizer {
  /// A chunk without a word.
  var emptyChunk: PromptTokens.Chunk {
    let tokens = [bosTokenID, eosTokenID] + Array(repeating: padTokenID, count: max(0, maximumLength - 2))
    return PromptTokens.Chunk(tokens: tokens, weights: Array(repeating: 1, count: tokens.count), content: 1..<1)
  }

  /// The chunks of a prompt that is read in some, with empty ones up to so many.
  func chunks(of tokens: PromptTokens, atLeast count: Int) -> [PromptTokens.Chunk] {
    tokens.chunks + Array(repeating: emptyChunk, count: max(0, count - tokens.chunks.count))
  }
}

extension CLIPTextModel {
  /// What prompts become that are read in chunks: rows of as many tokens as the longest has.
  ///
  /// - Parameters:
  ///   - texts: one for each prompt, all with the same profile, which is not diffusers'.
  ///   - chunks: the least that each prompt has; the webui's and compel's prompts get as many as the longest.
  ///   - features: what of the tower's result the states are.
  func weighted(
    _ texts: [PromptTokens], chunks least: [Int], profile: PromptProfile, by tokenizer: CLIPTokenizer, skippedLayers: Int,
    states: @escaping (Output) -> Tensor, in context: ExecutionContext
  ) throws -> Conditioning {
    if profile == .compel {
      return try compel(texts, places: least, by: tokenizer, skippedLayers: skippedLayers, states: states, in: context)
    }
    func part(_ texts: [[PromptTokens.Chunk]]) throws -> Conditioning {
      let result = try WeightedStates(texts, profile: profile, empty: tokenizer.emptyChunk.tokens) { tokens in
        let output = try self([tokens], skippedLayers: skippedLayers, end: tokenizer.eosTokenID, in: context)
        return (states(output), output.textEmbeds ?? output.pooled)
      }
      return Conditioning(hiddenStates: result.states, pooled: result.pooled)
    }
    if profile == .webui {
      let most = max(least.max() ?? 1, texts.map(\.chunks.count).max() ?? 1)
      return try part(texts.map { tokenizer.chunks(of: $0, atLeast: most) })
    }
    let parts = try zip(texts, least).map { try part([tokenizer.chunks(of: $0, atLeast: $1)]) }
    return try .concatenated(Conditioning.ofOneLength(parts, profile: profile))
  }
}
