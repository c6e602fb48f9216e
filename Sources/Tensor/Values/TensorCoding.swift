import Foundation

/// A shape is encoded as its extents, outermost first.
extension Shape: Codable {
  /// More axes than anything has.
  private static let highestRank = 16

  /// - Throws: `DecodingError.dataCorrupted` where no tensor can have the shape: too many axes, an extent below 0, too many elements.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.singleValueContainer()
    dimensions = try values.decode([Int].self)
    // An extent of 0 must not hide that the others are too large.
    guard rank <= Self.highestRank, dimensions.allSatisfy({ $0 >= 0 }), Shape(dimensions.map { max($0, 1) }).count < Int.max / 8 else {
      throw DecodingError.dataCorruptedError(in: values, debugDescription: "No tensor has the shape \(self).")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var values = encoder.singleValueContainer()
    try values.encode(dimensions)
  }
}

/// A tensor is encoded as its shape and the bytes of its elements, little-endian: every encoder keeps every bit, also of infinity and NaN.
extension Tensor: Codable {
  private enum CodingKeys: CodingKey { case shape, elements }

  /// - Throws: `DecodingError.dataCorrupted` where no tensor can have the shape, or the bytes are not those of its elements.
  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    let shape = try values.decode(Shape.self, forKey: .shape)
    let bytes = try values.decode(Data.self, forKey: .elements)
    guard bytes.count == shape.count * 4 else {
      throw DecodingError.dataCorruptedError(
        forKey: .elements, in: values, debugDescription: "A tensor of shape \(shape) has \(shape.count * 4) bytes, not \(bytes.count).")
    }
    self.init(uninitialized: shape)
    bytes.withUnsafeBytes { source in
      for index in 0..<count {
        let bits = source.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self)
        storage.pointer[index] = Float(bitPattern: UInt32(littleEndian: bits))
      }
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var values = encoder.container(keyedBy: CodingKeys.self)
    try values.encode(shape, forKey: .shape)
    try values.encode(elements.map(\.bitPattern.littleEndian).withUnsafeBytes { Data($0) }, forKey: .elements)
  }
}
