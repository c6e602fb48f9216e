// The kernels as formulas in plain C. Tests compare the vector kernels with these, and processors without vector kernels use them.
#include "CKernels.h"
#include <math.h>
#include <string.h>

static void gemm_panel(
    long rows, long columns, long k, const float *a, long lda, const float *panel, float *c, long ldc, int begin,
    const float *bias, const float *residual, long ldr) {
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < columns; j++) {
      float sum = begin == CK_BEGIN_ACCUMULATE ? c[i * ldc + j] : (bias ? bias[j] : 0) + (residual ? residual[i * ldr + j] : 0);
      for (long p = 0; p < k; p++) sum += a[i * lda + p] * panel[p * CK_PANEL + j];
      c[i * ldc + j] = sum;
    }
}

static void gemm_rows(
    long rows, long columns, long k, const float *a, long lda, const float *b, long ldb, float *c, long ldc, int begin) {
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < columns; j++) {
      float sum = begin == CK_BEGIN_ACCUMULATE ? c[i * ldc + j] : 0;
      for (long p = 0; p < k; p++) sum += a[i * lda + p] * b[p * ldb + j];
      c[i * ldc + j] = sum;
    }
}

static void gemm_outer(
    long rows, long columns, long k, const float *a, long lda, const float *b, long ldb, float *c, long ldc, int begin) {
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < columns; j++) {
      float sum = begin == CK_BEGIN_ACCUMULATE ? c[i * ldc + j] : 0;
      for (long p = 0; p < k; p++) sum += a[p * lda + i] * b[p * ldb + j];
      c[i * ldc + j] = sum;
    }
}

static float gelu(float x) { return 0.5f * x * erfcf(-x * 0.70710678f); }

static float apply(int activation, float x) {
  switch (activation) {
  case CK_ACTIVATION_SILU: return x / (1 + expf(-x));
  case CK_ACTIVATION_GELU: return gelu(x);
  case CK_ACTIVATION_QUICK_GELU: return x / (1 + expf(-1.702f * x));
  case CK_ACTIVATION_RELU: return x < 0 ? 0 : x;
  case CK_ACTIVATION_TANH: return tanhf(x);
  default: return x;
  }
}

static void activate(int activation, long rows, long columns, const float *x, long ldx, float *y, long ldy) {
  for (long r = 0; r < rows; r++)
    for (long i = 0; i < columns; i++) y[r * ldy + i] = apply(activation, x[r * ldx + i]);
}

static void geglu(long rows, long columns, const float *x, long ldx, long gates, float *y, long ldy) {
  for (long r = 0; r < rows; r++)
    for (long i = 0; i < columns; i++) y[r * ldy + i] = x[r * ldx + i] * gelu(x[r * ldx + gates + i]);
}

static void scale_rows(long rows, long columns, const float *factors, float *y, long ldy) {
  for (long r = 0; r < rows; r++)
    for (long i = 0; i < columns; i++) y[r * ldy + i] *= factors[r];
}

static void moments(long pixels, long channels, const float *x, float *mean, float *m2) {
  for (long c = 0; c < channels; c++) {
    double sum = 0, squares = 0;
    for (long p = 0; p < pixels; p++) sum += x[p * channels + c];
    double average = sum / (double)pixels;
    for (long p = 0; p < pixels; p++) squares += (x[p * channels + c] - average) * (x[p * channels + c] - average);
    mean[c] = (float)average;
    m2[c] = (float)squares;
  }
}

static void scale_shift(
    int activation, long pixels, long channels, const float *x, const float *scale, const float *shift, float *y,
    long ldy) {
  for (long p = 0; p < pixels; p++)
    for (long c = 0; c < channels; c++) y[p * ldy + c] = apply(activation, x[p * channels + c] * scale[c] + shift[c]);
}

static void layer_norm(
    long rows, long columns, float epsilon, const float *x, const float *weight, const float *bias, float *y) {
  for (long r = 0; r < rows; r++) {
    double sum = 0, squares = 0;
    for (long i = 0; i < columns; i++) sum += x[r * columns + i];
    double mean = sum / (double)columns;
    for (long i = 0; i < columns; i++) squares += (x[r * columns + i] - mean) * (x[r * columns + i] - mean);
    double inverse = 1 / sqrt(squares / (double)columns + epsilon);
    for (long i = 0; i < columns; i++)
      y[r * columns + i] = (float)((x[r * columns + i] - mean) * inverse) * weight[i] + bias[i];
  }
}

static void softmax_block(
    long rows, long columns, float scale, float *scores, long ld, float *maximum, float *total, float *rescale) {
  for (long r = 0; r < rows; r++) {
    float *row = scores + r * ld, top = maximum[r], sum = 0;
    for (long i = 0; i < columns; i++) top = fmaxf(top, row[i]);
    float shift = top == -INFINITY ? 0 : top;
    rescale[r] = expf((maximum[r] - shift) * scale);
    for (long i = 0; i < columns; i++) {
      row[i] = expf((row[i] - shift) * scale);
      sum += row[i];
    }
    total[r] = total[r] * rescale[r] + sum;
    maximum[r] = top;
  }
}

static float slope(int activation, float x) {
  switch (activation) {
  case CK_ACTIVATION_SILU: {
    float s = 1 / (1 + expf(-x));
    return s + s * x * (1 - s);
  }
  case CK_ACTIVATION_GELU: return 0.5f * erfcf(-x * 0.70710678f) + x * 0.39894228f * expf(-0.5f * x * x);
  case CK_ACTIVATION_QUICK_GELU: {
    float s = 1 / (1 + expf(-1.702f * x));
    return s + s * x * (1 - s) * 1.702f;
  }
  case CK_ACTIVATION_RELU: return x > 0 ? 1 : 0;
  case CK_ACTIVATION_TANH: return 1 - tanhf(x) * tanhf(x);
  default: return 1;
  }
}

static void activate_back(int activation, long count, const float *x, const float *g, float *y) {
  for (long i = 0; i < count; i++) y[i] = g[i] * slope(activation, x[i]);
}

static void geglu_back(long rows, long columns, const float *x, long ldx, long gates, const float *g, long ldg, float *y) {
  for (long r = 0; r < rows; r++)
    for (long i = 0; i < columns; i++) {
      float value = x[r * ldx + i], gate = x[r * ldx + gates + i], d = g[r * ldg + i];
      y[r * ldx + i] = d * gelu(gate);
      y[r * ldx + gates + i] = d * value * slope(CK_ACTIVATION_GELU, gate);
    }
}

static void norm_back(
    int activation, long pixels, long channels, const float *x, const ck_normalization *n, const float *g, long ldg, float *y, float *sums,
    float *products) {
  for (long c = 0; c < channels; c++) {
    double sum = 0, product = 0;
    for (long p = 0; p < pixels; p++) {
      float v = x[p * channels + c], d = g[p * ldg + c] * slope(activation, v * n->scale[c] + n->shift[c]);
      y[p * channels + c] = d;
      sum += d;
      product += d * (v * n->rate[c] + n->offset[c]);
    }
    sums[c] = (float)sum;
    products[c] = (float)product;
  }
}

static void combine(
    long pixels, long channels, const float *g, const float *a, const float *x, const float *b, const float *c, float *y) {
  for (long p = 0; p < pixels; p++)
    for (long i = 0; i < channels; i++) y[p * channels + i] = g[p * channels + i] * a[i] + x[p * channels + i] * b[i] + c[i];
}

static void layer_norm_back(
    long rows, long columns, float epsilon, const float *x, const float *weight, const float *g, float *y, float *weights, float *biases) {
  for (long r = 0; r < rows; r++) {
    const float *row = x + r * columns, *in = g + r * columns;
    double sum = 0, squares = 0, h = 0, p = 0;
    for (long i = 0; i < columns; i++) sum += row[i];
    double mean = sum / (double)columns;
    for (long i = 0; i < columns; i++) squares += (row[i] - mean) * (row[i] - mean);
    double inverse = 1 / sqrt(squares / (double)columns + epsilon);
    for (long i = 0; i < columns; i++) {
      double v = (row[i] - mean) * inverse;
      h += (double)in[i] * weight[i];
      p += (double)in[i] * weight[i] * v;
      weights[i] += (float)(in[i] * v);
      biases[i] += in[i];
    }
    for (long i = 0; i < columns; i++)
      y[r * columns + i] = (float)(inverse * ((double)in[i] * weight[i] - (h + (row[i] - mean) * inverse * p) / (double)columns));
  }
}

static void softmax_back(long rows, long columns, float scale, const float *p, long ldp, float *g, long ldg) {
  for (long r = 0; r < rows; r++) {
    double mean = 0;
    for (long i = 0; i < columns; i++) mean += (double)p[r * ldp + i] * g[r * ldg + i];
    for (long i = 0; i < columns; i++) g[r * ldg + i] = p[r * ldp + i] * (g[r * ldg + i] - (float)mean) * scale;
  }
}

static void attention_back(
    long rows, long columns, float scale, const float *maxima, const float *inverses, const float *products, float *scores, float *g, long ld) {
  for (long r = 0; r < rows; r++) {
    for (long i = r * ld; i < r * ld + columns; i++) {
      scores[i] = (float)exp((double)scale * (scores[i] - maxima[r])) * inverses[r];
      g[i] = scores[i] * (g[i] - products[r]) * scale;
    }
  }
}

static void adam(long count, const ck_adam *s, float *parameter, float *m, float *v, const float *g) {
#pragma clang fp contract(off)
  for (long i = 0; i < count; i++) {
    m[i] += s->first_gain * (g[i] - m[i]);
    v[i] = v[i] * s->second_kept + s->second_gain * g[i] * g[i];
    parameter[i] = parameter[i] * s->kept - s->step * m[i] / (sqrtf(v[i]) / s->root + s->epsilon);
  }
}

static float from_half(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * ldexpf((float)fraction, -24);
  uint32_t bits = sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | fraction << 13;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static void widen_f16(long count, const uint16_t *x, float *y) {
  for (long i = 0; i < count; i++) y[i] = from_half(x[i]);
}

static void widen_bf16(long count, const uint16_t *x, float *y) {
  for (long i = 0; i < count; i++) {
    uint32_t bits = (uint32_t)x[i] << 16;
    memcpy(y + i, &bits, 4);
  }
}

// The matrices of F(4×4, 3×3), Lavin and Gray 2015, for the points 0, a, -a, b, -b and infinity. A row of G is the window's polynomial
// at a point, divided by the product of the point's differences from the others.
#define A CK_WINOGRAD_A
#define B CK_WINOGRAD_B
#define NEAR (1 / (2 * A * A * (A * A - B * B)))
#define FAR (1 / (2 * B * B * (B * B - A * A)))
static const float BT[6][6] = {{A * A * B * B, 0, -A * A - B * B, 0, 1, 0},
                               {0, -A * B * B, -B * B, A, 1, 0},
                               {0, A * B * B, -B * B, -A, 1, 0},
                               {0, -B * A * A, -A * A, B, 1, 0},
                               {0, B * A * A, -A * A, -B, 1, 0},
                               {0, A * A * B * B, 0, -A * A - B * B, 0, 1}};
static const float AT[4][6] = {{1, 1, 1, 1, 1, 0},
                               {0, A, -A, B, -B, 0},
                               {0, A * A, A * A, B * B, B * B, 0},
                               {0, A * A * A, -A * A * A, B * B * B, -B * B * B, 1}};
static const float G[6][3] = {{1 / (A * A * B * B), 0, 0},
                              {NEAR, NEAR * A, NEAR * A * A},
                              {NEAR, -NEAR * A, NEAR * A * A},
                              {FAR, FAR * B, FAR * B * B},
                              {FAR, -FAR * B, FAR * B * B},
                              {0, 0, 1}};
#undef A
#undef B
#undef NEAR
#undef FAR

/// out[rows][rows] = L · in[n][n] · Lᵀ for L[rows][n].
static void sandwich(int rows, int n, const float *l, const float *in, float *out) {
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < rows; j++) {
      float sum = 0;
      for (int p = 0; p < n; p++)
        for (int q = 0; q < n; q++) sum += l[i * n + p] * in[p * n + q] * l[j * n + q];
      out[i * rows + j] = sum;
    }
}

static void winograd_input(long channels, const float *const *pixels, float *v, long ldv) {
  for (long c = 0; c < channels; c++) {
    float d[36], out[36];
    for (int i = 0; i < 36; i++) d[i] = pixels[i][c];
    sandwich(6, 6, &BT[0][0], d, out);
    for (int i = 0; i < 36; i++) v[i * ldv + c] = out[i];
  }
}

static void winograd_output(
    int activation, long channels, const float *m, long ldm, const float *bias, const float *const *residuals, float *const *pixels) {
  for (long c = 0; c < channels; c++) {
    float d[36], out[16];
    for (int i = 0; i < 36; i++) d[i] = m[i * ldm + c];
    sandwich(4, 6, &AT[0][0], d, out);
    for (int i = 0; i < 16; i++)
      if (pixels[i]) pixels[i][c] = apply(activation, out[i] + bias[c] + (residuals ? residuals[i][c] : 0));
  }
}

static void winograd_weights(const float *taps, long ldt, float *u, long ldu) {
  for (int column = 0; column < CK_PANEL; column++) {
    float g[9], out[36];
    for (int i = 0; i < 9; i++) g[i] = taps[i * ldt + column];
    sandwich(6, 3, &G[0][0], g, out);
    for (int i = 0; i < 36; i++) u[i * ldu + column] = out[i];
  }
}

static void quantize_rows(long rows, long k, const float *x, long ldx, int8_t *q, long ldq, float *scales, int32_t *sums) {
  for (long r = 0; r < rows; r++) {
    float top = 0;
    for (long i = 0; i < k; i++) top = fmaxf(top, fabsf(x[r * ldx + i]));
    float inverse = top > 0 ? 127 / top : 0;
    scales[r] = top / 127;
    for (long i = 0; i < k; i++) {
      if (i % CK_BLOCK == 0) sums[r * (k / CK_BLOCK) + i / CK_BLOCK] = 0;
      q[r * ldq + i] = (int8_t)nearbyintf(x[r * ldx + i] * inverse);
      sums[r * (k / CK_BLOCK) + i / CK_BLOCK] -= 128 * q[r * ldq + i];
    }
  }
}

static float weight_q8(long p, long column, const uint8_t *panel, const uint16_t *scales) {
  return (float)(panel[(p / 4 * CK_PANEL + column) * 4 + p % 4] - 128) * from_half(scales[p / CK_BLOCK * CK_PANEL + column]);
}

static void widen_q8(long k, const uint8_t *panel, const uint16_t *scales, float *y) {
  for (long p = 0; p < k; p++)
    for (long j = 0; j < CK_PANEL; j++) y[p * CK_PANEL + j] = weight_q8(p, j, panel, scales);
}

static void widen_groups(
    long k, const uint8_t *low, const uint32_t *high, int planes, int zero, const float *scales, const float *minima, float *y) {
  for (long p = 0; p < k; p++)
    for (long j = 0; j < CK_PANEL; j++) {
      uint32_t q = low[p * (CK_PANEL / 2) + j % (CK_PANEL / 2)] >> (j / (CK_PANEL / 2) * 4) & 15;
      for (int plane = 0; plane < planes; plane++) q |= (high[p * planes + plane] >> j & 1) << (4 + plane);
      y[p * CK_PANEL + j] = scales[j] * (float)((int)q - zero) + minima[j];
    }
}

static void gemm_panel_q8(
    long rows, long k, const int8_t *a, long lda, const float *row_scales, const int32_t *sums, const uint8_t *panel,
    const uint16_t *scales, float *c, long ldc, int begin, const float *bias, const float *residual, long ldr) {
  (void)sums;
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < CK_PANEL; j++) {
      float sum = begin == CK_BEGIN_ACCUMULATE ? c[i * ldc + j] : (bias ? bias[j] : 0) + (residual ? residual[i * ldr + j] : 0);
      float products = 0;
      for (long p = 0; p < k; p++) products += (float)a[i * lda + p] * weight_q8(p, j, panel, scales);
      c[i * ldc + j] = sum + row_scales[i] * products;
    }
}

static uint16_t to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (x != x) return (uint16_t)((bits | 0x400000) >> 16);
  return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t h) {
  uint32_t bits = (uint32_t)h << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}

static void narrow_rows(long rows, long k, const float *x, long ldx, uint32_t *y, long ldy) {
  for (long r = 0; r < rows; r++)
    for (long p = 0; p < k; p += 2)
      y[r * ldy + p / 2] = to_bf16(x[r * ldx + p]) | (uint32_t)(p + 1 < k ? to_bf16(x[r * ldx + p + 1]) : 0) << 16;
}

static void narrow_panel(long k, const float *x, long ldx, uint32_t *y) {
  for (long p = 0; p < k; p += 2)
    for (long j = 0; j < CK_PANEL; j++)
      y[p / 2 * CK_PANEL + j] = to_bf16(x[p * ldx + j]) | (uint32_t)(p + 1 < k ? to_bf16(x[(p + 1) * ldx + j]) : 0) << 16;
}

static void narrow_q8(long k, const uint8_t *panel, const uint16_t *scales, uint32_t *y) {
  for (long p = 0; p < k; p += 2)
    for (long j = 0; j < CK_PANEL; j++)
      y[p / 2 * CK_PANEL + j] = to_bf16(weight_q8(p, j, panel, scales)) | (uint32_t)to_bf16(weight_q8(p + 1, j, panel, scales)) << 16;
}

static void gemm_panel_pairs(
    long rows, long columns, long words, const uint32_t *a, long lda, const uint32_t *panel, float *c, long ldc, int begin,
    const float *bias, const float *residual, long ldr) {
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < columns; j++) {
      float sum = begin == CK_BEGIN_ACCUMULATE ? c[i * ldc + j] : (bias ? bias[j] : 0) + (residual ? residual[i * ldr + j] : 0);
      for (long p = 0; p < words; p++) {
        uint32_t x = a[i * lda + p], w = panel[p * CK_PANEL + j];
        sum += from_bf16((uint16_t)x) * from_bf16((uint16_t)w) + from_bf16((uint16_t)(x >> 16)) * from_bf16((uint16_t)(w >> 16));
      }
      c[i * ldc + j] = sum;
    }
}

/// Rounds to bfloat16, with ties away from zero.
static uint16_t upper_part(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return (uint16_t)((bits + 0x8000) >> 16);
}

static void part(long count, const float *x, float *upper, float *lower) {
  for (long i = 0; i < count; i++) {
    upper[i] = from_bf16(upper_part(x[i]));
    lower[i] = x[i] - upper[i];
  }
}

/// Splits two values into a word of their upper parts and one of their lower parts.
static void split(float low, float high, uint32_t *upper, uint32_t *lower) {
  uint16_t first = upper_part(low), second = upper_part(high);
  *upper = first | (uint32_t)second << 16;
  *lower = upper_part(low - from_bf16(first)) | (uint32_t)upper_part(high - from_bf16(second)) << 16;
}

static void split_rows(long rows, long k, const float *x, long ldx, uint32_t *y, long ldy) {
  const long half = CK_SPLIT / 2;
  for (long r = 0; r < rows; r++)
    for (long p = 0; p < k; p += CK_SPLIT) {
      float values[CK_SPLIT];
      for (long i = 0; i < CK_SPLIT; i++) values[i] = p + i < k ? x[r * ldx + p + i] : 0;
      for (long i = 0; i < half; i++) split(values[i], values[i + half], y + r * ldy + p + i, y + r * ldy + p + i + half);
    }
}

static void split_panel(long k, const float *x, uint32_t *y) {
  const long half = CK_SPLIT / 2;
  for (long p = 0; p < k; p += CK_SPLIT)
    for (long i = 0; i < half; i++)
      for (long j = 0; j < CK_PANEL; j++)
        split(
            p + i < k ? x[(p + i) * CK_PANEL + j] : 0, p + i + half < k ? x[(p + i + half) * CK_PANEL + j] : 0,
            y + (p + i) * CK_PANEL + j, y + (p + i + half) * CK_PANEL + j);
}

static void join_panel(long k, const uint32_t *x, float *y) {
  const long half = CK_SPLIT / 2;
  for (long p = 0; p < k; p++)
    for (long j = 0; j < CK_PANEL; j++) {
      const uint32_t *word = x + (p / CK_SPLIT * CK_SPLIT + p % half) * CK_PANEL + j;
      const long shift = p % CK_SPLIT < half ? 0 : 16;
      y[p * CK_PANEL + j] = from_bf16((uint16_t)(word[0] >> shift)) + from_bf16((uint16_t)(word[half * CK_PANEL] >> shift));
    }
}

static void gemm_panel_split(
    long rows, long columns, long k, const uint32_t *a, long lda, const uint32_t *panel, float *c, long ldc, int begin, const float *bias,
    const float *residual, long ldr) {
  const long half = CK_SPLIT / 2;
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < columns; j++) {
      float sum = begin == CK_BEGIN_ACCUMULATE ? c[i * ldc + j] : (bias ? bias[j] : 0) + (residual ? residual[i * ldr + j] : 0);
      for (long p = 0; p < k; p++) {
        const long word = p / CK_SPLIT * CK_SPLIT + p % half, shift = p % CK_SPLIT < half ? 0 : 16;
        const uint32_t *x = a + i * lda + word, *w = panel + word * CK_PANEL + j;
        float upper = from_bf16((uint16_t)(x[0] >> shift)), lower = from_bf16((uint16_t)(x[half] >> shift));
        float weight = from_bf16((uint16_t)(w[0] >> shift)), rest = from_bf16((uint16_t)(w[half * CK_PANEL] >> shift));
        sum += upper * weight + (upper * rest + lower * weight);
      }
      c[i * ldc + j] = sum;
    }
}

static void gemm_windows(
    int is_split, const ck_windows *w, const uint32_t *a, const uint32_t *panel, float *c, int begin, const float *bias, const float *residual) {
  for (long y = 0; y < w->lines; y++)
    for (long x = 0; x < w->width; x++) {
      const uint32_t *window = a + y * w->line + x * w->pixel;
      const long at = y * w->result_line + x * w->result_pixel;
      for (long tap = 0; tap < w->taps; tap++) {
        const uint32_t *row = window + w->offsets[tap], *weights = panel + tap * w->panel;
        const int code = tap == 0 ? begin : CK_BEGIN_ACCUMULATE;
        const float *rest = residual ? residual + at : 0;
        float sums[CK_PANEL];
        if (code == CK_BEGIN_ACCUMULATE) memcpy(sums, c + at, sizeof sums);
        if (is_split) gemm_panel_split(1, CK_PANEL, w->words, row, 0, weights, sums, 0, code, bias, rest, 0);
        else gemm_panel_pairs(1, CK_PANEL, w->words, row, 0, weights, sums, 0, code, bias, rest, 0);
        memcpy(c + at, sums, sizeof sums);
      }
    }
}

static void cross_rows(
    long rows, long k, const float *levels, const float *x, long ldx, float *y, long ldy, float *scales, float *sums, long lds) {
  for (long r = 0; r < rows; r++) {
    double magnitude = 0;
    for (long p = 0; p < k; p++) magnitude += fabsf(x[r * ldx + p]);
    double ratio = levels ? magnitude / (double)k / levels[r] : 1;
    // The limits of 2^±100 are far beyond the scales of any values that matter.
    float scale = ratio > 0 && ratio < INFINITY ? ldexpf(1, (int)fmax(-100, fmin(100, floor(log2(ratio))))) : 1;
    float sum = 0;
    for (long p = 0; p < k; p++) y[r * ldy + p] = x[r * ldx + p] / scale;
    for (long p = 0; p + 3 <= k; p += 3) sum -= y[r * ldy + p + 1] * y[r * ldy + p + 2];
    scales[r * lds] = scale;
    sums[r * lds] = sum;
  }
}

static void cross_panel(long k, const float *panel, float *sums) {
  for (long j = 0; j < CK_PANEL; j++) sums[j] = 0;
  for (long p = 0; p + 3 <= k; p += 3)
    for (long j = 0; j < CK_PANEL; j++) sums[j] -= panel[(p + 1) * CK_PANEL + j] * panel[(p + 2) * CK_PANEL + j];
}

static void gemm_panel_crossed(
    long rows, long k, const float *a, long lda, const float *scales, const float *sums, const float *panel, const float *panel_sums, float *c,
    long ldc, int begin, const float *bias, const float *residual, long ldr) {
  for (long i = 0; i < rows; i++)
    for (long j = 0; j < CK_PANEL; j++) {
      const float *x = a + i * lda, *b = panel + j;
      float start = begin == CK_BEGIN_ACCUMULATE ? c[i * ldc + j] : (bias ? bias[j] : 0) + (residual ? residual[i * ldr + j] : 0);
      float products = sums[i] + panel_sums[j];
      for (long p = 0; p < k; p += 3, x += 3, b += 3 * CK_PANEL) {
        if (p + 3 <= k) {
          products += x[0] * b[0] + (x[1] + b[2 * CK_PANEL]) * (x[2] + b[CK_PANEL]);
        } else {
          products += x[0] * b[0] + (p + 2 == k ? x[1] * b[CK_PANEL] : 0);
        }
      }
      c[i * ldc + j] = start + scales[i] * products;
    }
}

const ck_kernels ck_table_plain = {
    .name = "plain",
    .tile_rows = 1,
    .gemm_panel = gemm_panel,
    .gemm_rows = gemm_rows,
    .gemm_outer = gemm_outer,
    .activate = activate,
    .geglu = geglu,
    .moments = moments,
    .scale_shift = scale_shift,
    .layer_norm = layer_norm,
    .softmax_block = softmax_block,
    .scale_rows = scale_rows,
    .activate_back = activate_back,
    .geglu_back = geglu_back,
    .norm_back = norm_back,
    .combine = combine,
    .layer_norm_back = layer_norm_back,
    .softmax_back = softmax_back,
    .attention_back = attention_back,
    .adam = adam,
    .widen_f16 = widen_f16,
    .widen_bf16 = widen_bf16,
    .winograd_input = winograd_input,
    .winograd_output = winograd_output,
    .winograd_weights = winograd_weights,
    .quantize_rows = quantize_rows,
    .widen_q8 = widen_q8,
    .widen_groups = widen_groups,
    .gemm_panel_q8 = gemm_panel_q8,
    .narrow_rows = narrow_rows,
    .narrow_panel = narrow_panel,
    .narrow_q8 = narrow_q8,
    .pair_words = 1,
    .gemm_panel_pairs = gemm_panel_pairs,
    .part = part,
    .split_rows = split_rows,
    .split_panel = split_panel,
    .join_panel = join_panel,
    .gemm_panel_split = gemm_panel_split,
    .gemm_windows = gemm_windows,
    .crossed_rows = 1,
    .cross_rows = cross_rows,
    .cross_panel = cross_panel,
    .gemm_panel_crossed = gemm_panel_crossed,
};
