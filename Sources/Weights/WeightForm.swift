import Tensor

/// The forms in which a model's weights can be held and written, whatever form its files have.
public enum WeightForm: String, Sendable, CaseIterable {
  /// float32. Most models' files have 16 bits, so this takes twice their size. Narrower weights are widened exactly.
  case float32 = "f32"
  /// IEEE half precision: 11 significant bits, up to 65504.
  case float16 = "f16"
  /// bfloat16: 8 significant bits, and float32's range.
  case bfloat16 = "bf16"
  /// 8 bits in blocks of 32 with a common scale (8.5 bits a weight), for matrices and kernels whose inputs are a multiple of 32 and that their component's
  /// `QuantizationRule` allows. All other tensors keep 16 bits.
  case q8
  /// 4 bits in blocks of 32 with a common scale (4.5 bits a weight), for the same matrices and kernels. All other tensors keep 16 bits.
  case q4 = "q4_0"

  /// The element type that a tensor gets.
  ///
  /// - Parameters:
  ///   - stored: the type that the tensor has.
  ///   - name: with or without the prefix that a single file adds to the component's names.
  ///   - rule: the component's rule for 8 bits.
  func elementType(of stored: NumberFormat, shape: Shape, name: String, rule: QuantizationRule) -> NumberFormat {
    switch self {
    case .float32: .float32
    case .float16: .float16
    case .bfloat16: .bfloat16
    case .q8, .q4:
      if stored == blocks || rule.quantizes(name) {
        stored.converted(to: blocks, shape: shape)
      } else {
        stored.ofSixteenBits
      }
    }
  }

  private var blocks: NumberFormat { self == .q4 ? .q4 : .q8 }

  /// The tensor in this form.
  /// - Throws: `WeightError` if the form cannot hold it.
  func convert(
    _ tensor: WeightTensor, name: String, rule: QuantizationRule, in context: ExecutionContext?
  ) throws(WeightError) -> WeightTensor {
    try tensor.converted(to: elementType(of: tensor.elementType, shape: tensor.shape, name: name, rule: rule), name: name, in: context)
  }
}

extension WeightTensor {
  /// The tensor of a name in another format.
  /// - Throws: `WeightError` if the format cannot hold it.
  func converted(to type: NumberFormat, name: String, in context: ExecutionContext?) throws(WeightError) -> WeightTensor {
    do throws(WeightConversionError) {
      return try converted(to: type, in: context)
    } catch {
      switch error {
      case .notFinite: throw .notFinite(name: name)
      case .outOfRange(let type): throw .outOfRange(name: name, type: type)
      case .readOnly(let type): throw .unsupportedElementType(name: name, type: type.name)
      }
    }
  }
}

/// A component's weights in another form. A tensor is converted when a layer asks for it, so at most one is in memory twice.
struct ConvertedWeights: WeightSource {
  let source: any WeightSource
  let form: WeightForm
  let rule: QuantizationRule
  let context: ExecutionContext

  var names: Set<String> { source.names }

  func origin(of name: String) -> WeightOrigin { source.origin(of: name) }

  func tensor(_ name: String, shape: Shape) throws(WeightError) -> WeightTensor {
    try form.convert(source.tensor(name, shape: shape), name: name, rule: rule, in: context)
  }
}
