import LatentDiffusionFiles
import Foundation
import Tensor

/// The formats that files of weights are written in.
public enum WeightFileFormat: String, Sendable, CaseIterable {
  /// What diffusers and transformers read.
  case safetensors
  /// Blocks in it can be read by other programs. diffusers and transformers do not look for it in a model's folder; this library does.
  case gguf
}

/// The result of a conversion.
public struct ModelConversion: Sendable, Equatable {
  /// Bytes of the weights that were read.
  public fileprivate(set) var bytesRead = 0
  /// Bytes of the weight files that were written.
  public fileprivate(set) var bytesWritten = 0
  /// Components that no picture needs and whose weights cannot be read. The result has only their other files.
  public fileprivate(set) var leftOut: [String] = []
}

extension ModelFiles {
  /// Writes the model with its weights in another form. The layout and the names of tensors stay the same. In GGUF files only matrices have blocks, since the
  /// rows of a kernel are not whole blocks there.
  ///
  /// A model's folder, or a component's, becomes a folder. The weights of each component become one file with the original tensor names. All other files of the
  /// components, and the files beside `model_index.json`, are copied. Whole numbers stay unchanged, and so do the tensors of a single file that belong to
  /// no component (averages that training keeps). Only one tensor at a time is in memory.
  ///
  /// - Parameters:
  ///   - form: the form of the new weights.
  ///   - format: of the new files. Nil: that of the name's ending for a single file, and safetensors for a folder.
  ///   - url: where the model goes; nothing may exist there yet.
  ///   - context: its threads convert, and its cancellation stops the writing.
  ///   - progress: gets the name of the component that comes next.
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `PyTorchFileError`, `GGUFError`, `WeightError` if the form cannot hold a value, `FileWriteError`,
  ///   `CancellationError`. Nothing is left at `url` then.
  @discardableResult
  public func convert(
    to form: WeightForm, as format: WeightFileFormat? = nil, at url: URL, in context: ExecutionContext,
    progress: (_ component: String) -> Void = { _ in }
  ) throws -> ModelConversion {
    try checkPlace(url)
    var result = ModelConversion()
    let path = url.path(percentEncoded: false), named = WeightFileFormat(rawValue: url.pathExtension.lowercased())
    switch source {
    case .folder(let folder):
      guard named != .gguf else {
        throw FileWriteError.failed(
          path: path, reason: "a folder becomes a folder; give it another name, and say that its files are to be GGUF files")
      }
      let rewriting = Rewriting(form: form, format: format ?? .safetensors, values: [:])
      try FileWriting.makeFolder(at: url) { try write(folder, by: rewriting, to: $0, in: context, &result, progress: progress) }
    case .checkpoint(let checkpoint):
      if let format, format != named {
        throw FileWriteError.failed(path: path, reason: "a single file of the format \(format) has a name that ends in .\(format)")
      }
      let format = format ?? named ?? .safetensors
      progress(checkpoint.file.url.lastPathComponent)
      let tensors = checkpoint.file.tensors.map { name, tensor in
        ConvertedTensor(name, tensor, rule: checkpoint.owners[name].map(quantization), form: form, format: format)
      }
      try write(tensors, metadata: checkpoint.file.metadata, as: format, to: url, in: context, &result)
    }
    return result
  }

  /// Writes the model with other values of some components' parameters, as training gives them; everything else stays as it is, bit by bit.
  ///
  /// A model's folder becomes a folder. Of a single file, only the components with new values are written, each as the folder of a component: the folder itself
  /// where there is one, and else folders in it, by their names.
  ///
  /// - Parameters:
  ///   - values: for each component tensors by the names of its parameters. They are stored in float32.
  ///   - configurations: what components' `config.json` say from now on, by the names of the components.
  ///   - url: where the folder goes; nothing may exist there yet.
  ///   - context: its cancellation stops the writing.
  /// - Throws: `ModelFilesError`, `SafetensorsError`, `PyTorchFileError`, `GGUFError`, `ConfigurationError`, `FileWriteError`, `CancellationError`. Nothing is
  ///   left at `url` then.
  public func write(
    replacing values: [String: [String: Tensor]], configurations: [String: Data] = [:], to url: URL, in context: ExecutionContext
  ) throws {
    try checkPlace(url)
    var result = ModelConversion()
    try FileWriting.makeFolder(at: url) { target in
      switch source {
      case .folder(let folder):
        try write(folder, by: Rewriting(form: nil, format: .safetensors, values: values), to: target, in: context, &result)
        for (component, json) in configurations {
          let place = folder.isComponent ? target : target.appending(path: component, directoryHint: .isDirectory)
          try json.writeBesideThenRename(to: place.appending(path: "config.json"))
        }
      case .checkpoint:
        for (component, own) in values.sorted(by: { $0.key < $1.key }) {
          let place = values.count == 1 ? target : target.appending(path: component, directoryHint: .isDirectory)
          if values.count > 1 { try makeDirectory(place) }
          try write(component, own, configuration: configurations[component], to: place, in: context)
        }
      }
    }
  }

  /// A component of a single file as the folder of a component.
  private func write(
    _ component: String, _ values: [String: Tensor], configuration: Data?, to place: URL, in context: ExecutionContext
  ) throws {
    try context.checkCancellation()
    try (configuration ?? requiredConfiguration(of: component)).writeBesideThenRename(to: place.appending(path: "config.json"))
    let stem = className(of: component)?.hasPrefix("CLIP") == true ? "model" : WeightFiles.diffusersStem
    var rest: [String: WeightTensor] = [:]
    for (name, tensor) in try table(of: component).table.tensors { rest[name] = values[name].map { WeightTensor($0) } ?? tensor.weights }
    try SafetensorsWriter.write(rest, to: place.appending(path: stem + ".safetensors"))
  }

  private func checkPlace(_ url: URL) throws {
    guard (try? url.checkResourceIsReachable()) != true else {
      throw FileWriteError.exists(path: url.path(percentEncoded: false))
    }
    guard elsewhere.isEmpty else {
      throw ModelFilesError.notAModel(
        path: self.url.path(percentEncoded: false), reason: "components from other files are not written with it")
    }
  }

  /// What becomes of the tensors of a folder.
  private struct Rewriting {
    /// Nil: that of the file.
    let form: WeightForm?
    /// Of the new files.
    let format: WeightFileFormat
    /// New values of components' parameters, by the names that layers ask for.
    let values: [String: [String: Tensor]]
  }

  private func write(
    _ folder: ModelFolder, by rewriting: Rewriting, to target: URL, in context: ExecutionContext, _ result: inout ModelConversion,
    progress: (_ component: String) -> Void = { _ in }
  ) throws {
    if !folder.isComponent { try copy(folder.others(in: nil), from: folder.url, to: target, in: context) }
    for component in folder.components.map(\.name) {
      progress(component)
      try write(component, of: folder, by: rewriting, to: target, in: context, &result)
    }
  }

  private func write(
    _ component: String, of folder: ModelFolder, by rewriting: Rewriting, to target: URL, in context: ExecutionContext,
    _ result: inout ModelConversion
  ) throws {
    // Every picture needs the components that the library can build.
    let isNeeded = registry[className(of: component)] != nil
    let origin = folder.url.appending(path: component)
    let place = folder.isComponent ? target : target.appending(path: component, directoryHint: .isDirectory)
    guard isNeeded || FileManager.default.fileExists(atPath: origin.path(percentEncoded: false)) else { return }
    let others = try folder.others(in: component)
    if !folder.isComponent { try makeDirectory(place) }
    try copy(others, from: origin, to: place, in: context)
    guard !ComponentRegistry.isWeightless(className(of: component)) else { return }
    do {
      let (file, table, files) = try folder.storedWeights(of: component)
      let values = rewriting.values[component] ?? [:], type = className(of: component) ?? ""
      let tensors = table.tensors.map { name, tensor in
        let new = KeyNames.current(name, className: type).flatMap { values[$0] }
        return ConvertedTensor(
          name, new.map { StoredTensor(shape: tensor.shape, $0) } ?? tensor, rule: quantization(of: component), form: rewriting.form,
          format: rewriting.format)
      }
      let name = WeightFiles.name(of: rewriting.format, insteadOf: file.lastPathComponent)
      try write(
        tensors, metadata: files.first?.metadata ?? [:], as: rewriting.format, to: place.appending(path: name), in: context, &result)
    } catch let problem where !isNeeded && (problem is ModelFilesError || problem is PyTorchFileError) {
      result.leftOut.append(component)
    }
  }

  private func write(
    _ tensors: [ConvertedTensor], metadata: [String: String], as format: WeightFileFormat, to url: URL, in context: ExecutionContext,
    _ result: inout ModelConversion
  ) throws {
    // What a GGUF file says of its own layout is not true of another file.
    let metadata = metadata.filter { $0.key != GGUFHeader.alignmentKey && !$0.key.hasPrefix(GGUFFile.shapePrefix) }
    switch format {
    case .safetensors:
      let layout = SafetensorsLayout(
        tensors.map { tensor in tensor.type.map { .init(tensor.name, tensor.shape, as: $0) } ?? .init(tensor.name, tensor.original) },
        metadata: metadata)
      try write(tensors, after: layout.header, order: layout.entries.map { ($0.name, 0) }, to: url, in: context, &result)
    case .gguf:
      let layout = try GGUFLayout(tensors.map { .init($0.name, $0.shape, $0.storedType, bytes: $0.bytes) }, metadata: metadata)
      try write(tensors, after: layout.header, order: layout.entries.map { ($0.name, $0.padding) }, to: url, in: context, &result)
    }
  }

  /// - Parameter order: of the tensors in the file, and how many zeros follow each.
  private func write(
    _ tensors: [ConvertedTensor], after header: Data, order: [(name: String, padding: Int)], to url: URL, in context: ExecutionContext,
    _ result: inout ModelConversion
  ) throws {
    let byName = Dictionary(tensors.map { ($0.name, $0) }) { first, _ in first }
    try FileWriting.writeBesideThenRename(to: url) { append in
      try append(header)
      for (name, padding) in order {
        try context.checkCancellation()
        try byName[name]?.append(to: append, in: context)
        try append(Data(count: padding))
      }
    }
    result.bytesRead += tensors.reduce(0) { $0 + $1.original.data.count }
    result.bytesWritten += tensors.reduce(header.count) { $0 + $1.bytes } + order.reduce(0) { $0 + $1.padding }
  }

  private func copy(_ names: [String], from origin: URL, to target: URL, in context: ExecutionContext) throws {
    for name in names {
      try context.checkCancellation()
      let file = origin.appending(path: name)
      guard let data = try? Data(mapping: file) else {
        throw ModelFilesError.unreadable(path: file.path(percentEncoded: false), reason: "its permissions forbid it")
      }
      try data.writeBesideThenRename(to: target.appending(path: name))
    }
  }

  private func makeDirectory(_ url: URL) throws {
    do {
      try FileManager.default.createDirectory(at: url, withIntermediateDirectories: false)
    } catch {
      throw FileWriteError.failed(path: url.path(percentEncoded: false), reason: "its folder cannot be made")
    }
  }
}

/// A tensor that is copied or converted from one file to another.
private struct ConvertedTensor {
  let name: String
  let original: StoredTensor
  /// The new format; nil if the tensor stays unchanged.
  let type: NumberFormat?

  var shape: Shape { original.shape }
  var storedType: String { type?.name ?? original.elementType }
  var bytes: Int { type.map { $0.bytes(of: shape) ?? 0 } ?? original.data.count }

  /// - Parameters:
  ///   - rule: the rule of the tensor's component; nil if it belongs to none and stays unchanged, unless no file could hold it so.
  ///   - form: of the new file; nil: the tensor stays unchanged in the same way.
  ///   - format: of the new file; in GGUF files only matrices have blocks.
  init(_ name: String, _ original: StoredTensor, rule: QuantizationRule?, form: WeightForm?, format: WeightFileFormat) {
    (self.name, self.original) = (name, original)
    guard let held = original.format, Self.isConverted(original) else {
      type = nil
      return
    }
    if let rule, let form {
      let type = form.elementType(of: held, shape: original.shape, name: name, rule: rule)
      self.type = format == .gguf && type.blockValues > 1 && original.shape.rank != 2 ? held.ofSixteenBits : type
    } else {
      type = held.blockValues > 1 || original.format != original.stored ? held.ofSixteenBits : nil
    }
  }

  func append(to append: (Data) throws(FileWriteError) -> Void, in context: ExecutionContext) throws {
    guard let type else { return try self.append(original.data, to: append, in: context) }
    guard let tensor = original.weights else { throw WeightError.unsupportedElementType(name: name, type: original.elementType) }
    try self.append(tensor.converted(to: type, name: name, in: context).data, to: append, in: context)
    tensor.releasePages()
  }

  /// Whole numbers and booleans are counts or indices, so they stay unchanged. A layer that computes with them converts them.
  private static func isConverted(_ tensor: StoredTensor) -> Bool {
    !["BOOL", "I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"].contains(tensor.elementType)
  }

  /// Writes in pieces, so that a cancellation need not wait for a large tensor on a slow disk.
  private func append(_ data: Data, to append: (Data) throws(FileWriteError) -> Void, in context: ExecutionContext) throws {
    var rest = data[...]
    while !rest.isEmpty {
      try context.checkCancellation()
      try append(rest.prefix(8 << 20))
      rest = rest.dropFirst(8 << 20)
    }
  }
}

extension StoredTensor {
  /// Float32 values under a shape of as many elements.
  fileprivate init(shape: Shape, _ values: Tensor) {
    self.init(shape: shape, elementType: NumberFormat.float32.name, data: WeightTensor(values).data)
  }
}
