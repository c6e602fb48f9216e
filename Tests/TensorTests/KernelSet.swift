import CLatentDiffusionKernels
import Foundation
import LatentDiffusionTestSupport
import Testing

/// An instruction set that this machine has.
struct KernelSet: Sendable, CustomTestStringConvertible {
  let code: Int32

  var table: ck_kernels { ck_kernels_for(code)?.pointee ?? ck_table_plain }
  var testDescription: String { String(cString: table.name) }

  /// All but the plain one.
  static let vectors = [
    CK_SET_AVX2, CK_SET_AVX_VNNI, CK_SET_AVX512, CK_SET_AVX512_VNNI, CK_SET_AVX512_BF16, CK_SET_AMX, CK_SET_NEON,
  ].map { KernelSet(code: Int32($0)) }.filter { ck_kernels_for($0.code) != nil }
  static let all = [KernelSet(code: Int32(CK_SET_PLAIN))] + vectors
}

/// What a product's sums begin with.
enum Beginning: CaseIterable { case zero, bias, residual, biasAndResidual, accumulated }

/// The largest difference that a kernel showed over many shapes.
struct Worst {
  private var difference: Difference?
  private var place = ""

  /// Compares with the plain kernel's answer, up to `tolerance` times its root mean square.
  mutating func take(
    _ found: [Float], _ expected: [Float], tolerance: Float, _ name: @autoclosure () -> String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    note(compare(found, expected, absolute: tolerance * rootMeanSquare(expected)), name(), sourceLocation)
  }

  /// Compares element by element.
  mutating func take(
    _ found: [Float], _ expected: [Float], relative: Float, absolute: Float, _ name: @autoclosure () -> String,
    sourceLocation: SourceLocation = #_sourceLocation
  ) {
    note(compare(found, expected, relative: relative, absolute: absolute), name(), sourceLocation)
  }

  private mutating func note(_ new: Difference, _ name: String, _ sourceLocation: SourceLocation) {
    if !new.isTolerable { Issue.record("\(name): \(new)", sourceLocation: sourceLocation) }
    if new.error >= difference?.error ?? 0 { (difference, place) = (new, name) }
  }

  func report(_ kernel: String, _ set: KernelSet) {
    guard let difference else { return }
    print("\(set.testDescription) \(kernel): \(difference), \(place)")
  }
}

func rootMeanSquare(_ values: [Float]) -> Float {
  let finite = values.filter(\.isFinite)
  return Float((finite.reduce(0) { $0 + Double($1) * Double($1) } / Double(max(finite.count, 1))).squareRoot())
}

/// Whether this process multiplies factors of two bfloat16 each, which round each product to some 17 bits: where a tolerance is for float32's 24, it is
/// larger by as much as the worst of many results shows.
let splitsFactors: Bool = {
  let asked = ProcessInfo.processInfo.environment["LATENTDIFFUSION_KERNELS"] ?? "amx"
  return asked == "amx" && ck_kernels_for(Int32(CK_SET_AMX)) != nil
}()
