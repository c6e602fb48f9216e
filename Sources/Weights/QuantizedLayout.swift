import Tensor

/// How quantised tensors are stored in a safetensors file, whose format has no type for blocks. The tensor `NAME` is stored as `NAME.q8_0` of type U8. Its
/// axes follow the order of the bytes, and the last axis is a block's 34 bytes: `[O, I/32, 34]` for a matrix `[O, I]` and `[O, kh, kw, C/32, 34]` for a
/// kernel `[O, C, kh, kw]`. With 4 bits it is `NAME.q4_0` and 18 bytes.
enum QuantizedLayout {
  private static let forms = ["q8_0": NumberFormat.q8, "q4_0": .q4]

  static func storedName(_ name: String, _ format: NumberFormat) -> String { name + "." + format.name.lowercased() }

  static func storedShape(_ shape: Shape, _ format: NumberFormat) -> Shape {
    Shape([shape[0]] + shape.dimensions.dropFirst(2) + [shape[1] / format.blockValues, format.blockBytes])
  }

  /// Why a tensor whose name says that it is quantised cannot be used.
  enum Problem: Error {
    case unknownForm(String)
    case wrongShape(NumberFormat)
  }

  /// The tensor that a file's tensor encodes, and its name; nil if it is not quantised.
  static func tensor(_ name: String, _ stored: StoredTensor) throws(Problem) -> (name: String, tensor: StoredTensor)? {
    guard let dot = name.lastIndex(of: "."), isForm(name[name.index(after: dot)...]) else { return nil }
    let form = name[name.index(after: dot)...]
    guard let format = forms[String(form)] else { throw .unknownForm(String(form)) }
    guard stored.elementType == "U8", let shape = shape(stored.shape, format), format.bytes(of: shape) == stored.data.count else {
      throw .wrongShape(format)
    }
    let tensor = StoredTensor(
      shape: shape, elementType: format.name, data: stored.data, origin: stored.origin, isMapped: stored.isMapped)
    return (String(name[..<dot]), tensor)
  }

  private static func shape(_ stored: Shape, _ format: NumberFormat) -> Shape? {
    let extents = stored.dimensions
    guard extents.count == 3 || extents.count == 5, extents[extents.count - 1] == format.blockBytes else { return nil }
    let (inner, overflow) = extents[extents.count - 2].multipliedReportingOverflow(by: format.blockValues)
    return overflow ? nil : Shape([extents[0], inner] + extents[1..<extents.count - 2])
  }

  /// True for GGUF's names of block formats: `q8_0`, `q4_k`.
  private static func isForm(_ word: Substring) -> Bool {
    let parts = word.split(separator: "_", omittingEmptySubsequences: false)
    guard parts.count == 2, parts[0].first == "q", let bits = Int(parts[0].dropFirst()) else { return false }
    return (1...8).contains(bits) && ["0", "1", "k"].contains(parts[1].lowercased())
  }
}
