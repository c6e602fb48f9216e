// Packs weights from PyTorch's order into panels. It uses no instruction set in particular, because memory limits its speed.
#include "CKernels.h"
#include <string.h>

enum {
  /// The values of a row that are transposed at once, so few that those of 32 rows stay in the first-level cache.
  BLOCK_VALUES = 96,
};

/// Transposes a panel by way of a copy that stays in the first-level cache. Without the copy, rows whose length is a power of two would evict one
/// another from the cache.
#define TRANSPOSE(NAME, TYPE)                                                                                                       \
  static void NAME(long channels, long taps, const void *const *source, TYPE *target) {                                             \
    TYPE rows[CK_PANEL][BLOCK_VALUES + 8];                                                                                          \
    memset(rows, 0, sizeof rows);                                                                                                   \
    long values = channels * taps;                                                                                                  \
    for (long begin = 0; begin < values; begin += BLOCK_VALUES) {                                                                   \
      long count = values - begin < BLOCK_VALUES ? values - begin : BLOCK_VALUES;                                                   \
      for (long row = 0; row < CK_PANEL; row++)                                                                                     \
        if (source[row]) memcpy(rows[row], (const char *)source[row] + begin * (long)sizeof(TYPE), (unsigned long)count * sizeof(TYPE)); \
      long channel = begin / taps, tap = begin % taps;                                                                              \
      for (long i = 0; i < count; i++) {                                                                                            \
        TYPE *line = target + (tap * channels + channel) * CK_PANEL;                                                                \
        for (long row = 0; row < CK_PANEL; row++) line[row] = rows[row][i];                                                         \
        if (++tap == taps) {                                                                                                        \
          tap = 0;                                                                                                                  \
          channel++;                                                                                                                \
        }                                                                                                                           \
      }                                                                                                                             \
    }                                                                                                                               \
  }

TRANSPOSE(transpose_16, uint16_t)
TRANSPOSE(transpose_32, uint32_t)

void ck_pack_panel(int bytes, long channels, long taps, const void *const *rows, void *target) {
  if (bytes == 2)
    transpose_16(channels, taps, rows, target);
  else
    transpose_32(channels, taps, rows, target);
}
