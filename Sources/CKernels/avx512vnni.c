// Like avx512.c, with the instruction for four products of bytes.
#include "CKernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx512vnni,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c"))), apply_to = function)
#define CK_DOT(sum, bytes, word) ((sum) = (vi)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(bytes), (__m512i)(word)))
#define CK_NAME "avx512vnni"
#define CK_TABLE ck_table_avx512_vnni
#include "avx512.inc"
#pragma clang attribute pop
#endif
