// Like avx512bf16.c, with AMX's tiles of 16 rows of 16 words, and the instruction that multiplies two of them as pairs of bfloat16. It makes 16
// times as many products in a second as the instructions for floats.
#include "CKernels.h"

#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
#include <string.h>
#pragma clang attribute push( \
    __attribute__((target("amx-tile,amx-bf16,prfchw,avx512bf16,avx512vnni,avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c"))), apply_to = function)

enum {
  /// Rows of a tile, and words in each.
  SIDE = 16,
};

/// Sets the shapes of the tiles: 0 to 3 are the sums of two tiles of rows and two of columns, 4 and 5 rows, 6 and 7 weights. Rows are at most SIDE.
static inline __attribute__((always_inline)) void shape_tiles(long upper, long lower) {
  struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } shape = {.palette = 1};
  const long rows[8] = {upper, upper, lower, lower, upper, lower, SIDE, SIDE};
  for (int i = 0; i < 8; i++) {
    // An unused tile has no shape.
    shape.bytes[i] = rows[i] > 0 ? 4 * SIDE : 0;
    shape.rows[i] = (uint8_t)rows[i];
  }
  _tile_loadconfig(&shape);
}

/// Writes the sums of some rows, plus the initial values of `gemm_panel`.
static inline __attribute__((always_inline)) void end_block(
    long rows, long columns, const float *sums, float *c, long ldc, int begin, const float *bias, const float *residual, long ldr) {
  for (long column = 0; column < columns; column += SIDE) {
    const __mmask16 mask = (__mmask16)(columns - column >= SIDE ? 0xFFFF : (1 << (columns - column)) - 1);
    const __m512 start = bias && begin != CK_BEGIN_ACCUMULATE ? _mm512_maskz_loadu_ps(mask, bias + column) : _mm512_setzero_ps();
    for (long i = 0; i < rows; i++) {
      __m512 sum = _mm512_add_ps(_mm512_load_ps(sums + i * CK_PANEL + column), start);
      if (begin == CK_BEGIN_ACCUMULATE) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, c + i * ldc + column));
      else if (residual) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, residual + i * ldr + column));
      _mm512_mask_storeu_ps(c + i * ldc + column, mask, sum);
    }
  }
}

// The numbers of tiles are constants in the instructions.

/// Adds the products of up to two tiles of rows with two of columns to their sums, for words of two bfloat16 or for split factors:
/// upper · lower + upper · upper + lower · upper. The product lower · lower, about 2⁻¹⁸ of the result, is left out.
static inline __attribute__((always_inline)) void add(
    const int is_split, const int two, long words, const uint32_t *upper, const uint32_t *lower, long lda, const uint32_t *panel) {
#define COLUMNS(panel)                                                                                                                       \
  _tile_loadd(6, (panel), 4 * CK_PANEL);                                                                                                    \
  _tile_dpbf16ps(0, 4, 6);                                                                                                                  \
  if (two) _tile_dpbf16ps(2, 5, 6);                                                                                                         \
  _tile_loadd(7, (panel) + SIDE, 4 * CK_PANEL);                                                                                             \
  _tile_dpbf16ps(1, 4, 7);                                                                                                                  \
  if (two) _tile_dpbf16ps(3, 5, 7)
  const long step = (is_split ? 2 : 1) * SIDE;
  for (long p = 0; p < words; p += step, panel += step * CK_PANEL) {
    _tile_loadd(4, upper + p, 4 * lda);
    if (two) _tile_loadd(5, lower + p, 4 * lda);
    if (is_split) { COLUMNS(panel + SIDE * CK_PANEL); }
    COLUMNS(panel);
    if (!is_split) continue;
    _tile_loadd(4, upper + p + SIDE, 4 * lda);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (!two) continue;
    _tile_loadd(5, lower + p + SIDE, 4 * lda);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
#undef COLUMNS
}

/// The same for four tiles of rows and one of columns. There must be four sums, because each addition waits for the last one to the same sum. The
/// order of additions is the same, so that a row's sums don't depend on the number of rows.
static inline __attribute__((always_inline)) void add_narrow(
    const int is_split, long words, const uint32_t *a, long lda, const uint32_t *panel) {
#define ROWS(a, columns)                                                                                                                     \
  _tile_loadd(4, (a), 4 * lda);                                                                                                             \
  _tile_dpbf16ps(0, 4, columns);                                                                                                            \
  _tile_loadd(5, (a) + SIDE * lda, 4 * lda);                                                                                                \
  _tile_dpbf16ps(1, 5, columns);                                                                                                            \
  _tile_loadd(4, (a) + 2 * SIDE * lda, 4 * lda);                                                                                            \
  _tile_dpbf16ps(2, 4, columns);                                                                                                            \
  _tile_loadd(5, (a) + 3 * SIDE * lda, 4 * lda);                                                                                            \
  _tile_dpbf16ps(3, 5, columns)
  const long step = (is_split ? 2 : 1) * SIDE;
  for (long p = 0; p < words; p += step, panel += step * CK_PANEL) {
    if (is_split) {
      _tile_loadd(7, panel + SIDE * CK_PANEL, 4 * CK_PANEL);
      ROWS(a + p, 7);
    }
    _tile_loadd(6, panel, 4 * CK_PANEL);
    ROWS(a + p, 6);
    if (is_split) { ROWS(a + p + SIDE, 6); }
  }
#undef ROWS
}

static inline __attribute__((always_inline)) void clear(const int two) {
  _tile_zero(0);
  _tile_zero(1);
  if (two) {
    _tile_zero(2);
    _tile_zero(3);
  }
}

static inline __attribute__((always_inline)) void put(const int two, float *c, long ldc) {
  _tile_stored(0, c, 4 * ldc);
  _tile_stored(1, c + SIDE, 4 * ldc);
  if (two) {
    _tile_stored(2, c + SIDE * ldc, 4 * ldc);
    _tile_stored(3, c + SIDE * ldc + SIDE, 4 * ldc);
  }
}

/// Prefetches the cache lines that `end_block` will write, while the products are made. Waiting for them took a quarter of a wide layer's time.
static inline __attribute__((always_inline)) void ask_for(long rows, long columns, const float *c, long ldc) {
  for (long i = 0; i < rows; i++) {
    __builtin_prefetch(c + i * ldc, 1, 3);
    __builtin_prefetch(c + i * ldc + columns - 1, 1, 3);
  }
}

/// Multiplies all rows, in blocks of 32 and a smaller one.
static inline __attribute__((always_inline)) void product(
    const int is_split, long rows, long columns, long words, const uint32_t *a, long lda, const uint32_t *panel, float *c, long ldc, int begin,
    const float *bias, const float *residual, long ldr) {
  __attribute__((aligned(64))) float sums[2 * SIDE * CK_PANEL];
  // Sums that are already the results are written directly to their place.
  const int is_result = columns == CK_PANEL && begin == CK_BEGIN_FRESH && !bias && !residual;
  if (rows >= 2 * SIDE) shape_tiles(SIDE, SIDE);
  for (long i = 0; i < rows; i += 2 * SIDE) {
    const long some = rows - i < 2 * SIDE ? rows - i : 2 * SIDE;
    if (some < 2 * SIDE) shape_tiles(some < SIDE ? some : SIDE, some > SIDE ? some - SIDE : 0);
    // With few products, prefetching takes longer than what it saves.
    if (words > 4 * SIDE) ask_for(some, columns, c + i * ldc, ldc);
    float *target = is_result ? c + i * ldc : sums;
    const long stride = is_result ? ldc : CK_PANEL;
    if (some > SIDE) {
      clear(1);
      add(is_split, 1, words, a + i * lda, a + (i + SIDE) * lda, lda, panel);
      put(1, target, stride);
    } else {
      clear(0);
      add(is_split, 0, words, a + i * lda, 0, lda, panel);
      put(0, target, stride);
    }
    if (!is_result) end_block(some, columns, sums, c + i * ldc, ldc, begin, bias, residual ? residual + i * ldr : 0, ldr);
  }
  _tile_release();
}

/// The same for a few columns: rows in blocks of 64, and the rest as with more columns.
static inline __attribute__((always_inline)) void narrow_product(
    const int is_split, long rows, long columns, long words, const uint32_t *a, long lda, const uint32_t *panel, float *c, long ldc, int begin,
    const float *bias, const float *residual, long ldr) {
  __attribute__((aligned(64))) float sums[4 * SIDE * CK_PANEL];
  const long whole = rows / (4 * SIDE) * (4 * SIDE);
  if (whole > 0) {
    shape_tiles(SIDE, SIDE);
    for (long i = 0; i < whole; i += 4 * SIDE) {
      clear(1);
      add_narrow(is_split, words, a + i * lda, lda, panel);
      _tile_stored(0, sums, 4 * CK_PANEL);
      _tile_stored(1, sums + SIDE * CK_PANEL, 4 * CK_PANEL);
      _tile_stored(2, sums + 2 * SIDE * CK_PANEL, 4 * CK_PANEL);
      _tile_stored(3, sums + 3 * SIDE * CK_PANEL, 4 * CK_PANEL);
      end_block(4 * SIDE, columns, sums, c + i * ldc, ldc, begin, bias, residual ? residual + i * ldr : 0, ldr);
    }
    _tile_release();
  }
  product(
      is_split, rows - whole, columns, words, a + whole * lda, lda, panel, c + whole * ldc, ldc, begin, bias, residual ? residual + whole * ldr : 0,
      ldr);
}

static void gemm_panel_split(
    long rows, long columns, long k, const uint32_t *a, long lda, const uint32_t *panel, float *c, long ldc, int begin, const float *bias,
    const float *residual, long ldr) {
  if (columns > SIDE) product(1, rows, columns, k, a, lda, panel, c, ldc, begin, bias, residual, ldr);
  else narrow_product(1, rows, columns, k, a, lda, panel, c, ldc, begin, bias, residual, ldr);
}

static void gemm_panel_pairs(
    long rows, long columns, long words, const uint32_t *a, long lda, const uint32_t *panel, float *c, long ldc, int begin,
    const float *bias, const float *residual, long ldr) {
  if (columns > SIDE) product(0, rows, columns, words, a, lda, panel, c, ldc, begin, bias, residual, ldr);
  else narrow_product(0, rows, columns, words, a, lda, panel, c, ldc, begin, bias, residual, ldr);
}

/// One tile of windows in a line, or two: the second is in the same line or in the next one.
static inline __attribute__((always_inline)) void window_block(
    const int is_split, const int two, long upper_rows, long lower_rows, const ck_windows *w, const uint32_t *upper, const uint32_t *lower,
    const uint32_t *panel, float *upper_c, float *lower_c, const float *upper_residual, const float *lower_residual, int begin, const float *bias) {
  __attribute__((aligned(64))) float sums[2 * SIDE * CK_PANEL];
  ask_for(upper_rows, CK_PANEL, upper_c, w->result_pixel);
  if (two) ask_for(lower_rows, CK_PANEL, lower_c, w->result_pixel);
  clear(two);
  for (long tap = 0; tap < w->taps; tap++)
    add(
        is_split, two, w->words, upper + w->offsets[tap], two ? lower + w->offsets[tap] : 0, w->pixel, panel + tap * w->panel);
  put(two, sums, CK_PANEL);
  end_block(upper_rows, CK_PANEL, sums, upper_c, w->result_pixel, begin, bias, upper_residual, w->result_pixel);
  if (two) end_block(lower_rows, CK_PANEL, sums + SIDE * CK_PANEL, lower_c, w->result_pixel, begin, bias, lower_residual, w->result_pixel);
}

static inline __attribute__((always_inline)) void windows(
    const int is_split, const ck_windows *w, const uint32_t *a, const uint32_t *panel, float *c, int begin, const float *bias,
    const float *residual) {
#define BLOCK(two, upper_rows, lower_rows, upper_y, upper_x, lower_y, lower_x)                                                              \
  window_block(                                                                                                                             \
      is_split, two, upper_rows, lower_rows, w, a + (upper_y) * w->line + (upper_x) * w->pixel, a + (lower_y) * w->line + (lower_x) * w->pixel, \
      panel, c + (upper_y) * w->result_line + (upper_x) * w->result_pixel, c + (lower_y) * w->result_line + (lower_x) * w->result_pixel,     \
      residual ? residual + (upper_y) * w->result_line + (upper_x) * w->result_pixel : 0,                                                   \
      residual ? residual + (lower_y) * w->result_line + (lower_x) * w->result_pixel : 0, begin, bias)
  long x = 0;
  if (w->width >= 2 * SIDE) shape_tiles(SIDE, SIDE);
  for (; x + 2 * SIDE <= w->width; x += 2 * SIDE)
    for (long y = 0; y < w->lines; y++) BLOCK(1, SIDE, SIDE, y, x, y, x + SIDE);
  const long rest = w->width - x;
  if (rest > SIDE) {
    shape_tiles(SIDE, rest - SIDE);
    for (long y = 0; y < w->lines; y++) BLOCK(1, SIDE, rest - SIDE, y, x, y, x + SIDE);
  } else if (rest > 0) {
    // Two lines at once.
    shape_tiles(rest, rest);
    long y = 0;
    for (; y + 2 <= w->lines; y += 2) BLOCK(1, rest, rest, y, x, y + 1, x);
    if (y < w->lines) BLOCK(0, rest, 0, y, x, y, x);
  }
  _tile_release();
#undef BLOCK
}

static void gemm_windows(
    int is_split, const ck_windows *w, const uint32_t *a, const uint32_t *panel, float *c, int begin, const float *bias, const float *residual) {
  if (is_split) windows(1, w, a, panel, c, begin, bias, residual);
  else windows(0, w, a, panel, c, begin, bias, residual);
}

#define CK_NARROW(x) ((vh)_mm512_cvtneps_pbh((__m512)(x)))
#define CK_PAIR_WORDS SIDE
#define CK_NAME "amx"
#define CK_TABLE ck_table_amx
#include "avx512.inc"
#pragma clang attribute pop
#endif
