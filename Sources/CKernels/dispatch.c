#include "CKernels.h"

#if defined(__x86_64__)
extern const ck_kernels ck_table_avx2, ck_table_avx512, ck_table_avx512_vnni, ck_table_avx512_bf16;

static int has_avx512(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("f16c");
}
#elif defined(__aarch64__)
extern const ck_kernels ck_table_neon;
#endif

const ck_kernels *ck_kernels_for(int set) {
  switch (set) {
  case CK_SET_PLAIN: return &ck_table_plain;
#if defined(__x86_64__)
  case CK_SET_AVX2:
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") ? &ck_table_avx2 : 0;
  case CK_SET_AVX512: return has_avx512() ? &ck_table_avx512 : 0;
  case CK_SET_AVX512_VNNI: return has_avx512() && __builtin_cpu_supports("avx512vnni") ? &ck_table_avx512_vnni : 0;
  case CK_SET_AVX512_BF16:
    return has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16") ? &ck_table_avx512_bf16 : 0;
#elif defined(__aarch64__)
  case CK_SET_NEON: return &ck_table_neon;
#endif
  default: return 0;
  }
}

int ck_adds_beside_products(void) {
#if defined(__x86_64__)
  // Since their first AVX-512, AMD's processors have two units for fused products and two for additions; Intel's add where they multiply.
  __builtin_cpu_init();
  return has_avx512() && __builtin_cpu_is("amd");
#else
  return 0;
#endif
}

void ck_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}
