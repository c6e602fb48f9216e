import Foundation
import LatentDiffusionWeights

extension ModelFiles {
  /// The files of a model.
  ///
  /// - Parameters:
  ///   - url: a folder in diffusers' layout, the folder of one component, or a `.safetensors` file. With `parts` also a single file that holds a U-Net
  ///     alone, if they have all the rest.
  ///   - parts: components that take the place of the model's own, by their names (`vae`): the folder of a component, the folder or file of a whole
  ///     model, or a single file that holds this component alone. The configuration of a single file follows from its tensors' shapes. What those do not
  ///     say is as in the component whose place it takes, if that is of the same class. A tiny autoencoder can be in two files (TAESD's): its decoder is
  ///     `vae` then, and its encoder `vae_encoder`.
  ///   - registry: whose families know how single files are laid out.
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `ConfigurationError`.
  public static func open(_ url: URL, replacing parts: [String: URL] = [:], registry: ModelRegistry = .standard) throws -> ModelFiles {
    guard parts.isEmpty else { return try open(part: url, replacing: parts, registry: registry) }
    return try ModelFiles(url, registry: registry.components, layouts: registry.layouts)
  }

  /// The same, but a single component is welcome too.
  static func open(
    part url: URL, replacing parts: [String: URL] = [:], as layout: ComponentFile = ComponentFile(), registry: ModelRegistry
  ) throws -> ModelFiles {
    let files = try ModelFiles(
      url, registry: registry.components, layouts: registry.layouts, part: layout)
    var places: [String: Place] = [:], accessories: [String: Place] = [:], parts = parts
    let encoder = parts.removeValue(forKey: "vae_encoder")
    if let encoder, parts["vae"] == nil {
      throw ModelFilesError.notAModel(
        path: encoder.path(percentEncoded: false), reason: "it is to be half an autoencoder; give the other half, the decoder, as the vae")
    }
    for (name, url) in parts.sorted(by: { $0.key < $1.key }) {
      let place =
        try encoder.flatMap { name == "vae" ? try files.halves($0, url, registry) : nil } ?? files.place(of: name, in: url, registry)
      places[name] = place
      // A single file brings what it needs and the model may lack: a text encoder its tokenizer.
      for beside in place.files.components
      where place.files.layout == .singleFile && ComponentRegistry.isWeightless(place.files.className(of: beside)) {
        if !files.components.contains(beside) { accessories[beside] = Place(place.files, beside) }
      }
    }
    return try files.replacing(places.merging(accessories) { first, _ in first })
  }

  /// Where a component is in other files.
  private func place(of name: String, in url: URL, _ registry: ModelRegistry) throws -> Place {
    let files = try ModelFiles.open(part: url, as: componentFile(for: name), registry: registry)
    let weighty = files.components.filter { !ComponentRegistry.isWeightless(files.className(of: $0)) }
    if files.components.contains(name) { return Place(files, name) }
    // A component alone has whatever name its folder has, and one of several text encoders that of the only one.
    guard weighty.count == 1, let only = weighty.first, files.layout == .component || name.hasPrefix(only) else {
      let found = weighty.map { "\($0) (\(files.className(of: $0) ?? ""))" }.joined(separator: ", ")
      throw ModelFilesError.notAModel(
        path: url.path(percentEncoded: false), reason: "it is to be the model's \(name), but holds \(found.isEmpty ? "nothing" : found)")
    }
    return Place(files, only)
  }

  /// A tiny autoencoder in a file for each half.
  private func halves(_ encoder: URL, _ decoder: URL, _ registry: ModelRegistry) throws -> Place {
    let layout = ComponentFile(encoder: try TensorFileFormat.open(encoder))
    let files = try ModelFiles(decoder, registry: registry.components, part: layout)
    guard files.layout == .singleFile else {
      throw ModelFilesError.notAModel(
        path: decoder.path(percentEncoded: false), reason: "an encoder can be added to a decoder's file alone, not to a folder")
    }
    return Place(files, "vae")
  }

  /// How a single file holds the component of this name.
  private func componentFile(for name: String) throws -> ComponentFile {
    struct TextFacts: Decodable { var num_hidden_layers: Int? }
    guard let className = className(of: name), className.hasPrefix("CLIPText"), let json = try configuration(of: name) else {
      return ComponentFile()
    }
    let facts = try decodeConfiguration(TextFacts.self, component: name, from: json)
    return ComponentFile(textClass: className, textLayers: facts.num_hidden_layers)
  }
}
