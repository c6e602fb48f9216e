#include "CKernels.h"

#if defined(__aarch64__)
// 6 × 4 accumulators, four weights and a broadcast: 29 of the 32 registers.
#define CK_LANES 4
#define CK_MR 6
#define CK_NV 4
#define CK_PART 1
#define CK_NAME "neon"
#define CK_TABLE ck_table_neon
#include "vector.inc"
#endif
