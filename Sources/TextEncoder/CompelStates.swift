import Foundation
import LatentDiffusionComponents
import Tensor

/// What a text encoder makes of prompts of compel: states that go from an empty text to a token's as far as its weight says, blends of them, and some side by
/// side.
///
/// Source: `EmbeddingsProvider` and `Compel` of compel 2.5 with their usual settings.
struct CompelStates {
  /// The states `[1, L, D]` of a chunk's tokens. A mask says which of them others see; nil: all.
  typealias Encoder = (_ tokens: [Int], _ mask: [Bool]?) throws -> Tensor

  /// A chunk without a word.
  let empty: PromptTokens.Chunk
  let encode: Encoder

  /// `[1, k · L, D]`: the states of k places. A text with fewer has empty ones behind it.
  /// - Throws: what the encoder throws, and `ComponentError.outOfRange` for weights whose states are no numbers.
  func states(of text: PromptTokens, places count: Int) throws -> Tensor {
    var chunks = text.chunks[...], places: [Tensor] = []
    for place in text.places {
      var blend: [(share: Double, states: Tensor)] = []
      for (share, chunk) in zip(place.shares, chunks) { blend.append((share, try states(of: chunk))) }
      chunks = chunks.dropFirst(blend.count)
      places.append(try interpolated(Self.sum(blend), by: place.weight))
    }
    while places.count < count { places.append(try statesOfNothing()) }
    return try WeightedStates.checked(Tensor.concatenated(places, axis: 1))
  }

  /// Where a text counts less than 1, the chunk is blended with itself without that text: half of each at 0.5, and the other alone at 0. What is left out keeps
  /// its place, and nothing sees it.
  private func states(of chunk: PromptTokens.Chunk) throws -> Tensor {
    var blend = [(share: 1.0, states: try interpolated(encode(chunk.tokens, nil), by: chunk))]
    for range in chunk.lessened {
      let mask = chunk.tokens.indices.map { !range.contains($0) }
      // The tangent has no end at 0.
      let weight = max(Self.leastWeight, chunk.weights[range.lowerBound])
      blend.append((tan((1 - weight) * .pi / 2), try interpolated(encode(chunk.tokens, mask), by: chunk)))
    }
    let all = blend.reduce(0) { $0 + $1.share }
    return Self.sum(blend.map { ($0.share / all, $0.states) })
  }

  private static let leastWeight = 1e-5

  private func statesOfNothing() throws -> Tensor { try encode(empty.tokens, nil) }

  private func interpolated(_ states: Tensor, by chunk: PromptTokens.Chunk) throws -> Tensor {
    guard chunk.isWeighted else { return states }
    let base = try statesOfNothing()
    return WeightedStates.weighted(states - base, by: [chunk]) + base
  }

  private func interpolated(_ states: Tensor, by weight: Double) throws -> Tensor {
    guard weight != 1 else { return states }
    let base = try statesOfNothing()
    return Float(weight) * (states - base) + base
  }

  private static func sum(_ blend: [(share: Double, states: Tensor)]) -> Tensor {
    guard blend.count > 1 || blend[0].share != 1 else { return blend[0].states }
    return blend.dropFirst().reduce(Float(blend[0].share) * blend[0].states) { $0 + Float($1.share) * $1.states }
  }
}

extension CLIPTextModel {
  /// Rows of as many tokens as the longest prompt has.
  /// - Parameter least: the places that each prompt has at least.
  func compel(
    _ texts: [PromptTokens], places least: [Int], by tokenizer: CLIPTokenizer, skippedLayers: Int, states: @escaping (Output) -> Tensor,
    in context: ExecutionContext
  ) throws -> Conditioning {
    // What all tokens are seen of is read once: the empty text, and plain prompts, which are pooled as well.
    var known: [[Int]: Output] = [:]
    func read(_ tokens: [Int], _ mask: [Bool]? = nil) throws -> Output {
      if mask == nil, let known = known[tokens] { return known }
      let output = try self([tokens], mask: mask.map { [$0] }, skippedLayers: skippedLayers, in: context)
      if mask == nil { known[tokens] = output }
      return output
    }
    let count = max(least.max() ?? 1, texts.map(\.places.count).max() ?? 1)
    let reader = CompelStates(empty: tokenizer.emptyChunk) { states(try read($0, $1)) }
    let rows = try texts.map { (states: try reader.states(of: $0, places: count), pooled: try read($0.pooled)) }
    return Conditioning(
      hiddenStates: Tensor.concatenated(rows.map(\.states), axis: 0),
      pooled: Tensor.concatenated(rows.map { $0.pooled.textEmbeds ?? $0.pooled.pooled }, axis: 0))
  }
}
