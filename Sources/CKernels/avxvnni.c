// Like avx2.c, with the instruction for four products of bytes that processors without AVX-512 have.
#include "CKernels.h"

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avxvnni,avx2,fma,f16c"))), apply_to = function)
// 6 × 2 sums, two weights and a row's word: 15 of the 16 registers.
#define CK_MR_Q8 6
#define CK_NV_Q8 2
#define CK_ROW_BYTE 127
#define CK_ROW_SCALES 1
#define CK_DOT(sum, bytes, word) __asm__ volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(bytes), "x"(word))
#define CK_NAME "avxvnni"
#define CK_TABLE ck_table_avx_vnni
#include "avx2.inc"
#pragma clang attribute pop
#endif
