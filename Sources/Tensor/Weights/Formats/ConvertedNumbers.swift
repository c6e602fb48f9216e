extension NumberFormat {
  /// Doubles, whole numbers and truth values, which are read and not written.
  static let convertedNumbers: [NumberFormat] = [
    NumberFormat(ConvertedNumbers<Double>.self), NumberFormat(ConvertedNumbers<Int64>.self), NumberFormat(ConvertedNumbers<UInt64>.self),
    NumberFormat(ConvertedNumbers<Int32>.self), NumberFormat(ConvertedNumbers<UInt32>.self), NumberFormat(ConvertedNumbers<Int16>.self),
    NumberFormat(ConvertedNumbers<UInt16>.self), NumberFormat(ConvertedNumbers<Int8>.self), NumberFormat(ConvertedNumbers<UInt8>.self),
    NumberFormat(ConvertedNumbers<TruthValue>.self), NumberFormat(ConvertedNumbers<PowerOfTwo>.self),
  ]
}

/// Numbers that become float32 one by one, rounded to the nearest, as PyTorch's `to(torch.float32)` does.
private enum ConvertedNumbers<Value: ConvertedNumber>: NumberCoding {
  static var name: String { Value.formatName }
  static var blockBytes: Int { MemoryLayout<Value>.size }

  static func decode(_ blocks: Int, from source: UnsafeRawPointer, into values: UnsafeMutablePointer<Float>) {
    for index in 0..<blocks {
      values[index] = source.loadUnaligned(fromByteOffset: index * MemoryLayout<Value>.size, as: Value.self).float
    }
  }
}

private protocol ConvertedNumber: BitwiseCopyable, Sendable {
  /// safetensors' name of the type.
  static var formatName: String { get }
  var float: Float { get }
}

extension ConvertedNumber where Self: BinaryInteger {
  fileprivate var float: Float { Float(self) }
}

extension Double: ConvertedNumber {
  fileprivate static var formatName: String { "F64" }
  fileprivate var float: Float { Float(self) }
}

extension Int64: ConvertedNumber { fileprivate static var formatName: String { "I64" } }
extension UInt64: ConvertedNumber { fileprivate static var formatName: String { "U64" } }
extension Int32: ConvertedNumber { fileprivate static var formatName: String { "I32" } }
extension UInt32: ConvertedNumber { fileprivate static var formatName: String { "U32" } }
extension Int16: ConvertedNumber { fileprivate static var formatName: String { "I16" } }
extension UInt16: ConvertedNumber { fileprivate static var formatName: String { "U16" } }
extension Int8: ConvertedNumber { fileprivate static var formatName: String { "I8" } }
extension UInt8: ConvertedNumber { fileprivate static var formatName: String { "U8" } }

/// A boolean in a byte.
private struct TruthValue: ConvertedNumber {
  static var formatName: String { "BOOL" }
  let byte: UInt8
  var float: Float { Float(byte) }
}

/// A scale as an exponent alone. Source: OCP Microscaling Formats 1.0.
private struct PowerOfTwo: ConvertedNumber {
  static var formatName: String { "F8_E8M0" }
  let byte: UInt8
  var float: Float { byte == 0xFF ? .nan : Float(sign: .plus, exponent: Int(byte) - 127, significand: 1) }
}
