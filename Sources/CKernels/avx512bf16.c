// Like avx512vnni.c, with the instruction for two products of bfloat16.
#include "CKernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512bf16,avx512vnni,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c"))), apply_to = function)
#define CK_DOT(sum, bytes, word) ((sum) = (vi)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(bytes), (__m512i)(word)))
#define CK_PAIRS(sum, x, b) ((vf)_mm512_dpbf16_ps((__m512)(sum), (__m512bh)(x), (__m512bh)(b)))
#define CK_PAIRS_HALF(sum, x, b) ((vf_half)_mm256_dpbf16_ps((__m256)(sum), (__m256bh)(x), (__m256bh)(b)))
#define CK_NARROW(x) ((vh)_mm512_cvtneps_pbh((__m512)(x)))
#define CK_NAME "avx512bf16"
#define CK_TABLE ck_table_avx512_bf16
#include "avx512.inc"
#pragma clang attribute pop
#endif
