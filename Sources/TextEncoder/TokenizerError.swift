/// Errors in a tokenizer's files. Text is never an error: every prompt has tokens.
public enum TokenizerError: Error, Sendable, Equatable, CustomStringConvertible {
  /// The folder holds neither `tokenizer.json` nor both `vocab.json` and `merges.txt`.
  case missingFile(path: String)
  /// A file that exists but cannot be read.
  case unreadableFile(path: String, reason: String)
  /// The tokens and their numbers contradict byte-pair encoding.
  case invalidVocabulary(reason: String)
  /// The folder of a BERT tokenizer holds neither `vocab.txt` nor `tokenizer.json`.
  case missingPieces(path: String)
  /// The tokens are none of WordPiece.
  case invalidPieces(reason: String)
  /// `line` counts from 1; in a `tokenizer.json` it is the number of the merge.
  case invalidMerges(line: Int, reason: String)
  /// A configuration that is no JSON, or has a value that is not valid for a tokenizer.
  case invalidConfiguration(file: String, reason: String)
  /// A word that cannot be added since the tokenizer has a token of its name or number.
  case knownToken(word: String, token: String)
  /// A resource of this package is not next to the program.
  case missingResource(name: String)

  public var description: String {
    switch self {
    case .missingFile(let path):
      "The tokenizer file \(path) is missing; a tokenizer folder needs vocab.json and merges.txt, or tokenizer.json."
    case .unreadableFile(let path, let reason):
      "The tokenizer file \(path) cannot be read: \(reason)."
    case .invalidVocabulary(let reason):
      "The tokenizer's vocabulary is not one of byte-pair encoding: \(reason)."
    case .missingPieces(let path):
      "The tokenizer file \(path) is missing; the folder of a BERT tokenizer needs vocab.txt, or tokenizer.json."
    case .invalidPieces(let reason):
      "The tokenizer's vocabulary is not one of word pieces: \(reason)."
    case .invalidMerges(let line, let reason):
      "The tokenizer's merges are broken at line \(line): \(reason)."
    case .invalidConfiguration(let file, let reason):
      "The tokenizer's \(file) is not valid: \(reason)."
    case .knownToken(let word, let token):
      "The word \"\(word)\" cannot be added: the tokenizer has the token \"\(token)\" already; give it another name."
    case .missingResource(let name):
      "The resource folder \(name) is not beside the program; copy it from the build folder to where the program lies."
    }
  }
}
