import Foundation
import LatentDiffusionComponents
import LatentDiffusionFiles
import LatentDiffusionWeights
import Tensor

/// What an autoencoder makes of pictures and what a text encoder makes of captions, computed once and kept in a file.
///
/// The file is a safetensors file that is written beside and renamed. Each entry is named by what it was made of: a picture's pixels with the part of them
/// that is seen, or a prompt. So a picture, a resolution or a caption that is changed is found missing and encoded anew, and what nobody asks for any more is
/// dropped. With the entries stand the hashes of the models that made them; entries of another model are dropped. Entries are pages of the file, not memory.
public struct EncodingCache: Sendable {
  /// Where the file is; nil: the entries are in memory.
  public let url: URL?
  private var file: EncodingCacheFile

  /// Bytes of new entries that are kept in memory before they are written.
  private static let longestWait = 256 << 20
  /// Pictures of more pixels are encoded one after the other, so that not several need their memory.
  private static let largestApart = 256 * 256

  /// A cache in a file, which may exist already, or in memory.
  ///
  /// - Throws: `TrainingDataError.noCache` where there is a file of another kind, which is left as it is.
  public init(at url: URL?) throws(TrainingDataError) {
    self.url = url
    file = try EncodingCacheFile(at: url)
  }

  /// Encodes those pictures that the cache lacks. Afterwards it holds these and no others.
  ///
  /// The context's `progress` is told how many were encoded. What is encoded is written now and then, and where the work ends early: the next time, only the
  /// rest is encoded. Each picture is encoded by itself, so the result does not depend on which ones were there, nor on the number of threads.
  ///
  /// - Parameters:
  ///   - pictures: as `BatchOrder.framedPictures` gives them.
  ///   - autoencoder: encodes them.
  ///   - model: of the files that the autoencoder was made of: `ContentHash(sampling:)`.
  /// - Throws: `TrainingDataError.changed`, what the autoencoder throws, `CancellationError`, and `FileWriteError`.
  public mutating func encode(
    _ pictures: [FramedPicture], by autoencoder: any LatentAutoencoder, model: ContentHash, in context: ExecutionContext
  ) throws -> CacheReport {
    try fill(.pictures, with: pictures, keys: pictures.map(\.content), model: model, in: context) { file, missing, context in
      let count = Self.together(missing, context.threads)
      let encoded = try context.apart(count) { index, own in
        let picture = missing[missing.startIndex + index]
        return try autoencoder.checkedEncode(picture.tensor(), in: count == 1 ? context : own)
      }
      for (picture, encoded) in zip(missing, encoded) { file.add(encoded, as: picture.content.description) }
      return count
    }
  }

  /// How many of the next pictures are encoded at once, each on a thread.
  private static func together(_ pictures: ArraySlice<FramedPicture>, _ threads: Int) -> Int {
    let small = pictures.prefix(4 * threads).prefix { $0.frame.size.width * $0.frame.size.height <= largestApart }
    return max(small.count, 1)
  }

  /// Encodes those prompts that the cache lacks. Afterwards it holds these and no others.
  ///
  /// - Parameters:
  ///   - prompts: all captions, and the empty prompt where captions are left out now and then.
  ///   - conditioner: encodes them.
  ///   - model: of the files that the conditioner was made of, and of the adapters and embeddings that it has.
  /// - Throws: what the conditioner throws, `CancellationError`, and `FileWriteError`.
  public mutating func encode(
    _ prompts: [Prompt], by conditioner: any TextConditioner, model: ContentHash, in context: ExecutionContext
  ) throws -> CacheReport {
    try fill(.texts, with: prompts, keys: prompts.map(\.content), model: model, in: context) { file, missing, context in
      guard let prompt = missing.first else { return 0 }
      let request = ConditioningRequest([prompt], size: PixelSize(width: 0, height: 0))
      var conditioning = try conditioner.condition(request, in: context)
      // What follows from the sizes is another for each picture.
      for name in try conditioner.sizeInputs(request).keys { conditioning.inputs[name] = nil }
      file.add(conditioning, as: prompt.content.description)
      return 1
    }
  }

  /// - Parameter encode: encodes the first of those that are missing, and returns how many.
  private mutating func fill<Source>(
    _ kind: CacheReport.Kind, with sources: [Source], keys: [ContentHash], model: ContentHash, in context: ExecutionContext,
    _ encode: (inout EncodingCacheFile, ArraySlice<Source>, ExecutionContext) throws -> Int
  ) throws -> CacheReport {
    var report = file.keep(kind, Set(keys.map(\.description)), model: model)
    var seen: Set<ContentHash> = []
    let missing = zip(sources, keys).filter { seen.insert($1).inserted && !file.holds($1.description, of: kind) }.map(\.0)
    var own = context
    own.progress = nil
    do {
      while report.encoded < missing.count {
        context.progress?(report.encoded, missing.count)
        try context.checkCancellation()
        report.encoded += try encode(&file, missing[report.encoded...], own)
        if file.waitingBytes > Self.longestWait { try file.write(to: url) }
      }
    } catch {
      // The reason is told, not that the rest could not be written either.
      try? file.write(to: url)
      throw error
    }
    if !missing.isEmpty { context.progress?(missing.count, missing.count) }
    try file.write(to: url)
    return report
  }

  /// What was made of the pictures of a batch: `[N, h, w, C]`.
  ///
  /// - Throws: `TrainingDataError.notEncoded`, and `noCache` for an entry that is damaged.
  public func encoded(_ pictures: [FramedPicture]) throws(TrainingDataError) -> EncodedPicture {
    var rows: [EncodedPicture] = []
    for picture in pictures {
      guard let row = try file.encodedPicture(picture.content.description) else { throw .notEncoded(picture.picture.name) }
      rows.append(row)
    }
    let gaussians = rows.compactMap(\.gaussian)
    guard !rows.isEmpty, gaussians.isEmpty || gaussians.count == rows.count, Set(rows.map(\.mode.shape.dimensions)).count == 1
    else { throw .noCache(path: url?.path(percentEncoded: false) ?? "Memory", reason: "its entries do not fit together") }
    func joined(_ tensors: [Tensor]) -> Tensor { Tensor.concatenated(tensors, axis: 0) }
    return gaussians.isEmpty
      ? .latents(joined(rows.map(\.mode)))
      : .distribution(DiagonalGaussian(mean: joined(gaussians.map(\.mean)), logVariance: joined(gaussians.map(\.logVariance))))
  }

  /// What was made of prompts, a row for each, without what follows from sizes.
  ///
  /// - Throws: `TrainingDataError.notEncoded`, and `noCache` for an entry that is damaged; `ComponentError` for entries that cannot be joined.
  public func conditioning(_ prompts: [Prompt]) throws -> Conditioning { try .concatenated(prompts.map(row)) }

  /// What a batch is guided by: what was made of prompts, one for each picture, and what the conditioner tells of the sizes of each.
  ///
  /// - Parameters:
  ///   - prompts: the captions of the batch, or what takes their place.
  ///   - batch: as many pictures.
  ///   - conditioner: the one that encoded the prompts.
  /// - Precondition: there is a prompt for each picture.
  /// - Throws: what `conditioning(_:)` throws, and what the conditioner throws for sizes that it does not take.
  public func conditioning(_ prompts: [Prompt], for batch: TrainingBatch, by conditioner: any TextConditioner) throws -> Conditioning {
    precondition(prompts.count == batch.pictures.count, "\(prompts.count) prompts for \(batch.pictures.count) pictures.")
    return try .concatenated(
      zip(prompts, batch.pictures).map { prompt, picture in
        let inputs = try conditioner.sizeInputs(ConditioningRequest([prompt], size: batch.size, sizes: picture.sizes))
        return try row(prompt).adding(Conditioning(rows: 1, inputs: inputs))
      })
  }

  private func row(_ prompt: Prompt) throws -> Conditioning {
    guard let row = try file.conditioning(prompt.content.description) else {
      throw TrainingDataError.notEncoded("The text \"\(prompt.text)\"")
    }
    return row
  }
}

/// What became of a cache's entries of one kind.
public struct CacheReport: Sendable, Hashable, CustomStringConvertible {
  /// Of what the entries are.
  public enum Kind: String, Sendable, Hashable {
    /// Latents of pictures.
    case pictures
    /// States of texts.
    case texts
  }

  /// Of what the entries are.
  public let kind: Kind
  /// The file, or "Memory".
  public let path: String
  /// Entries that were there and are used.
  public internal(set) var kept: Int
  /// Entries that were computed.
  public internal(set) var encoded = 0
  /// Entries that nobody asked for: of other pictures, captions or settings.
  public internal(set) var dropped: Int
  /// Entries that another model had made.
  public internal(set) var stale: Int

  public var description: String {
    func words(_ count: Int) -> String { count == 1 ? "1 \(kind.rawValue.dropLast()) was" : "\(count) \(kind.rawValue) were" }
    var parts = ["\(encoded) of \(kept + encoded) \(kind.rawValue) \(encoded == 1 ? "was" : "were") encoded and the others were there"]
    if encoded == 0 { parts = [kept == 1 ? "\(words(1)) there" : "all \(words(kept)) there"] }
    if kept == 0 { parts = ["\(words(encoded)) encoded"] }
    if stale > 0 { parts.append("\(stale) that another model had made \(stale == 1 ? "was" : "were") dropped") }
    if dropped > 0 { parts.append("\(dropped) of other data or settings \(dropped == 1 ? "was" : "were") dropped") }
    return path + ": " + parts.joined(separator: "; ") + "."
  }
}

extension Prompt {
  fileprivate var content: ContentHash {
    var hash = ContentHash()
    hash.add(text)
    hash.add(skippedLayers)
    hash.add(second ?? "")
    // What was kept before there were profiles stays found.
    if profile != .diffusers { hash.add(profile.rawValue) }
    return hash
  }
}
