import Foundation
import LatentDiffusionWeights
import Tensor

/// A word that was learned: vectors that take the place of a token's in a text encoder. Source: Gal et al. 2022; diffusers' `load_textual_inversion`.
public struct TextualInversion: Sendable {
  /// The word that prompts have.
  public var name: String
  /// Where the file is; nil: it is in none.
  public private(set) var url: URL?
  /// For one or two text encoders.
  private var parts: [Part]
  /// What messages begin with.
  package var place: String { url?.path(percentEncoded: false) ?? "The word \(printable(name))" }

  /// Vectors for one text encoder.
  struct Part: Sendable {
    /// In the file, or the name of the component.
    let key: String
    /// `text_encoder` or `text_encoder_2`; nil: the one that has vectors of this length.
    let component: String?
    /// `[n, D]`. A text encoder finds what takes their place in a context by their identity.
    fileprivate(set) var vectors: Tensor
  }

  /// `[n, D]` for each text encoder that it has vectors for.
  public var vectors: [Tensor] { parts.map(\.vectors) }

  /// The keys of the parts in a file: the word's name if there is one part, and else `clip_l` and `clip_g`.
  package var keys: [String] {
    parts.count == 1 ? [name] : parts.map { part in Self.components.first { $0.value == part.component }?.key ?? part.key }
  }

  /// The text encoders by their keys in a file for two.
  private static let components = ["clip_l": "text_encoder", "clip_g": "text_encoder_2"]

  /// Reads a file as diffusers, webui or trainers of SDXL write it: one tensor of the word's name; `emb_params` or `string_to_param`; `clip_l` and
  /// `clip_g`.
  ///
  /// - Parameter name: nil: the file's own name for it, or else the name of the file.
  /// - Throws: `TextualInversionError`, and what opening the file throws.
  public init(contentsOf url: URL, name: String? = nil) throws {
    try self.init(try TensorFileFormat.open(url), name: name)
  }

  init(_ file: any TensorFile, name: String?) throws(TextualInversionError) {
    url = file.url
    let path = file.url.path(percentEncoded: false), keys = file.tensors.keys.sorted()
    let known = Self.components
    let plain = keys.first { $0 == "emb_params" } ?? keys.first { $0.hasPrefix("string_to_param") && $0.hasSuffix("*") }
    let own: String?
    if keys.contains(where: { known[$0] != nil }) {
      var found: [Part] = []
      for (key, component) in known.sorted(by: { $0.key < $1.key }) where keys.contains(key) {
        found.append(try Self.part(key, of: file, for: component))
      }
      (parts, own) = (found, nil)
    } else if let plain {
      (parts, own) = ([try Self.part(plain, of: file)], file.metadata["name"])
    } else if let key = keys.first, keys.count == 1 {
      (parts, own) = ([try Self.part(key, of: file)], key)
    } else {
      throw .noEmbedding(path: path, keys: Array(keys.prefix(3)))
    }
    self.name = (name ?? own ?? file.url.deletingPathExtension().lastPathComponent).trimmingCharacters(in: .whitespacesAndNewlines)
    guard !self.name.isEmpty else { throw .noName(path: path) }
    guard Set(parts.map(\.vectors.shape.dimensions.first)).count == 1 else { throw .differentCounts(path: path) }
  }

  /// A word with vectors in memory.
  ///
  /// - Parameters:
  ///   - name: what prompts have.
  ///   - vectors: `[n, D]` for each text encoder, by the name of its component: `text_encoder`, `text_encoder_2`. They are copied.
  /// - Throws: `TextualInversionError`.
  public init(name: String, vectors: [String: Tensor]) throws(TextualInversionError) {
    self.name = name.trimmingCharacters(in: .whitespacesAndNewlines)
    url = nil
    parts = vectors.sorted { $0.key < $1.key }.map { Part(key: $0.key, component: $0.key, vectors: $0.value.copied()) }
    guard !self.name.isEmpty else { throw .noName(path: "The textual inversion") }
    guard !parts.isEmpty else { throw .noEmbedding(path: place, keys: []) }
    for part in parts {
      guard part.vectors.shape.rank == 2, part.vectors.count > 0, Self.components.values.contains(part.key) else {
        throw .noVectors(word: self.name, encoder: part.key, shape: part.vectors.shape)
      }
      guard part.vectors.elements.allSatisfy(\.isFinite) else { throw .notFinite(path: place, key: part.key) }
    }
    guard Set(parts.map(\.vectors.shape[0])).count == 1 else { throw .differentCounts(path: place) }
  }

  /// A word that begins as others, to be trained: its vectors are those of a text's tokens in their order, from the first again where there are fewer.
  ///
  /// Source: diffusers' `textual_inversion.py` (`--initializer_token`, `--num_vectors`), which begins with one token.
  /// - Parameters:
  ///   - name: what prompts have.
  ///   - count: how many vectors it has for each text encoder.
  ///   - text: of at least one token, and of no more than there are vectors.
  ///   - conditioner: has the text encoders.
  /// - Throws: `TextualInversionError`, `CLIPTextError` if a text encoder lacks a token, `CancellationError`.
  public init(
    name: String, vectors count: Int, beginningAs text: String, in conditioner: any VocabularyConditioner,
    context: ExecutionContext = ExecutionContext()
  ) throws {
    let vectors = try conditioner.textEncoders.mapValues { model, tokenizer in
      let ids = Array(tokenizer.encode(text).dropFirst().dropLast())
      guard !ids.isEmpty, ids.count <= count else {
        throw TextualInversionError.unsuitableBeginning(text: text, tokens: ids.count, vectors: count)
      }
      return try model.embeddings(of: (0..<count).map { ids[$0 % ids.count] }, in: context)
    }
    try self.init(name: name, vectors: vectors)
  }

  /// The same word with other vectors, one tensor for each part, which is in no file.
  /// - Precondition: there are as many.
  package func with(vectors: [Tensor]) -> TextualInversion {
    precondition(vectors.count == parts.count, "\(vectors.count) tensors for \(parts.count) text encoders.")
    var result = self
    result.url = nil
    for (place, tensor) in vectors.enumerated() { result.parts[place].vectors = tensor.copied() }
    return result
  }

  private static func part(_ key: String, of file: any TensorFile, for component: String? = nil) throws(TextualInversionError) -> Part {
    let path = file.url.path(percentEncoded: false)
    guard let shape = file.tensors[key]?.shape, let weights = try? file.tensor(key, shape: shape), (1...2).contains(shape.rank),
      shape.count > 0
    else { throw .noEmbedding(path: path, keys: [key]) }
    guard weights.isFinite else { throw .notFinite(path: path, key: key) }
    let vectors = weights.decoded()
    return Part(key: key, component: component, vectors: shape.rank == 1 ? vectors.reshaped([1, vectors.count]) : vectors)
  }

  /// Adds the word to a model's tokenizers and its vectors to their text encoders.
  ///
  /// - Parameter encoders: by the names of their components.
  /// - Returns: the encoders that the file has no vectors for, sorted: they read the word as other letters.
  /// - Throws: `TextualInversionError` if a text encoder has vectors of another length, `TokenizerError` if the word is known already.
  package func extend(_ encoders: inout [String: (model: CLIPTextModel, tokenizer: CLIPTokenizer)]) throws -> [String] {
    var others = Set(encoders.keys)
    for part in parts {
      let width = part.vectors.shape[1]
      let fitting = encoders.keys.sorted().first { name in
        part.component ?? name == name && encoders[name]?.model.configuration.features == width
      }
      guard let fitting, let encoder = encoders[fitting] else {
        let widths = encoders.sorted { $0.key < $1.key }.map { "\($0.key) has \($0.value.model.configuration.features)" }
        throw TextualInversionError.wrongWidth(path: place, key: part.key, width: width, expected: widths)
      }
      others.remove(fitting)
      let first = encoder.model.vocabulary
      encoders[fitting] = (
        encoder.model.adding(part.vectors), try encoder.tokenizer.adding(name, identifiers: first..<first + part.vectors.shape[0])
      )
    }
    return others.sorted()
  }
}

/// Why a textual inversion cannot be used.
public enum TextualInversionError: Error, Sendable, Equatable, CustomStringConvertible {
  /// A file without vectors that can be recognised.
  case noEmbedding(path: String, keys: [String])
  /// A word without letters.
  case noName(path: String)
  /// Different numbers of vectors for two text encoders.
  case differentCounts(path: String)
  /// Values that are infinite or not numbers.
  case notFinite(path: String, key: String)
  /// No text encoder has vectors of this length.
  case wrongWidth(path: String, key: String, width: Int, expected: [String])
  /// Something else than vectors for a text encoder.
  case noVectors(word: String, encoder: String, shape: Shape)
  /// A text without tokens, or with more than there are vectors.
  case unsuitableBeginning(text: String, tokens: Int, vectors: Int)

  public var description: String {
    switch self {
    case .noEmbedding(let path, let keys):
      "\(path) is no textual inversion: it has \(keys.isEmpty ? "no tensors" : keys.map { printable($0) }.joined(separator: ", ")), and not one "
        + "tensor of vectors, emb_params, string_to_param, or clip_l and clip_g."
    case .noName(let path): "\(path) has no name for its word; give one."
    case .differentCounts(let path): "\(path) cannot be used: it has different numbers of vectors for two text encoders."
    case .noVectors(let word, let encoder, let shape):
      "The word \(printable(word)) cannot be used: it takes vectors [n, D] for text_encoder or text_encoder_2, and got \(shape) for "
        + "\(printable(encoder))."
    case .unsuitableBeginning(let text, let tokens, let vectors):
      "A word of \(vectors) vectors cannot begin as \"\(printable(text))\", which has \(tokens) tokens; give a text of 1 to "
        + "\(max(vectors, 1)) tokens."
    case .notFinite(let path, let key): "\(path) is damaged: \(printable(key)) holds values that are infinite or not numbers."
    case .wrongWidth(let path, let key, let width, let expected):
      "\(path) does not belong to this model: \(printable(key)) has vectors of \(width) numbers, but \(expected.joined(separator: " and "))."
    }
  }
}
