import Tensor

/// Floats of 8 bits with scales, as ComfyUI's files have them: beside `NAME.weight` there is `NAME.scale_weight` or `NAME.weight_scale`, one number or one for
/// each row, and a value of the weight is to be multiplied by it.
enum ScaledFloats {
  private static let weight = ".weight"
  private static let scales = [".scale_weight", ".weight_scale"]
  /// What such a file also has and nothing here computes with: scales for activations of 8 bits, and descriptions of the format.
  private static let others = [".scale_input", ".input_scale", ".comfy_quant"]
  /// A tensor without numbers that only says what the file is.
  private static let mark = "scaled_fp8"

  /// The tensors with their scales, which are tensors no more.
  static func joined(_ tensors: [String: StoredTensor], path: String) throws(SafetensorsError) -> [String: StoredTensor] {
    var result = tensors
    for (name, tensor) in tensors where tensor.elementType.hasPrefix("F8_E") && name.hasSuffix(weight) {
      let base = name.dropLast(weight.count), beside = scales.map { base + $0 }.filter { tensors[$0] != nil }
      guard let key = beside.first, let scale = tensors[key] else { continue }
      func fail(_ reason: String) -> SafetensorsError { .invalidTensor(path: path, name: name, reason: reason) }
      guard beside.count == 1 else { throw fail("has two scales, \(beside.joined(separator: " and "))") }
      let rows = tensor.shape.dimensions.first ?? 1
      guard scale.shape.count == 1 || rows > 0 && scale.shape.count == rows && scale.shape.dimensions.first == rows,
        let values = scale.weights,
        values.isFinite
      else {
        throw fail("has the scale \(key) of shape \(scale.shape), which is not one number, nor one for each row")
      }
      result[name] = StoredTensor(tensor, shape: tensor.shape, data: tensor.data, scales: values.decoded())
      for key in [key] + others.map({ base + $0 }) { result[key] = nil }
    }
    guard result.count < tensors.count else { return tensors }
    return result.filter { $0.key != mark && !$0.key.hasSuffix("." + mark) }
  }
}
