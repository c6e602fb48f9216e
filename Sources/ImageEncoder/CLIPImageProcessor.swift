import Foundation
import LatentDiffusionComponents
import LatentDiffusionWeights
import Tensor

/// The keys of a `preprocessor_config.json`, under transformers' names.
private struct CLIPImageProcessorKeys: Decodable {
  var do_resize: Bool?
  var size: Size?
  var resample: Int?
  var do_center_crop: Bool?
  var crop_size: Size?
  var do_rescale: Bool?
  var rescale_factor: Double?
  var do_normalize: Bool?
  var image_mean: PerLevel<Double>?
  var image_std: PerLevel<Double>?
  var do_pad: Bool?

  /// A number, or an object of sides.
  enum Size: Decodable {
    case side(Int)
    case sides([String: Int])

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let side = try? container.decode(Int.self) {
        self = .side(side)
      } else {
        self = .sides(try container.decode([String: Int].self))
      }
    }
  }
}

/// Prepares pictures for CLIP's image tower: resized in bytes by Pillow's filter, cut at the centre, and normalised. The same numbers as transformers'
/// `CLIPImageProcessor`.
public struct CLIPImageProcessor: Sendable {
  /// A target of resizing.
  private enum Size: Sendable {
    /// Of the shorter side; the other follows.
    case shortestEdge(Int)
    case sides(height: Int, width: Int)
  }

  private let filter: ResamplingFilter
  /// Nil: pictures keep their size.
  private let size: Size?
  /// Nil: nothing is cut off.
  private let crop: PixelSize?
  /// Nil: values are 0…255.
  private let rescaling: Double?
  private let normalization: (mean: [Float], deviation: [Float])
  private let normalizes: Bool
  /// Whether pictures are blurred and interpolated to a fixed size, whatever the file says of sizes.
  private var isAntialiased = false

  /// - Parameters:
  ///   - json: a `preprocessor_config.json`; nil: transformers' defaults.
  ///   - imageSize: pixels a side, where the file does not say it.
  /// - Throws: `ConfigurationError`.
  public init(json: Data? = nil, imageSize: Int = 224) throws {
    let check = ConfigurationCheck("CLIPImageProcessor")
    let c = try decodeConfiguration(CLIPImageProcessorKeys.self, component: check.component, from: json ?? Data("{}".utf8))
    try check.supported(c.do_pad != true, "do_pad", "true")
    switch c.resample ?? 3 {
    case 1: filter = .lanczos
    case 2: filter = .bilinear
    case 3: filter = .bicubic
    case let other: throw ConfigurationError.unsupported(component: check.component, key: "resample", value: "\(other)")
    }
    size = c.do_resize == false ? nil : try Self.size(c.size ?? .side(imageSize), check)
    crop = c.do_center_crop == false ? nil : try Self.crop(c.crop_size ?? .side(imageSize), check)
    rescaling = c.do_rescale == false ? nil : c.rescale_factor ?? 1 / 255
    try check.require(rescaling?.isFinite ?? true, "rescale_factor", "it is not finite")
    func channels(_ list: PerLevel<Double>?, _ usual: [Double], _ key: String) throws -> [Float] {
      let values = (list == nil ? usual : list?.expanded(to: 3) ?? []).map { Float($0) }
      try check.require(values.count == 3 && values.allSatisfy(\.isFinite), key, "it has not one number for each of 3 channels")
      return values
    }
    let mean = try channels(c.image_mean, [0.48145466, 0.4578275, 0.40821073], "image_mean")
    let deviation = try channels(c.image_std, [0.26862954, 0.26130258, 0.27577711], "image_std")
    try check.require(deviation.allSatisfy { $0 > 0 }, "image_std", "it is not positive")
    (normalization, normalizes) = ((mean, deviation), c.do_normalize != false)
  }

  /// The same processor for Stable Video Diffusion, which resizes pictures in its own way and to a fixed size, and always normalises them. Source:
  /// `_encode_image` of diffusers' `StableVideoDiffusionPipeline`.
  public var antialiased: CLIPImageProcessor {
    var result = self
    result.isAntialiased = true
    return result
  }

  /// Pixels a side of pictures that are resized so.
  private static let antialiasedSide = 224

  /// No encoder takes larger pictures.
  private static let largestSide = 4096

  private static func check(_ sides: [Int?], _ key: String, _ check: ConfigurationCheck) throws {
    for side in sides.compactMap(\.self) {
      try check.require((1...largestSide).contains(side), key, "\(side) is not between 1 and \(largestSide)")
    }
  }

  private static func size(_ size: CLIPImageProcessorKeys.Size, _ check: ConfigurationCheck) throws -> Size {
    switch size {
    case .side(let side):
      try Self.check([side], "size", check)
      return .shortestEdge(side)
    case .sides(let sides):
      try Self.check(Array(sides.values), "size", check)
      if let edge = sides["shortest_edge"], sides.count == 1 { return .shortestEdge(edge) }
      if let height = sides["height"], let width = sides["width"], sides.count == 2 { return .sides(height: height, width: width) }
      throw ConfigurationError.unsupported(component: check.component, key: "size", value: sides.keys.sorted().joined(separator: ", "))
    }
  }

  private static func crop(_ size: CLIPImageProcessorKeys.Size, _ check: ConfigurationCheck) throws -> PixelSize {
    let (width, height): (Int?, Int?) =
      switch size {
      case .side(let side): (side, side)
      case .sides(let sides): (sides["width"], sides["height"])
      }
    try Self.check([width, height], "crop_size", check)
    guard let width, let height else {
      throw ConfigurationError.invalid(component: check.component, key: "crop_size", reason: "it has not a height and a width")
    }
    return PixelSize(width: width, height: height)
  }

  /// - Parameter picture: `[1, H, W, 3]`, 0…1.
  /// - Returns: `[1, height, width, 3]`.
  /// - Throws: `ComponentError` for what is no picture, or one so long that no filter fits it.
  public func callAsFunction(_ picture: Tensor) throws -> Tensor {
    guard picture.shape.rank == 4, picture.shape[0] == 1, picture.shape[3] == 3, picture.count > 0 else {
      throw ComponentError.unexpectedShape(
        component: "The image encoder", argument: "a picture", expected: "[1, H, W, 3]", found: picture.shape)
    }
    if isAntialiased { return antialiased(picture) }
    let (height, width) = (picture.shape[1], picture.shape[2])
    let new = resized(PixelSize(width: width, height: height))
    guard max(new.width, new.height) <= Self.longestSide else {
      throw ComponentError.outOfRange(
        component: "The image encoder", option: "pictures with sides", value: "\(width)×\(height)",
        allowed: "of which one is not thousands of times as long as the other")
    }
    let cut = crop ?? new
    let (columns, rows) = (Window(cut.width, of: new.width), Window(cut.height, of: new.height))
    let resampling = PictureResampling(
      filter, width: width, height: height, toWidth: new.width, toHeight: new.height, columns: columns.inside, rows: rows.inside)
    let bytes = resampling(picture.pictureBytes, channels: 3)
    var values = [Float](repeating: value(0, 0), count: 0)
    values.reserveCapacity(cut.width * cut.height * 3)
    for y in 0..<cut.height {
      for x in 0..<cut.width {
        let pixel = rows.offset(y).flatMap { row in columns.offset(x).map { (row * columns.inside.count + $0) * 3 } }
        // What lies outside of the picture is black.
        for channel in 0..<3 { values.append(value(pixel.map { bytes[$0 + channel] } ?? 0, channel)) }
      }
    }
    return Tensor(values, shape: [1, cut.height, cut.width, 3])
  }

  /// The longest side of a resized picture: of what is cut off, nothing is computed.
  private static let longestSide = 1 << 24

  private func resized(_ picture: PixelSize) -> PixelSize {
    switch size {
    case nil: return picture
    case .sides(let height, let width): return PixelSize(width: width, height: height)
    case .shortestEdge(let edge):
      let (short, long) = (min(picture.width, picture.height), max(picture.width, picture.height))
      let new = Int(min(Double(edge) * Double(long) / Double(short), 1e15))
      return picture.width <= picture.height ? PixelSize(width: edge, height: new) : PixelSize(width: new, height: edge)
    }
  }

  /// The part of a line that is left, which may be longer than the line.
  private struct Window {
    /// Of the line.
    let inside: Range<Int>
    private let start: Int

    init(_ length: Int, of line: Int) {
      // Rounded down, as the reference's division of a negative number is.
      start = (line - length) >> 1
      inside = max(start, 0)..<min(start + length, line)
    }

    /// The place in `inside`; nil outside.
    func offset(_ index: Int) -> Int? { inside.contains(start + index) ? start + index - inside.lowerBound : nil }
  }

  /// In the precision of NumPy's steps.
  private func value(_ byte: UInt8, _ channel: Int) -> Float {
    let value = rescaling.map { Float(Double(byte) * $0) } ?? Float(byte)
    return normalizes ? normalized(value, channel) : value
  }

  private func normalized(_ value: Float, _ channel: Int) -> Float {
    (value - normalization.mean[channel]) / normalization.deviation[channel]
  }

  private func antialiased(_ picture: Tensor) -> Tensor {
    let side = Self.antialiasedSide, resized = picture.map { 2 * $0 - 1 }.resizedWithAntialiasing(height: side, width: side)
    let values = resized.elements.enumerated().map { normalized(($1 + 1) / 2, $0 % 3) }
    return Tensor(values, shape: [1, side, side, 3])
  }
}
