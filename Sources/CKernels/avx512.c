#include "CKernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c"))), apply_to = function)
// 14 × 2 accumulators, two weights and a broadcast: 31 of the 32 registers.
#define CK_LANES 16
#define CK_MR 14
#define CK_NV 2
#define CK_PART 1
#define CK_HALF 8
#define CK_SCALE(p, n) ((vf)_mm512_scalef_ps((__m512)(p), (__m512)(n)))
#define CK_EACH "%{1to16%}"
#define CK_NAME "avx512"
#define CK_TABLE ck_table_avx512
#include "vector.inc"
#pragma clang attribute pop
#endif
