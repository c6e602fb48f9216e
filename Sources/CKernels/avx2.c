#include "CKernels.h"

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
// 3 × 4 accumulators, three values and a weight: all 16 registers. With fewer vectors 6 × 2 accumulators, two weights and a value.
#define CK_LANES 8
#define CK_MR 3
#define CK_TALL 6
#define CK_NV 4
#define CK_PART 1
#define CK_ROUNDS 8
// Compilers load values early, and then store a sum in memory in every round, whose latency halves the speed. They keep volatile assembly in order.
#define CK_IN_ORDER
#define CK_LOAD_IN_ORDER(y, p) __asm__ volatile("vmovups %1, %0" : "=x"(y) : "m"(*(const vf_any *)(p)))
#define CK_SPLAT_IN_ORDER(x, p) __asm__ volatile("vbroadcastss %1, %0" : "=x"(x) : "m"(*(p)))
#define CK_ADD_IN_ORDER(x, y, sum) __asm__ volatile("vfmadd231ps %1, %2, %0" : "+x"(sum) : "x"(x), "x"(y))
// The weights of so many inputs take 20 of the first-level cache's 32 KB.
#define CK_DEPTH 160
#define CK_NAME "avx2"
#define CK_TABLE ck_table_avx2
#include "vector.inc"
#pragma clang attribute pop
#endif
