#include "CKernels.h"

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
// Four products of bytes take three instructions, and four of floats take four. 4 × 2 sums measure best.
// The first instruction adds two products in 16 bits: 2 · 255 · 64 fits. So a row's bytes have seven bits. They are about as exact as eight bits
// with a scale for a whole row, since every block has its own scale.
#define CK_MR_Q8 4
#define CK_NV_Q8 2
#define CK_ROW_BYTE 64
#define CK_ROW_SCALES 1
#define CK_DOT(sum, bytes, word)                                                                                    \
  do {                                                                                                              \
    vi products;                                                                                                    \
    __asm__ volatile("vpmaddubsw %3, %2, %1\n\tvpmaddwd %4, %1, %1\n\tvpaddd %1, %0, %0"                             \
                     : "+x"(sum), "=&x"(products) : "x"(bytes), "x"(word), "x"((vi)(0x00010001)));                  \
  } while (0)
#define CK_NAME "avx2"
#define CK_TABLE ck_table_avx2
#include "avx2.inc"
#pragma clang attribute pop
#endif
