import CLatentDiffusionKernels

#if canImport(Accelerate)
  import Accelerate
#else
  import CLatentDiffusionOpenBLAS
#endif

extension ck_kernels {
  /// These kernels with products by the system's BLAS. That is Accelerate on Apple's processors, because only Accelerate can use their matrix
  /// unit, and OpenBLAS on processors for which there is no SIMD kernel here.
  ///
  /// A SIMD kernel is faster than OpenBLAS on panels, because the weights are packed already and the threads are the engine's.
  func withBLASProducts() -> ck_kernels {
    var kernels = self
    kernels.gemm_panel = blasPanel
    (kernels.gemm_panel_q8, kernels.gemm_panel_crossed) = (nil, nil)
    (kernels.gemm_panel_pairs, kernels.gemm_panel_split, kernels.gemm_windows) = (nil, nil, nil)
    return kernels
  }
}

/// `gemm_panel` of `ck_kernels`, by BLAS.
private func blasPanel(
  rows: Int, columns: Int, k: Int, a: UnsafePointer<Float>, lda: Int, panel: UnsafePointer<Float>, c: UnsafeMutablePointer<Float>, ldc: Int,
  begin: Int32, bias: UnsafePointer<Float>?, residual: UnsafePointer<Float>?, ldr: Int
) {
  if begin == CK_BEGIN_FRESH {
    for row in 0..<rows {
      for column in 0..<columns {
        c[row * ldc + column] = (bias?[column] ?? 0) + (residual?[row * ldr + column] ?? 0)
      }
    }
  }
  guard rows > 0, columns > 0, k > 0 else { return }
  cblas_sgemm(
    CblasRowMajor, CblasNoTrans, CblasNoTrans, .init(rows), .init(columns), .init(k), 1, a, .init(lda), panel, .init(CK_PANEL), 1, c,
    .init(ldc))
}
