#include "CKernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
extern const ck_kernels ck_table_avx2, ck_table_avx_vnni, ck_table_avx512, ck_table_avx512_vnni, ck_table_avx512_bf16, ck_table_amx;

static int has_avx2(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
/// The compiler's runtime does not know AVX-VNNI by name in all versions.
static int has_avx_vnni(void) {
  unsigned a, b, c, d;
  return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
static int has_avx512(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("f16c");
}
static int has_avx512bf16(void) {
  return has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}

/// Whether the processor has tiles and the system lets this process use them. Linux must be asked, because tiles make signal frames larger.
static int has_amx(void) {
#if defined(__linux__)
  enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
  unsigned a, b, c, d;
  // AMX-BF16 and AMX-TILE.
  if (!has_avx512bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d >> 22 & 1) == 0 || (d >> 24 & 1) == 0) return 0;
  return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
#else
  return 0;
#endif
}
#elif defined(__aarch64__)
extern const ck_kernels ck_table_neon;
#endif

const ck_kernels *ck_kernels_for(int set) {
  switch (set) {
  case CK_SET_PLAIN: return &ck_table_plain;
#if defined(__x86_64__)
  case CK_SET_AVX2: return has_avx2() ? &ck_table_avx2 : 0;
  case CK_SET_AVX_VNNI: return has_avx_vnni() ? &ck_table_avx_vnni : 0;
  case CK_SET_AVX512: return has_avx512() ? &ck_table_avx512 : 0;
  case CK_SET_AVX512_VNNI: return has_avx512() && __builtin_cpu_supports("avx512vnni") ? &ck_table_avx512_vnni : 0;
  case CK_SET_AVX512_BF16: return has_avx512bf16() ? &ck_table_avx512_bf16 : 0;
#if defined(__linux__)
  case CK_SET_AMX: return has_amx() ? &ck_table_amx : 0;
#endif
#elif defined(__aarch64__)
  case CK_SET_NEON: return &ck_table_neon;
#endif
  default: return 0;
  }
}

int ck_adds_beside_products(void) {
#if defined(__x86_64__)
  // AMD's processors with AVX-512 have two units for fused products and two others for additions. Intel's use the same units for both.
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
