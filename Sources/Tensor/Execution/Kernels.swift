import CLatentDiffusionKernels
import Foundation

/// The SIMD kernels of this process.
enum Kernels {
  /// The best set that the processor has. The environment variable `LATENTDIFFUSION_KERNELS` (plain, avx2, avxvnni, avx512, avx512vnni, avx512bf16, amx,
  /// neon, blas) selects another one, for comparison. A set that the processor lacks is not used.
  nonisolated(unsafe) static let active: ck_kernels = {
    if let set = sets[asked], let table = ck_kernels_for(Int32(set)) { return table.pointee.forThisProcessor() }
    let byWorth = ["amx", "avx512bf16", "avx512vnni", "avx512", "avxvnni", "avx2", "neon"]
    let best = byWorth.lazy.compactMap { sets[$0].flatMap { ck_kernels_for(Int32($0)) } }.first?.pointee.forThisProcessor()
    #if canImport(Accelerate)
      return (best ?? ck_table_plain).withBLASProducts()
    #else
      return asked == "blas" ? (best ?? ck_table_plain).withBLASProducts() : best ?? ck_table_plain.withBLASProducts()
    #endif
  }()

  /// The set that the environment variable names; empty if there is none.
  fileprivate static let asked = ProcessInfo.processInfo.environment["LATENTDIFFUSION_KERNELS"] ?? ""

  fileprivate static let sets = [
    "amx": CK_SET_AMX, "avx512bf16": CK_SET_AVX512_BF16, "avx512vnni": CK_SET_AVX512_VNNI, "avx512": CK_SET_AVX512,
    "avxvnni": CK_SET_AVX_VNNI, "avx2": CK_SET_AVX2,
    "neon": CK_SET_NEON, "plain": CK_SET_PLAIN,
  ]

  /// The name of the set in use.
  static var name: String { String(cString: active.name) }
}

/// The kernels that this process computes with, for programs that report them.
public enum KernelSet {
  /// The set in use: `amx`, `avx512bf16`, `avx512vnni`, `avx512`, `avxvnni`, `avx2`, `neon` or `plain`.
  public static var active: String { Kernels.name }

  /// Why the set that the environment variable `LATENTDIFFUSION_KERNELS` names is not used; nil if it is used, or none is named.
  public static var problem: String? {
    let asked = Kernels.asked
    guard !asked.isEmpty, asked != "blas" else { return nil }
    guard let set = Kernels.sets[asked] else {
      let known = (Kernels.sets.keys + ["blas"]).sorted().joined(separator: ", ")
      return "LATENTDIFFUSION_KERNELS is \"\(asked.prefix(80))\", which is no set of kernels; \(active) is used. Known are \(known)."
    }
    return ck_kernels_for(Int32(set)) == nil
      ? "LATENTDIFFUSION_KERNELS asks for \(asked), which this processor lacks; \(active) is used." : nil
  }

  /// Whether the library was built without optimisation, which makes it about ten times slower.
  public static var isDebugBuild: Bool {
    #if DEBUG
      true
    #else
      false
    #endif
  }
}

extension ck_kernels {
  /// The kernels without those that the processor can run but that gain nothing on it.
  fileprivate func forThisProcessor() -> ck_kernels {
    var kernels = self
    if ck_adds_beside_products() == 0 { kernels.gemm_panel_crossed = nil }
    // The plain set computes with floats. Its kernels for words and bytes exist only to test those of other sets.
    if String(cString: name) == "plain" {
      (kernels.gemm_panel_crossed, kernels.gemm_panel_pairs, kernels.gemm_panel_split, kernels.gemm_windows) = (nil, nil, nil, nil)
      kernels.gemm_panel_q8 = nil
    }
    return kernels
  }
}

extension UnsafeMutablePointer<Float> {
  /// The same memory as words of two bfloat16 each.
  var words: UnsafeMutablePointer<UInt32> { UnsafeMutableRawPointer(self).assumingMemoryBound(to: UInt32.self) }
}

extension UnsafePointer<Float> {
  /// The same memory as words of two bfloat16 each.
  var words: UnsafePointer<UInt32> { UnsafeRawPointer(self).assumingMemoryBound(to: UInt32.self) }
}
