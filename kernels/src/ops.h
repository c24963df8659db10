/* ops.h - the float parts of a forward pass. Every result is the same on every CPU (vec4.h).
 *
 * Vectors come in rows filled up with zeros to a multiple of 64 floats, which these functions keep so; weights from the
 * model file are not filled up, and are never read past their end. */
#ifndef EB_OPS_H
#define EB_OPS_H

#include <stddef.h>
#include <stdint.h>

static inline size_t eb_round_up(size_t n, size_t step) { return (n + step - 1) / step * step; }

/* y = x / sqrt(mean(x^2) + eps) * weight, all [n]; y may be x */
void eb_rmsnorm(float *y, const float *x, const float *weight, size_t n, float eps);

/* Absmax quantisation of x [n] to int8: q = round_half_even(x * 127 / max(absmax, 1e-5)), [n rounded up to 64], so that
 * x is about q * scale. *sum is the sum of q. What is not a number becomes -128. */
void eb_quantise_i8(int8_t *q, float *scale, int32_t *sum, const float *x, size_t n);

/* The same with 15 bits: q = round_half_even(x * 16256 / absmax) = 128 * hi + lo, each [n rounded up to 64]. */
void eb_quantise_i15(int8_t *hi, int8_t *lo, float *scale, const float *x, size_t n);

/* y[i] = y[i] (add) or 0 (not) + dot[i] * (scale * scales[by_row ? i : 0]), [n] */
void eb_scale_dots(float *y, const int32_t *dot, float scale, const float *scales, int by_row, size_t n, int add);

/* cos and sin [half] of position * inv_freq[i], the product in float as the reference has it */
void eb_rope_angles(float *cosines, float *sines, const float *inv_freq, uint32_t position, size_t half);

/* y = x rotated, x [2 * half]: element i pairs with element half + i (rotate-half). y must not overlap x. */
void eb_rope_rotate(float *restrict y, const float *restrict x, const float *cosines, const float *sines, size_t half);

/* f = act(gate) * up, [n]; f may be gate */
void eb_gate_relu2(float *f, const float *gate, const float *up, size_t n);
void eb_gate_silu(float *f, const float *gate, const float *up, size_t n);

/* Attention of `n_q` query heads that share one key-value head, over positions 0 .. n-1.
 *   out     [n_q][head_dim]                 q       [n_q][stride]
 *   keys, values  [n][stride]               stride  head_dim rounded up to 16; the rest of each row is zero
 *   scores  scratch, n_q * ((n rounded up to 16) + stride) */
void eb_attention(float *out, const float *q, const float *keys, const float *values, float *scores, size_t n_q,
                  size_t n, size_t head_dim, size_t stride);

#endif
