import Foundation
import ImageFiles
import LatentDiffusion

/// A LoRA by its name, and how strongly to apply it.
struct LoraUse: Sendable, Equatable, Codable {
  var name: String
  var strength: Double
}

/// Pixels to add around a picture.
struct Borders: Sendable, Equatable, Codable {
  var left = 0
  var right = 0
  var top = 0
  var bottom = 0
}

/// What a job is to draw, whoever asked: the fields that the three interfaces have in common. What is nil is left to the model.
struct PictureRequest: Sendable, Equatable, Codable {
  var prompt: String
  var negativePrompt = ""
  var model: String
  var loras: [LoraUse] = []
  var width: Int?
  var height: Int?
  var steps: Int?
  /// Times the model's own steps, where `steps` is nil.
  var effort = 1.0
  var guidance: Double?
  /// Of the first picture; each further one has the next.
  var seed: UInt64
  /// A name that `NamedScheduler` takes.
  var scheduler: String?
  var spacing: String?
  var eta: Double?
  /// How closely to keep to the picture, for models that edit by instruction; nil: what is usual.
  var imageGuidance: Double?
  var churn: Churn?
  /// Pictures, one after the other.
  var count = 1
  /// Whether there is a picture to start from, and a mask.
  var hasImage = false
  var hasMask = false
  var strength: Double?
  var keepUnmasked = true
  /// How the mask is used where it has a soft edge; nil: its edge is sharp.
  var painting: MaskPainting?
  var extend: Borders?
  var resizeMode: ResizeMode?
  /// How prompts are read and noise is drawn.
  var profile = PromptProfile.diffusers
  var clipSkip = 0
  var format = PictureForm()
  /// A preview every so many steps.
  var previewEvery: Int?
  /// So many previews in all, where `previewEvery` is nil.
  var previewCount = 0

  /// Noise that is added before steps (`s_churn` and its siblings).
  struct Churn: Sendable, Equatable, Codable {
    var amount: Double
    var minimum: Double
    var maximum: Double?
    var noise: Double
  }
}

/// How a picture is encoded.
struct PictureForm: Sendable, Equatable, Codable {
  enum Name: String, Sendable, Codable, CaseIterable { case png, jpeg, webp }

  var name = Name.png
  /// 0…100; nil: without loss, or JPEG's 95.
  var quality: Int?

  var fileExtension: String { name == .jpeg ? "jpg" : name.rawValue }
  var mediaType: String { "image/\(name.rawValue)" }

  /// - Throws: `ImageFileError`.
  func data(of picture: Picture, parameters: String?) throws -> Data {
    switch name {
    case .png: try picture.pngData(parameters: parameters)
    case .jpeg: try picture.jpegData(quality: quality ?? 95, parameters: parameters)
    case .webp: try picture.webpData(quality: quality, parameters: parameters)
    }
  }
}

/// Where pictures that clients send are decoded to look for damage: one at a time, since a large one keeps a processor busy, and others wait for answers.
@globalActor actor PictureReading { static let shared = PictureReading() }

/// The files of a request.
struct RequestFiles: Sendable {
  var image: Data?
  var mask: Data?

  /// Says whether they are pictures of a size that is allowed, before anything waits for them.
  /// - Returns: the size of the picture; nil where there is none.
  /// - Throws: `ServerError`.
  @PictureReading @discardableResult func check(_ limits: ServerLimits) throws(ServerError) -> (width: Int, height: Int)? {
    var size: (width: Int, height: Int)?
    for (name, data) in [("image", image), ("mask", mask)] {
      guard let data else { continue }
      do {
        let stated = try Picture.statedSize(of: data, name: "The \(name)")
        guard limits.allowsSent(stated) else {
          throw ServerError.field(
            name, "The \(name) has \(stated.width)×\(stated.height) pixels; send at most \(limits.sentPixels) in all.")
        }
        // The whole picture is decoded to find damage now, and not when its turn comes.
        let picture = try Picture(data: data, name: "The \(name)")
        if name == "image" { size = (picture.width, picture.height) }
      } catch let error as ServerError {
        throw error
      } catch {
        throw .field(name, "\(error)")
      }
    }
    if mask != nil, image == nil { throw .field("mask", "A mask needs a picture; send image, too.") }
    return size
  }
}

extension PictureRequest {
  /// Whether the task itself keeps what is outside the mask, and so draws the picture at its own size.
  var keepsByTask: Bool { keepUnmasked && painting == nil }

  /// Checks the canvas of a picture that is extended.
  /// - Throws: `ServerError`.
  func checkCanvas(around size: (width: Int, height: Int)?, _ limits: ServerLimits) throws(ServerError) {
    guard let extend, let size else { return }
    let (width, height) = (size.width + extend.left + extend.right, size.height + extend.top + extend.bottom)
    guard max(width, height) <= limits.side, width * height <= limits.pixels else {
      throw .field(
        "extend", "The picture would have \(width)×\(height) pixels; at most \(limits.pixels) are allowed, and \(limits.side) on a side.")
    }
  }

  /// Checks what can be said before the model is loaded.
  /// - Throws: `ServerError`.
  func check(_ limits: ServerLimits, _ shelf: ModelShelf) throws(ServerError) {
    try shelf.checkModel(model)
    for lora in loras { _ = try shelf.lora(lora.name, field: "loras") }
    if let width, let height, width * height > limits.pixels {
      throw .field("width", "\(width)×\(height) are too many pixels; ask for at most \(limits.pixels).")
    }
    if let scheduler {
      do {
        let named = try NamedScheduler(scheduler)
        guard named.kind.leadsToPictures else {
          throw ServerError.field("scheduler", "The scheduler \(named.kind.rawValue) leads from a picture to its noise and draws none.")
        }
      } catch let error as ServerError {
        throw error
      } catch {
        throw .field("scheduler", "\(error)")
      }
    }
    if let spacing, SigmaSpacing(rawValue: spacing) == nil {
      let names = SigmaSpacing.allCases.map(\.rawValue).joined(separator: ", ")
      throw .field("spacing", "There is no spacing \(spacing.prefix(100)); there are: \(names).")
    }
    if extend != nil, !hasImage { throw .field("extend", "There is nothing to extend; send image, too.") }
    if extend != nil, hasMask { throw .field("mask", "A picture that is extended takes no mask; leave out mask or extend.") }
    if resizeMode != nil, !hasImage { throw .field("resize_mode", "It says how a picture takes another size; send image, too.") }
    if strength != nil, !hasImage { throw .field("strength", "A strength says how much of a picture is changed; send image, too.") }
  }
}
