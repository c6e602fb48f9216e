#include "CKernels.h"

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
// 6 × 2 accumulators, two weights and a broadcast: 15 of the 16 registers.
#define CK_LANES 8
#define CK_MR 6
#define CK_NV 2
#define CK_PART 1
#define CK_ROUNDS 8
// Compilers load values early, and then store a sum in memory in every round, whose latency halves the speed. They keep volatile assembly in order.
#define CK_ASM_LOAD(y, p) __asm__ volatile("vmovups %1, %0" : "=x"(y) : "m"(*(const vf_any *)(p)))
#define CK_ASM_PRODUCT(s, value, y)                                             \
  do {                                                                          \
    vf x;                                                                       \
    __asm__ volatile("vbroadcastss %2, %1\n\tvfmadd231ps %3, %1, %0"            \
                     : "+x"(s), "=&x"(x) : "m"(*(value)), "x"(y));              \
  } while (0)
#define CK_ASM_PRODUCTS(s0, s1, value, y0, y1)                                                              \
  do {                                                                                                      \
    vf x;                                                                                                   \
    __asm__ volatile("vbroadcastss %3, %2\n\tvfmadd231ps %4, %2, %0\n\tvfmadd231ps %5, %2, %1"             \
                     : "+x"(s0), "+x"(s1), "=&x"(x) : "m"(*(value)), "x"(y0), "x"(y1));                     \
  } while (0)
// Half a panel's rows are two cache lines apart, so they use half of the sets of the first-level cache: 256 lines of 32 KB.
#define CK_DEPTH 160
#define CK_NAME "avx2"
#define CK_TABLE ck_table_avx2
#include "vector.inc"
#pragma clang attribute pop
#endif
