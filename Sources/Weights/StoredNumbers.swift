import Foundation
import Tensor

extension StoredTensor {
  /// What layers can compute with: the elements as they are, or converted when a layer asks for them. Nil for types that hold no numbers, or that
  /// only mean something together with other tensors (`F4`, `F6_…`, `C64`).
  var numbers: StoredNumbers? {
    if let type = ElementType(rawValue: elementType) { return StoredNumbers(stored: self, conversion: .none(type)) }
    let conversion: StoredNumbers.Conversion? =
      switch elementType {
      case "F64": .values { (value: Double) in Float(value) }
      case "I64": .values { (value: Int64) in Float(value) }
      case "U64": .values { (value: UInt64) in Float(value) }
      case "I32": .values { (value: Int32) in Float(value) }
      case "U32": .values { (value: UInt32) in Float(value) }
      case "I16": .values { (value: Int16) in Float(value) }
      case "U16": .values { (value: UInt16) in Float(value) }
      case "I8": .values { (value: Int8) in Float(value) }
      case "U8", "BOOL": .values { (value: UInt8) in Float(value) }
      case "F8_E8M0": .values { (value: UInt8) in value == 0xFF ? .nan : Float(sign: .plus, exponent: Int(value) - 127, significand: 1) }
      default: SmallFloat(elementType).map { .table($0.table) }
      }
    return conversion.map { StoredNumbers(stored: self, conversion: $0) }
  }
}

/// A stored tensor whose elements layers can compute with.
struct StoredNumbers: Sendable {
  fileprivate let stored: StoredTensor
  fileprivate let conversion: Conversion

  fileprivate enum Conversion: Sendable {
    case none(ElementType)
    /// To float32, rounded to the nearest, as PyTorch's `to(torch.float32)` does.
    case convert(bytes: Int, @Sendable (_ source: Data, _ target: inout [Float]) -> Void)
    /// Each byte to half precision, which holds all floats of 8 bits exactly.
    case table([UInt16])

    static func values<Value: BitwiseCopyable>(_ convert: @escaping @Sendable (Value) -> Float) -> Conversion {
      .convert(bytes: MemoryLayout<Value>.size) { source, target in
        source.withUnsafeBytes { bytes in
          for index in target.indices {
            target[index] = convert(bytes.loadUnaligned(fromByteOffset: index * MemoryLayout<Value>.size, as: Value.self))
          }
        }
      }
    }
  }

  /// The type in which a layer is given the elements.
  var heldType: ElementType {
    switch conversion {
    case .none(let type): type
    case .convert: .float32
    case .table: .float16
    }
  }

  /// The elements as a layer is given them; nil where they are not as many as the shape says.
  var tensor: WeightTensor? {
    let (shape, data) = (stored.shape, stored.data)
    switch conversion {
    case .none(let type):
      guard data.count == type.bytes(of: shape) else { return nil }
      return WeightTensor(shape: shape, elementType: type, data: data, isMapped: stored.isMapped)
    case .convert(let bytes, let convert):
      guard data.count.isMultiple(of: bytes), data.count / bytes == shape.count else { return nil }
      var values = [Float](repeating: 0, count: shape.count)
      convert(data, &values)
      return WeightTensor(Tensor(values, shape: shape))
    case .table(let table):
      guard data.count == shape.count else { return nil }
      var halves = Data(count: 2 * data.count)
      halves.withUnsafeMutableBytes { target in
        for (index, byte) in data.enumerated() {
          target.storeBytes(of: table[Int(byte)].littleEndian, toByteOffset: 2 * index, as: UInt16.self)
        }
      }
      return WeightTensor(shape: shape, elementType: .float16, data: halves)
    }
  }
}

/// A float of 8 bits. Source: Micikevicius et al. 2022, "FP8 formats for deep learning" (arXiv:2209.05433); the variants without negative zero
/// (`FNUZ`): Noune et al. 2022 (arXiv:2206.02915), as PyTorch has them.
private struct SmallFloat {
  private let mantissaBits: Int
  private let bias: Int
  /// The variant whose only special value is NaN, where a negative zero would be.
  private let isFNUZ: Bool

  /// - Parameter name: safetensors' name of the type.
  init?(_ name: String) {
    switch name {
    case "F8_E4M3": (mantissaBits, bias, isFNUZ) = (3, 7, false)
    case "F8_E5M2": (mantissaBits, bias, isFNUZ) = (2, 15, false)
    case "F8_E4M3FNUZ": (mantissaBits, bias, isFNUZ) = (3, 8, true)
    case "F8_E5M2FNUZ": (mantissaBits, bias, isFNUZ) = (2, 16, true)
    default: return nil
    }
  }

  /// The bits in half precision of the value of every byte.
  var table: [UInt16] { (0...UInt8.max).map(half) }

  private func half(_ byte: UInt8) -> UInt16 {
    let sign = UInt16(byte & 0x80) << 8
    let exponent = Int(byte & 0x7F) >> mantissaBits, mantissa = Int(byte) & (1 << mantissaBits - 1)
    let notANumber: UInt16 = 0x7E00
    if isFNUZ, byte == 0x80 { return notANumber }
    // E4M3 has one NaN and no infinity; E5M2 has both, as IEEE formats do.
    if !isFNUZ, byte & 0x7F == 0x7F { return sign | notANumber }
    if !isFNUZ, mantissaBits == 2, exponent == 31 { return sign | (mantissa == 0 ? 0x7C00 : notANumber) }
    guard exponent > 0 || mantissa > 0 else { return sign }
    // value = significand · 2^power, normalised so that the significand is at least 1 and below 2.
    let whole = exponent == 0 ? mantissa : mantissa + 1 << mantissaBits
    let shift = Int.bitWidth - 1 - whole.leadingZeroBitCount
    let power = (exponent == 0 ? 1 : exponent) - bias - mantissaBits + shift
    // Half precision: 10 bits of mantissa, a bias of 15, and below 2^-14 multiples of 2^-24.
    let bits = whole << (10 - shift)
    return sign | (power >= -14 ? UInt16(power + 15) << 10 | UInt16(bits & 0x3FF) : UInt16(bits >> (-14 - power)))
  }
}
