import Foundation

extension CLIPTokenizer {
  /// The tokenizer of OpenAI's CLIP (49,408 tokens, padded to 77 with `<|endoftext|>`), for checkpoints without a tokenizer.
  ///
  /// - Parameter configuration: a `tokenizer_config.json`; Stable Diffusion 1's by default.
  /// - Throws: `TokenizerError.missingResource` if the module's resources are not next to the program.
  public static func bundled(configuration: Data? = nil) throws(TokenizerError) -> CLIPTokenizer {
    guard let folder = resourceFolder("CLIPVocabulary", module: "TextEncoder"),
      let merges = try? Data(contentsOf: folder.appending(path: "merges.txt"))
    else { throw .missingResource(name: "LatentDiffusion_TextEncoder.resources/CLIPVocabulary") }
    let rules = try rules(merges)
    return try CLIPTokenizer(
      vocabulary: vocabulary(of: rules),
      merges: rules,
      configuration: TokenizerConfiguration(
        configuration: configuration ?? Data(Self.configuration.utf8), specialTokensMap: nil, addedTokens: nil, serialized: []))
  }

  /// The keys that matter of the `tokenizer_config.json` in Stable Diffusion 1's folders.
  private static let configuration = """
    {"model_max_length": 77, "bos_token": {"content": "<|startoftext|>", "normalized": true}, "pad_token": "<|endoftext|>"}
    """

  /// CLIP's vocabulary follows from its merges: the bytes, the bytes at a word's end, the merges' results, begin and end.
  private static func vocabulary(of rules: [MergeRule]) -> [Spelling: UInt32] {
    let bytes = ByteAlphabet.order.map(ByteAlphabet.spelling)
    let tokens =
      bytes + bytes.map { $0 + ByteAlphabet.endOfWord } + rules.map { $0.left + $0.right }
      + ["<|startoftext|>", "<|endoftext|>"].map { Spelling($0.utf8) }
    return Dictionary(zip(tokens, UInt32(0)...), uniquingKeysWith: { first, _ in first })
  }
}

/// A resource folder of a module of this package: next to the program, in its bundle, or else in the sources.
///
/// (The accessor that SwiftPM generates ends the process if there is no bundle.)
private func resourceFolder(_ name: String, module: String, sources: String = #filePath) -> URL? {
  let program = Bundle.main.executableURL?.resolvingSymlinksInPath().deletingLastPathComponent()
  var places = [Bundle.main.resourceURL, Bundle.main.bundleURL, program].compactMap { $0 }
  places += (Bundle.allBundles + Bundle.allFrameworks).flatMap { [$0.resourceURL, $0.bundleURL.deletingLastPathComponent()] }.compactMap {
    $0
  }
  let bundle = "LatentDiffusion_\(module)"
  let folders =
    places.flatMap { place in
      ["\(bundle).resources", "\(bundle).bundle", "\(bundle).bundle/Contents/Resources"].map { place.appending(path: $0) }
    } + [URL(filePath: sources).deletingLastPathComponent().appending(path: "Resources")]
  return folders.map { $0.appending(path: name) }.first { FileManager.default.fileExists(atPath: $0.path) }
}
