#include "CKernels.h"

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
// 6 × 2 accumulators, two weights and a broadcast: 15 of the 16 registers.
#define CK_LANES 8
#define CK_MR 6
#define CK_NV 2
#define CK_PART 1
#define CK_NAME "avx2"
#define CK_TABLE ck_table_avx2
#include "vector.inc"
#pragma clang attribute pop
#endif
