#include "CKernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c"))), apply_to = function)
#define CK_NAME "avx512"
#define CK_TABLE ck_table_avx512
#include "avx512.inc"
#pragma clang attribute pop
#endif
