import Foundation
import ImageFiles
import LatentDiffusion

/// A request of OpenAI's interface.
struct OpenAIRequest: Sendable {
  private(set) var picture: PictureRequest
  private(set) var files = RequestFiles()
  let edits: Bool
  /// Pixels; nil: the model's, or those of the picture that is edited.
  let size: PixelSize?
  let quality: String
  let wantsURL: Bool
  let stream: Bool
  let partialImages: Int
  /// Fields that were understood and change nothing.
  private(set) var warnings: [String] = []

  /// Times the model's own steps.
  private static let efforts = ["low": 0.5, "medium": 1, "standard": 1, "auto": 1, "high": 2, "hd": 2, "xhigh": 3, "max": 4]

  /// - Parameter uploads: the files of a form, by their fields.
  /// - Throws: `ServerError`.
  init(
    _ given: RequestFields, _ uploads: [String: [Data]], edits: Bool, _ limits: ServerLimits, _ shelf: ModelShelf
  ) async throws(ServerError) {
    var fields = given
    self.edits = edits
    guard let prompt = try fields.text("prompt", most: limits.promptCharacters) else {
      throw .field("prompt", "A prompt says what to draw; send prompt (it may be empty).")
    }
    picture = PictureRequest(
      prompt: prompt, model: try fields.text("model") ?? shelf.defaultModel,
      seed: try fields.seed("seed") ?? .random(in: 0...UInt64(UInt32.max)))
    picture.count = try fields.integer("n", in: 1...limits.count) ?? 1
    size = try Self.size(&fields, limits)
    quality = try fields.choice("quality", among: Self.efforts.keys.sorted()) ?? "auto"
    wantsURL = try fields.choice("response_format", among: ["url", "b64_json"]) == "url"
    stream = try fields.flag("stream") ?? false
    partialImages = try fields.integer("partial_images", in: 0...3) ?? 0
    try takeFormat(&fields)
    (picture.width, picture.height, picture.effort) = (size?.width, size?.height, Self.efforts[quality] ?? 1)
    try picture.takeCommonFields(&fields, limits)
    picture.negativePrompt = try fields.text("negative_prompt", most: limits.promptCharacters) ?? ""
    picture.previewCount = stream ? partialImages : 0
    try takeIdle(&fields)
    if edits { try await takePictures(&fields, uploads, limits) }
    if let unknown = fields.left.first { throw .field(unknown, "There is no field \(unknown.prefix(100)).") }
    if stream, wantsURL { throw .field("response_format", "A stream carries pictures in base64; leave out response_format or stream.") }
    if partialImages > 0, !stream { throw .field("partial_images", "Partial images come in a stream; send stream, too.") }
    try picture.check(limits, shelf)
    try await files.check(limits)
  }

  private static func size(_ fields: inout RequestFields, _ limits: ServerLimits) throws(ServerError) -> PixelSize? {
    guard let text = try fields.text("size", most: 40), text != "auto" else { return nil }
    let sides = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) }
    guard sides.count == 2, let width = sides[0], let height = sides[1], (1...limits.side).contains(width),
      (1...limits.side).contains(height)
    else {
      throw .field("size", "size is \"\(text)\"; it must be auto or WIDTHxHEIGHT, each from 1 to \(limits.side).")
    }
    return PixelSize(width: width, height: height)
  }

  private mutating func takeFormat(_ fields: inout RequestFields) throws(ServerError) {
    let names = PictureForm.Name.allCases.map(\.rawValue)
    let name = try fields.choice("output_format", among: names).flatMap(PictureForm.Name.init) ?? .png
    let quality = try fields.integer("output_compression", in: 0...100)
    if quality != nil, name == .png { throw .field("output_compression", "PNG loses nothing; output_compression goes with jpeg and webp.") }
    picture.format = PictureForm(name: name, quality: quality ?? (name == .png ? nil : 100))
  }

  /// What changes nothing here: it is said, unless it asks for what happens anyway.
  private mutating func takeIdle(_ fields: inout RequestFields) throws(ServerError) {
    if try fields.choice("background", among: ["auto", "opaque", "transparent"]) == "transparent" {
      throw .field("background", "These models draw opaque pictures; background must be auto or opaque.")
    }
    if try fields.choice("style", among: ["vivid", "natural"]) != nil {
      warnings.append("style changes nothing with these models; say it in the prompt.")
    }
    if try fields.choice("moderation", among: ["auto", "low"]) != nil {
      warnings.append("moderation changes nothing: no picture is moderated.")
    }
    // Names of people are for the operator's own logs, which this server does not keep.
    for name in ["user", "safety_identifier"] { _ = try fields.text(name, most: 1000) }
  }

  private mutating func takePictures(
    _ fields: inout RequestFields, _ uploads: [String: [Data]], _ limits: ServerLimits
  ) async throws(ServerError) {
    for name in uploads.keys where !["image", "mask"].contains(name) { throw .field(name, "There is no file \(name.prefix(100)).") }
    let images = uploads["image"] ?? []
    guard images.count < 2 else { throw .field("image", "One picture is edited at a time; \(images.count) were sent.") }
    let sentImage = try fields.file("image"), sentMask = try fields.file("mask")
    guard let image = images.first ?? sentImage else { throw .field("image", "There is nothing to edit; send image.") }
    picture.strength = try fields.number("strength", in: 0...1)
    files = RequestFiles(image: image, mask: uploads["mask"]?.first ?? sentMask)
    picture.hasImage = true
    // What is transparent is painted anew: of the mask, or else of the picture itself.
    if let mask = files.mask {
      files.mask = try await Self.painted(mask, "mask", limits) ?? mask
    } else {
      files.mask = try await Self.painted(image, "image", limits)
    }
    picture.hasMask = files.mask != nil
  }

  /// A mask that is white where a picture is transparent; nil for an opaque one.
  @PictureReading private static func painted(_ data: Data, _ name: String, _ limits: ServerLimits) throws(ServerError) -> Data? {
    do {
      // The size is refused later, in a sentence of its own.
      guard limits.allowsSent(try Picture.statedSize(of: data, name: "The \(name)")) else { return nil }
      let picture = try Picture(data: data, name: "The \(name)")
      guard let alpha = picture.alpha, alpha.contains(where: { $0 < 255 }) else { return nil }
      return try Picture(width: picture.width, height: picture.height, pixels: alpha.flatMap { Array(repeating: 255 - $0, count: 3) })
        .pngData()
    } catch {
      throw .field(name, "\(error)")
    }
  }
}
