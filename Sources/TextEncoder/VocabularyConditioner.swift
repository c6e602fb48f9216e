import LatentDiffusionComponents

/// A text conditioner whose text encoders can learn words.
public protocol VocabularyConditioner: TextConditioner {
  /// The text encoders with their tokenizers, by the names of their components: `text_encoder`, `text_encoder_2`.
  var textEncoders: [String: (model: CLIPTextModel, tokenizer: CLIPTokenizer)] { get }

  /// The same conditioner with other text encoders.
  ///
  /// - Parameter textEncoders: with the names that it has.
  /// - Throws: `CLIPTextError` if a tokenizer and a text encoder do not belong together.
  func replacing(_ textEncoders: [String: (model: CLIPTextModel, tokenizer: CLIPTokenizer)]) throws -> Self
}

extension VocabularyConditioner {
  /// The same conditioner with a further word for prompts. A text encoder that the word has no vectors for reads it as other letters.
  ///
  /// - Throws: `TextualInversionError` if a text encoder has vectors of another length, `TokenizerError` if the word is known already.
  public func adding(_ word: TextualInversion) throws -> Self {
    var encoders = textEncoders
    _ = try word.extend(&encoders)
    return try replacing(encoders)
  }
}

extension CLIPTextConditioner: VocabularyConditioner {
  public var textEncoders: [String: (model: CLIPTextModel, tokenizer: CLIPTokenizer)] { ["text_encoder": (model, tokenizer)] }

  public func replacing(_ textEncoders: [String: (model: CLIPTextModel, tokenizer: CLIPTokenizer)]) throws -> CLIPTextConditioner {
    guard let (model, tokenizer) = textEncoders["text_encoder"] else { return self }
    return try CLIPTextConditioner(tokenizer: tokenizer, model: model, isNormalized: isNormalized)
  }
}

extension XLTextConditioner: VocabularyConditioner {
  /// One tower is the second one, as the refiner has it.
  private var names: ArraySlice<String> { ["text_encoder", "text_encoder_2"].suffix(towers.count) }

  public var textEncoders: [String: (model: CLIPTextModel, tokenizer: CLIPTokenizer)] {
    zip(names, towers).reduce(into: [:]) { all, tower in
      if let tokenizer = tower.1.tokenizer { all[tower.0] = (tower.1.model, tokenizer) }
    }
  }

  public func replacing(_ textEncoders: [String: (model: CLIPTextModel, tokenizer: CLIPTokenizer)]) throws -> XLTextConditioner {
    let towers = try zip(names, towers).map { name, tower in
      try textEncoders[name].map { try Tower(tokenizer: $0.tokenizer, model: $0.model) } ?? tower
    }
    return try XLTextConditioner(towers, zerosForAbsent: zerosForAbsent, toldAestheticScore: toldAestheticScore)
  }
}
