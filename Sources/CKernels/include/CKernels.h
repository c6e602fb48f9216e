/// SIMD kernels, one table for each instruction set, chosen at run time.
///
/// All matrices are row-major float32. Every kernel is pure: it reads its inputs, writes its outputs and keeps nothing.
#pragma once
#include <stdint.h>

/// Columns of a weight panel: packed weights are `[panel][k][CK_PANEL]`.
#define CK_PANEL 32

/// The number of 8-bit weights that share a scale: consecutive ones of one output. Their panels are `[k / 4][CK_PANEL][4]` bytes, value + 128,
/// and `[k / CK_BLOCK][CK_PANEL]` scales, IEEE halves.
#define CK_BLOCK 32

/// The number of split values that are stored together: CK_SPLIT / 2 words of their upper parts, then as many of their lower parts. Value i is in the
/// lower half of word i, value i + CK_SPLIT / 2 in its upper half.
#define CK_SPLIT 32

/// The points of Winograd's F(4×4, 3×3) are 0, ±a, ±b and infinity. With these the transforms' factors are closer to one another than with
/// the usual ±1 and ±2, so that rounding transformed values costs half as much. All their powers are exact.
#define CK_WINOGRAD_A 0.75f
#define CK_WINOGRAD_B 1.5f

enum {
  CK_SET_PLAIN = 0,
  CK_SET_AVX2 = 1,
  CK_SET_AVX512 = 2,
  CK_SET_NEON = 3,
  CK_SET_AVX512_VNNI = 4,
  CK_SET_AVX512_BF16 = 5,
  CK_SET_AMX = 6,
  CK_SET_AVX_VNNI = 7,
};

enum {
  CK_ACTIVATION_NONE = 0,
  CK_ACTIVATION_SILU = 1,
  CK_ACTIVATION_GELU = 2,
  CK_ACTIVATION_QUICK_GELU = 3,
  CK_ACTIVATION_RELU = 4,
  CK_ACTIVATION_TANH = 5,
};

/// The initial value of an output of `gemm_panel`.
enum {
  /// `bias` + `residual`, where null counts as zero.
  CK_BEGIN_FRESH = 0,
  /// The value in `c`.
  CK_BEGIN_ACCUMULATE = 1,
};

/// The windows of some lines of a picture, and their results. All distances are in words.
typedef struct {
  long lines, width;
  /// The number of taps of a window, and their offsets from the window.
  long taps;
  const long *_Nonnull offsets;
  /// Words in a tap's values.
  long words;
  /// The distance between the panel's parts for consecutive taps.
  long panel;
  /// The strides between pixels, and between lines.
  long pixel, line;
  long result_pixel, result_line;
} ck_windows;

/// A normalisation of some channels: the result before its activation is x · scale + shift, and without the learnt scale and shift x · rate + offset.
typedef struct {
  const float *_Nonnull scale, *_Nonnull shift, *_Nonnull rate, *_Nonnull offset;
} ck_normalization;

/// A step of Adam with decoupled weight decay: what it multiplies by.
typedef struct {
  /// 1 - η · λ.
  float kept;
  /// 1 - β₁, β₂ and 1 - β₂.
  float first_gain, second_kept, second_gain;
  /// η / (1 - β₁ᵗ), √(1 - β₂ᵗ) and ε.
  float step, root, epsilon;
} ck_adam;

typedef struct {
  const char *_Nonnull name;

  /// The rows that `gemm_panel` computes at once. Multiples of this are fastest.
  long tile_rows;

  /// c[rows][columns] = begin + a[rows][k] · panel[k][32], columns <= 32.
  /// `bias` has `columns` values, and `residual` the rows of `c` (with the stride `ldr`). Both are used only if the output begins
  /// fresh.
  void (*_Nonnull gemm_panel)(
      long rows, long columns, long k, const float *_Nonnull a, long lda, const float *_Nonnull panel, float *_Nonnull c, long ldc,
      int begin, const float *_Nullable bias, const float *_Nullable residual, long ldr);

  /// c[rows][columns] (+)= a[rows][k] · b[k][columns], where nothing is packed. Where `columns` is no multiple of 8, 16 floats after b's last
  /// row are read.
  void (*_Nonnull gemm_rows)(
      long rows, long columns, long k, const float *_Nonnull a, long lda, const float *_Nonnull b, long ldb, float *_Nonnull c, long ldc,
      int begin);

  /// c[rows][columns] (+)= aᵀ · b, a[k][rows] and b[k][columns]: the sum of k outer products. What `gemm_rows` says of columns holds.
  void (*_Nonnull gemm_outer)(
      long rows, long columns, long k, const float *_Nonnull a, long lda, const float *_Nonnull b, long ldb, float *_Nonnull c, long ldc,
      int begin);

  /// y = activation(x), rows of `columns` values.
  void (*_Nonnull activate)(int activation, long rows, long columns, const float *_Nonnull x, long ldx, float *_Nonnull y, long ldy);

  /// y[rows][columns] = x[rows][0..<columns] * gelu(x[rows][gates..<gates + columns]).
  void (*_Nonnull geglu)(long rows, long columns, const float *_Nonnull x, long ldx, long gates, float *_Nonnull y, long ldy);

  /// For each channel the mean and the sum of squared deviations, over `pixels` rows of `channels` values.
  void (*_Nonnull moments)(long pixels, long channels, const float *_Nonnull x, float *_Nonnull mean, float *_Nonnull m2);

  /// y = activation(x · scale + shift), with scale and shift for each channel; activation none or SiLU; rows of y at the stride `ldy`.
  void (*_Nonnull scale_shift)(
      int activation, long pixels, long channels, const float *_Nonnull x, const float *_Nonnull scale, const float *_Nonnull shift,
      float *_Nonnull y, long ldy);

  /// Layer normalisation of each row.
  void (*_Nonnull layer_norm)(
      long rows, long columns, float epsilon, const float *_Nonnull x, const float *_Nonnull weight, const float *_Nonnull bias,
      float *_Nonnull y);

  /// One block of an online softmax. For each row, the running maximum and sum are updated with `columns` new scores, the scores become
  /// exp(scale · (score - maximum)), and `rescale` receives the factor for earlier results. `scale` is above 0.
  void (*_Nonnull softmax_block)(
      long rows, long columns, float scale, float *_Nonnull scores, long ld, float *_Nonnull maximum, float *_Nonnull sum,
      float *_Nonnull rescale);

  /// y[row] *= factors[row], rows of `columns` values.
  void (*_Nonnull scale_rows)(long rows, long columns, const float *_Nonnull factors, float *_Nonnull y, long ldy);

  /// The gradient of `activate`: y = g · activation'(x). `y` may be `g`.
  void (*_Nonnull activate_back)(int activation, long count, const float *_Nonnull x, const float *_Nonnull g, float *_Nonnull y);

  /// The gradient of `geglu`, of values and gates at their places in `x`; rows of `y` at the stride `ldx`.
  void (*_Nonnull geglu_back)(
      long rows, long columns, const float *_Nonnull x, long ldx, long gates, const float *_Nonnull g, long ldg, float *_Nonnull y);

  /// The first half of a group normalisation's gradient: y = g · activation'(x · scale + shift), and for each channel the sums of y and of
  /// y · (x · rate + offset) over `pixels` rows of `channels` values. Activation none or SiLU; rows of g at the stride `ldg`.
  void (*_Nonnull norm_back)(
      int activation, long pixels, long channels, const float *_Nonnull x, const ck_normalization *_Nonnull n, const float *_Nonnull g,
      long ldg, float *_Nonnull y, float *_Nonnull sums, float *_Nonnull products);

  /// y = g · a + x · b + c, with a, b and c for each channel. `y` may be `g`.
  void (*_Nonnull combine)(
      long pixels, long channels, const float *_Nonnull g, const float *_Nonnull a, const float *_Nonnull x, const float *_Nonnull b,
      const float *_Nonnull c, float *_Nonnull y);

  /// The gradient of `layer_norm`. Those of weight and bias are added to `weights` and `biases`.
  void (*_Nonnull layer_norm_back)(
      long rows, long columns, float epsilon, const float *_Nonnull x, const float *_Nonnull weight, const float *_Nonnull g,
      float *_Nonnull y, float *_Nonnull weights, float *_Nonnull biases);

  /// The gradient of a softmax with the results p, in place: g = p · (g - Σ p · g) · scale, for each row.
  void (*_Nonnull softmax_back)(long rows, long columns, float scale, const float *_Nonnull p, long ldp, float *_Nonnull g, long ldg);

  /// The gradient of attention for a block of scores: p = exp(scale · (score - maxima[row])) · inverses[row] takes the place of the scores, and
  /// p · (g - products[row]) · scale that of g. `scale` is above 0, and no score is above its row's maximum.
  void (*_Nonnull attention_back)(
      long rows, long columns, float scale, const float *_Nonnull maxima, const float *_Nonnull inverses, const float *_Nonnull products,
      float *_Nonnull scores, float *_Nonnull g, long ld);

  /// m += first_gain · (g - m); v = second_kept · v + second_gain · g²; parameter = kept · parameter - step · m / (√v / root + epsilon).
  void (*_Nonnull adam)(
      long count, const ck_adam *_Nonnull step, float *_Nonnull parameter, float *_Nonnull m, float *_Nonnull v, const float *_Nonnull g);

  /// IEEE half to float.
  void (*_Nonnull widen_f16)(long count, const uint16_t *_Nonnull x, float *_Nonnull y);
  /// bfloat16 to float.
  void (*_Nonnull widen_bf16)(long count, const uint16_t *_Nonnull x, float *_Nonnull y);

  /// Winograd's F(4×4, 3×3): for every channel, the 36 values BᵀdB of a tile of 6 × 6 pixels, at a stride of `ldv`.
  void (*_Nonnull winograd_input)(long channels, const float *_Nonnull const *_Nonnull pixels, float *_Nonnull v, long ldv);

  /// The 4 × 4 pixels activation(AᵀmA + bias + residual) of 36 products, where residuals may be null. A null pixel is not written.
  void (*_Nonnull winograd_output)(
      int activation, long channels, const float *_Nonnull m, long ldm, const float *_Nonnull bias,
      const float *_Nullable const *_Nullable residuals, float *_Nullable const *_Nonnull pixels);

  /// The 36 values GgGᵀ of a 3 × 3 window whose nine taps have the stride `ldt`, for the 32 columns of a panel.
  void (*_Nonnull winograd_weights)(const float *_Nonnull taps, long ldt, float *_Nonnull u, long ldu);

  /// Whether rows of bytes have a scale for each block, [rows][k / CK_BLOCK], not for a whole row.
  int row_scales;

  /// Each row of k values (a multiple of CK_BLOCK) as bytes: x ≈ scale · q. `sums` [rows][k / CK_BLOCK] receives -128 times each block's sum,
  /// which corrects `gemm_panel_q8` for the 128 in the weights' bytes.
  void (*_Nonnull quantize_rows)(
      long rows, long k, const float *_Nonnull x, long ldx, int8_t *_Nonnull q, long ldq, float *_Nonnull scales,
      int32_t *_Nonnull sums);

  /// A panel of 8-bit weights as floats [k][CK_PANEL].
  void (*_Nonnull widen_q8)(long k, const uint8_t *_Nonnull panel, const uint16_t *_Nonnull scales, float *_Nonnull y);

  /// k rows of a panel of whole numbers with common scales as floats [k][CK_PANEL]: scale · (q - zero) + minimum, with a scale and a minimum for each
  /// column. `low` [k][CK_PANEL / 2] has the lower four bits of q: byte j those of columns j and, above, j + CK_PANEL / 2. `high` [k][planes] has the
  /// bits above them: bit j of word p is bit 4 + p of column j.
  void (*_Nonnull widen_groups)(
      long k, const uint8_t *_Nonnull low, const uint32_t *_Nonnull high, int planes, int zero, const float *_Nonnull scales,
      const float *_Nonnull minima, float *_Nonnull y);

  /// `gemm_panel` for quantised rows and a panel of 8-bit weights, for all its 32 columns. Null if no instruction
  /// makes it faster than floats.
  void (*_Nullable gemm_panel_q8)(
      long rows, long k, const int8_t *_Nonnull a, long lda, const float *_Nonnull row_scales, const int32_t *_Nonnull sums,
      const uint8_t *_Nonnull panel, const uint16_t *_Nonnull scales, float *_Nonnull c, long ldc, int begin, const float *_Nullable bias,
      const float *_Nullable residual, long ldr);

  /// Rows of k floats as bfloat16, rounded to the nearest, two in a word, the first in its lower half. An odd last one is paired with zero. Rows of y
  /// have a stride of `ldy` words. Denormal numbers, which `gemm_panel_pairs` treats as zero, may already become zero here.
  void (*_Nonnull narrow_rows)(long rows, long k, const float *_Nonnull x, long ldx, uint32_t *_Nonnull y, long ldy);

  /// A panel of floats, CK_PANEL in each of k rows, as bfloat16 [(k + 1) / 2][CK_PANEL] words: two rows in one.
  void (*_Nonnull narrow_panel)(long k, const float *_Nonnull x, long ldx, uint32_t *_Nonnull y);

  /// A panel of 8-bit weights as such words, [k / 2][CK_PANEL].
  void (*_Nonnull narrow_q8)(long k, const uint8_t *_Nonnull panel, const uint16_t *_Nonnull scales, uint32_t *_Nonnull y);

  /// The number that a row's words must be a multiple of for `gemm_panel_pairs`, with zeros beyond the values.
  long pair_words;

  /// `gemm_panel` for rows and a panel of such words, with columns a multiple of 8 up to 32. Null if no instruction makes it faster than
  /// floats.
  void (*_Nullable gemm_panel_pairs)(
      long rows, long columns, long words, const uint32_t *_Nonnull a, long lda, const uint32_t *_Nonnull panel, float *_Nonnull c, long ldc,
      int begin, const float *_Nullable bias, const float *_Nullable residual, long ldr);

  /// Splits floats into upper parts, which are bfloat16 rounded with ties away from zero, and the rest: upper + lower = x. `lower` may be x.
  void (*_Nonnull part)(long count, const float *_Nonnull x, float *_Nonnull upper, float *_Nonnull lower);

  /// Rows of k floats as two bfloat16 each, x ≈ upper + lower within 2^-17 of x, CK_SPLIT values in as many words, with zeros beyond k. y may be x at
  /// the same stride. Denormal numbers and those close to them are lost. Infinity becomes NaN.
  void (*_Nonnull split_rows)(long rows, long k, const float *_Nonnull x, long ldx, uint32_t *_Nonnull y, long ldy);

  /// A panel of floats [k][CK_PANEL] in the same way, as [k][CK_PANEL] words: first the upper parts of CK_SPLIT rows, then their lower parts.
  /// The words may replace the floats.
  void (*_Nonnull split_panel)(long k, const float *_Nonnull x, uint32_t *_Nonnull y);

  /// The floats of such a panel; k is a multiple of CK_SPLIT.
  void (*_Nonnull join_panel)(long k, const uint32_t *_Nonnull x, float *_Nonnull y);

  /// `gemm_panel` for split rows and a split panel, with k a multiple of CK_SPLIT and columns one of 8. Null if no instruction makes it
  /// faster than floats.
  ///
  /// (x + x′)(b + b′) ≈ xb + xb′ + x′b, with x and b the upper parts. The rounding error of a product is about 2^-17 of it, where float32 has 2^-24. So
  /// sums of k products of random sign have an error of about 2e-6 of their size. Source: Henry, Tang and Heinecke 2019, "Leveraging the bfloat16
  /// artificial intelligence datatype for higher-precision computations".
  void (*_Nullable gemm_panel_split)(
      long rows, long columns, long k, const uint32_t *_Nonnull a, long lda, const uint32_t *_Nonnull panel, float *_Nonnull c, long ldc,
      int begin, const float *_Nullable bias, const float *_Nullable residual, long ldr);

  /// For each window begin + Σ over its taps of the tap's words · its part of the panel, [words][CK_PANEL], split or pairs, for all 32 columns.
  /// The residual has the layout of the results.
  /// Null if `gemm_panel_split` is.
  void (*_Nullable gemm_windows)(
      int is_split, const ck_windows *_Nonnull windows, const uint32_t *_Nonnull a, const uint32_t *_Nonnull panel, float *_Nonnull c, int begin,
      const float *_Nullable bias, const float *_Nullable residual);

  /// The rows that `gemm_panel_crossed` computes at once.
  long crossed_rows;

  /// Prepares rows of k floats for `gemm_panel_crossed`: y = x / scale, where y may be x. The scale is the power of two that brings the row's mean
  /// magnitude to that of the weights, levels[row], within a factor of two. `sums` receives -Σ y[3g + 1] · y[3g + 2] over the row's whole groups of
  /// three. Scales and sums have a stride of `lds`. Without `levels`, y must be x, the values stay as they are, and scales are 1.
  void (*_Nonnull cross_rows)(
      long rows, long k, const float *_Nullable levels, const float *_Nonnull x, long ldx, float *_Nonnull y, long ldy, float *_Nonnull scales,
      float *_Nonnull sums, long lds);

  /// The same sums for each column of a panel [k][CK_PANEL]: -Σ b[3g + 1] · b[3g + 2].
  void (*_Nonnull cross_panel)(long k, const float *_Nonnull panel, float *_Nonnull sums);

  /// `gemm_panel` for rows from `cross_rows`, for all 32 columns of a panel. Null if additions take time from the multipliers.
  ///
  /// Two of three products become one: x₁b₁ + x₂b₂ = (x₁ + b₂)(x₂ + b₁) - x₁x₂ - b₁b₂. The last two terms are the sums, each of which serves many
  /// products. If a processor can add and multiply at the same time (AMD's can), three inputs take the time of two. Source: Winograd 1968, "A new
  /// algorithm for inner products"; the scales after Brent 1970, so that adding a row's and a panel's value loses digits of neither.
  void (*_Nullable gemm_panel_crossed)(
      long rows, long k, const float *_Nonnull a, long lda, const float *_Nonnull scales, const float *_Nonnull sums,
      const float *_Nonnull panel, const float *_Nonnull panel_sums, float *_Nonnull c, long ldc, int begin, const float *_Nullable bias,
      const float *_Nullable residual, long ldr);
} ck_kernels;

/// Whether this processor has separate vector units for additions, so that an addition for each product takes no time.
int ck_adds_beside_products(void);

/// The kernels of a set; null if this machine (or this build) lacks the instructions.
const ck_kernels *_Nullable ck_kernels_for(int set);

/// The kernels in plain C, which every machine has.
extern const ck_kernels ck_table_plain;

/// Packs a panel of weights from CK_PANEL rows [channels][taps] of elements of 2 or 4 bytes, at any address, to [taps][channels][CK_PANEL]. Null
/// rows give zeros.
void ck_pack_panel(int bytes, long channels, long taps, const void *_Nullable const *_Nonnull rows, void *_Nonnull target);

/// Tells the processor that this is a waiting loop.
void ck_pause(void);
