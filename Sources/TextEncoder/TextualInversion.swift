import Foundation
import LatentDiffusionWeights
import Tensor

/// A word that was learned: vectors that take the place of a token's in a text encoder. Source: Gal et al. 2022; diffusers' `load_textual_inversion`.
public struct TextualInversion: Sendable {
  /// The word that prompts have.
  public var name: String
  /// Where the file is.
  public let url: URL
  /// For one or two text encoders.
  let parts: [Part]
  private var path: String { url.path(percentEncoded: false) }

  /// Vectors for one text encoder.
  struct Part: Sendable {
    /// In the file.
    let key: String
    /// `text_encoder` or `text_encoder_2`; nil: the one that has vectors of this length.
    let component: String?
    /// `[n, D]`.
    let vectors: Tensor
  }

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
    let known = ["clip_l": "text_encoder", "clip_g": "text_encoder_2"]
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
    self.name = (name ?? own ?? url.deletingPathExtension().lastPathComponent).trimmingCharacters(in: .whitespacesAndNewlines)
    guard !self.name.isEmpty else { throw .noName(path: path) }
    guard Set(parts.map(\.vectors.shape.dimensions.first)).count == 1 else { throw .differentCounts(path: path) }
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
        throw TextualInversionError.wrongWidth(path: path, key: part.key, width: width, expected: widths)
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

  public var description: String {
    switch self {
    case .noEmbedding(let path, let keys):
      "\(path) is no textual inversion: it has \(keys.isEmpty ? "no tensors" : keys.map { printable($0) }.joined(separator: ", ")), and not one "
        + "tensor of vectors, emb_params, string_to_param, or clip_l and clip_g."
    case .noName(let path): "\(path) has no name for its word; give one."
    case .differentCounts(let path): "\(path) cannot be used: it has different numbers of vectors for two text encoders."
    case .notFinite(let path, let key): "\(path) is damaged: \(printable(key)) holds values that are infinite or not numbers."
    case .wrongWidth(let path, let key, let width, let expected):
      "\(path) does not belong to this model: \(printable(key)) has vectors of \(width) numbers, but \(expected.joined(separator: " and "))."
    }
  }
}
