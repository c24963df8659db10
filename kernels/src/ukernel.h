/* ukernel.h - the contracts of the micro-kernels, once for all variants.
 *
 * The scalar variant defines the result; every other gives the same integers for the same input, any input, and the same
 * bits where the result is float. A micro-kernel takes rows, never threads; it allocates nothing, keeps no state and
 * reads no environment.
 * Its name is eb_<op>_<weights>_<activations>_<isa>[_<feature>], its file that name without eb_. The small float
 * operations of one ISA level share a file, float_ops_<isa>.c.
 *
 * Weight matrices lie in tiles: four rows go together, 16 bytes of each in turn, so that 64 bytes, a cache line, hold
 * the same columns of four rows, a 128-bit lane is one row, and a matrix is read as one stream. `rows` is a multiple of
 * 4 and `k` one of 64 wherever they stand and nothing else is said. docs/model-format.md describes the layouts t2, t1
 * and h8. */
#ifndef EB_UKERNEL_H
#define EB_UKERNEL_H

#include <stddef.h>
#include <stdint.h>

enum { EB_TILE_ROWS = 4 };

/* gemv_t2_i8, gemv_t1_i8: decode, y[n] = sum over i of (code[n][i] - 1) * x[i].
 *   y  [rows]                w  the rows in layout t2: codes 0 to 3, though 3 is in no sound file; or in layout t1
 *   x  [k] int8, any value   x_sum  the sum of x, which takes the codes' 1 off once a row
 *   k  at most 262,144 (so that no int32 overflows: 262144 * 3 * 128 < 2^27, and no sum of codes that stand up to 6
 *      bits too high does either: 65536 * 192 * 128 < 2^31) */
typedef void eb_gemv_t2_i8_fn(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                              size_t rows, size_t k);
typedef eb_gemv_t2_i8_fn eb_gemv_t1_i8_fn;

/* gemv4_t2_i8, gemv4_t1_i8: the same for 1 to 4 tokens at once, y[t][n], each token's x from x + t * x_stride on: what a few
 * sequences, or the check of a draft, take. Not every CPU has it: where it is missing, gemv goes token by token. */
typedef struct eb_gemv4_operands {
    int32_t *restrict y;
    const uint8_t *restrict w;
    const int8_t *restrict x;
    const int32_t *restrict x_sum; /* [n_tokens] */
    size_t y_stride, x_stride, rows, k;
} eb_gemv4_operands;
typedef void eb_gemv4_t2_i8_fn(const eb_gemv4_operands *operands, size_t n_tokens);
typedef eb_gemv4_t2_i8_fn eb_gemv4_t1_i8_fn;

/* unpack_t2, unpack_t1: the codes of rows in layout t2 or t1, one in a byte, in tiles: [rows / 4][k / 16][4][16], for
 * gemm_c8_i8. */
typedef void eb_unpack_t2_fn(uint8_t *restrict codes, const uint8_t *restrict w, size_t rows, size_t k);
typedef eb_unpack_t2_fn eb_unpack_t1_fn;

/* gemm_c8_i8: prefill and batches, y[t][n] = sum over i of (code[n][i] - 1) * x[t][i].
 *   y  rows of y_stride      codes  what unpack_t2 or unpack_t1 gave: 0 to 3
 *   x  rows of x_stride      x_sum  [n_tokens] the sum of each token's x      k  at most 262,144 */
typedef void eb_gemm_c8_i8_fn(int32_t *restrict y, size_t y_stride, const uint8_t *restrict codes,
                              const int8_t *restrict x, size_t x_stride, const int32_t *restrict x_sum, size_t rows,
                              size_t k, size_t n_tokens);

/* A vector quantised to 15 bits in two int8 planes: q[i] = 128 * hi[i] + lo[i], -16,256 to 16,256; hi -127 to 127, lo
 * -64 to 63. */
typedef struct eb_i15 {
    const int8_t *hi; /* [k] */
    const int8_t *lo; /* [k] */
} eb_i15;

/* gemv_h4_i15: the head's high plane, y[n] = sum over i of code[n][i] * q[i], codes 0 to 15.
 *   y  [rows]   w  the high plane of layout h8, in tiles   k  at most 65,536 (so that no int32 sum of a plane of x
 *                                                             overflows: 65536 * 15 * 128 < 2^27) */
typedef void eb_gemv_h4_i15_fn(int64_t *restrict y, const uint8_t *restrict w, const eb_i15 *restrict x, size_t rows,
                               size_t k);

/* dot_l2_i15: one row of a low plane of the head, sum over i of code[i] * q[i], codes 0 to 3.
 *   w  [k / 4] bytes, a row of a low plane of layout h8, not in tiles: rows are read one here, one there
 *   k  a multiple of 256, at most 65,536 */
typedef int64_t eb_dot_l2_i15_fn(const uint8_t *restrict w, const eb_i15 *restrict x, size_t k);

/* gemv_u8_i15: an int8 head in plain rows, y[n] = sum over i of (code[n][i] - 128) * q[i].
 *   y       [rows]           w  codes 0 to 255, a row each w_stride bytes, not in tiles
 *   x_sum   the sum of q, which takes the codes' 128 off once a row
 *   rows    any number       k  a multiple of 16, at most 65,536 (so that no int32 sum of a plane of x overflows:
 *                               65536 * 255 * 128 < 2^31) */
typedef void eb_gemv_u8_i15_fn(int64_t *restrict y, const uint8_t *restrict w, const eb_i15 *restrict x, int64_t x_sum,
                               size_t w_stride, size_t rows, size_t k);

/* ---- float operations ----
 * Activations come in rows filled up with zeros to a multiple of 64 floats, which these keep so; weights from the model
 * file are not filled up, and are never read past their end. */

/* rmsnorm: y = x / sqrt(mean(x^2) + eps) * weight, all [n]; y may be x */
typedef void eb_rmsnorm_fn(float *y, const float *x, const float *weight, size_t n, float eps);

/* quantise_i8: absmax quantisation of x [n]: q = round_half_even(x * 127 / max(absmax, 1e-5)), [n rounded up to 64], so
 * that x is about q * scale. *sum is the sum of q. What is not a number becomes -128. */
typedef void eb_quantise_i8_fn(int8_t *q, float *scale, int32_t *sum, const float *x, size_t n);

/* quantise_i15: the same with 15 bits: q = round_half_even(x * 16256 / absmax) = 128 * hi + lo, each [n rounded up to 64]. */
typedef void eb_quantise_i15_fn(int8_t *hi, int8_t *lo, float *scale, const float *x, size_t n);

/* Products of quantised activations with the same rows of weights, token by token: dots[token][i] stands for
 * dots[token][i] * (the token's scale * scales[by_row ? i : 0]). With activations of 15 bits they are those of the high
 * plane, and dots[token][i] in this is 128 * dots[token][i] + lo[token][i], rounded to a float once. */
typedef struct eb_scaled_dots {
    const int32_t *dots; /* rows of `stride` */
    size_t stride;
    const float *scales;
    int by_row;
    const int32_t *lo; /* as dots, or NULL */
} eb_scaled_dots;

/* scale_dots: y [n_tokens][n], rows of y_stride, become y (add) or 0 (not) + what `of` stands for; scales [n_tokens] */
typedef void eb_scale_dots_fn(float *y, size_t y_stride, const eb_scaled_dots *of, const float *scales, size_t n,
                              size_t n_tokens, int add);

/* gate_dots: f [n_tokens][n] = act(gate) * up, act(x) = max(x, 0)^2 or, with is_silu, x / (1 + e^-x); both without lo */
typedef void eb_gate_dots_fn(float *f, size_t f_stride, const eb_scaled_dots *gate, const eb_scaled_dots *up,
                             const float *scales, size_t n, size_t n_tokens, int is_silu);

/* gate_values: the same for one token from the values themselves, gate and up [n]; f may be either of them */
typedef void eb_gate_values_fn(float *f, const float *gate, const float *up, size_t n, int is_silu);

/* lora_a_f16, lora_a_i8: into a low-rank side path (adapter.h), y[j] = sum over i of a[j][i] * x[i], in 16 partial sums and
 * their tree (vec.h); i8: times scales[j].
 *   y  [n]   a  [n][columns filled up to 16], finite f16 or int8   x  filled up with zeros   scales  [n], of i8 */
typedef void eb_lora_a_f16_fn(float *y, const void *a, const float *scales, const float *x, size_t n, size_t columns);
typedef eb_lora_a_f16_fn eb_lora_a_i8_fn;

/* lora_b_f16, lora_b_i8: out of it, y[n] += scale * sum over j of b[n][j] * x[j], in the order of j; i8: scale * scales[n].
 *   y  [n]   b  [n / 16, rounded up][rank][16]   x  [rank]   scales  [n], of i8 */
typedef void eb_lora_b_f16_fn(float *y, const void *b, const float *scales, float scale, const float *x, size_t n,
                              size_t rank);
typedef eb_lora_b_f16_fn eb_lora_b_i8_fn;

/* rope_rotate: y = x rotated, x [2 * half]: element i pairs with element half + i (rotate-half). */
typedef void eb_rope_rotate_fn(float *restrict y, const float *restrict x, const float *cosines, const float *sines,
                               size_t half);

/* ---- the KV cache and attention (kv_cache.h says how keys and values lie) ---- */

enum {
    EB_KV_GROUP = 16, /* positions whose keys lie together */
    EB_SEGMENT =
        256, /* positions that one softmax is taken over; those of several segments are merged in their order */
    EB_ATTEND_ROWS = 32 /* queries that one call of attend_* takes at most */
};

typedef struct eb_kv_layout {
    size_t head_dim, stride;
    size_t values_at, scales_at, group_bytes; /* inside a group */
} eb_kv_layout;

/* round_f16: y = x as IEEE binary16, halves to even, at most 65,504 in magnitude; -65,504 for what is not a number.
 * [n], a multiple of 16 */
typedef void eb_round_f16_fn(uint16_t *y, const float *x, size_t n);

/* quantise_kv: q = round_half_even(x * 127 / max(absmax, 1e-20)), -127 to 127; -127 for what is not a number.
 * [n], a multiple of 16 */
typedef void eb_quantise_kv_fn(int8_t *q, float *scale, const float *x, size_t n);

/* A softmax under way: the highest score, and the sum of e^(score - highest). */
typedef struct eb_softmax {
    float highest, total;
} eb_softmax;

/* Queries that share one key-value head, and one segment of its positions. Rows are those of one token or of several that
 * follow on each other: rows_per_token of the first see the segment's positions 0 .. count-1, those of each next token
 * `more` positions more. */
typedef struct eb_attend {
    eb_kv_layout kv;
    const unsigned char *groups; /* of the segment */
    const float *q;              /* [n_rows][stride] rotated, divided by sqrt(head_dim), the rest zero */
    size_t n_rows, rows_per_token, count, more;
    eb_softmax *softmax; /* [n_rows] out: */
    float *sums;   /* [n_rows][stride] the sum of e^(score - highest) * value over the positions, in their order */
    float *scores; /* [n_rows][EB_SEGMENT] scratch */
    int16_t *q15;  /* [n_rows][2 * stride] scratch */
} eb_attend;

typedef void eb_attend_fn(const eb_attend *a);
typedef eb_attend_fn eb_attend_f16_fn, eb_attend_i8_fn, eb_attend_f32_fn;

/* merge_attention: *into and sums [n], a multiple of 16, of some segments take in those of the next one. */
typedef void eb_merge_attention_fn(eb_softmax *into, float *sums, const eb_softmax *part, const float *part_sums,
                                   size_t n);

/* read_sum: the sum of words[0 .. n-1], modulo 2^64. How fast memory can be read is measured with it.
 *   words  aligned to 64 bytes   n  a multiple of 64 */
typedef uint64_t eb_read_sum_fn(const uint64_t *words, size_t n);

/* peak_i8: n * 16 * (the sum over i < 64 of a[i] * b[i]), modulo 2^32, by n * EB_PEAK_MACS multiplications of operands
 * that stay in registers, none left out. How fast products with weights can be at most is measured with it.
 *   a  [64], 0 to 3: codes as layouts hold them   b  [64] int8, any value */
enum { EB_PEAK_MACS = 16 * 64 };
typedef uint32_t eb_peak_i8_fn(const uint8_t a[64], const int8_t b[64], size_t n);

/* One variant of each op: what this CPU runs. */
typedef struct eb_ukernels {
    eb_gemv_t2_i8_fn *gemv_t2_i8;
    eb_gemv_t1_i8_fn *gemv_t1_i8;
    eb_gemv4_t2_i8_fn *gemv4_t2_i8; /* these two may be NULL */
    eb_gemv4_t1_i8_fn *gemv4_t1_i8;
    eb_unpack_t2_fn *unpack_t2;
    eb_unpack_t1_fn *unpack_t1;
    eb_gemm_c8_i8_fn *gemm_c8_i8;
    eb_gemv_h4_i15_fn *gemv_h4_i15;
    eb_dot_l2_i15_fn *dot_l2_i15;
    eb_gemv_u8_i15_fn *gemv_u8_i15;
    eb_rmsnorm_fn *rmsnorm;
    eb_quantise_i8_fn *quantise_i8;
    eb_quantise_i15_fn *quantise_i15;
    eb_scale_dots_fn *scale_dots;
    eb_gate_dots_fn *gate_dots;
    eb_gate_values_fn *gate_values;
    eb_lora_a_f16_fn *lora_a_f16;
    eb_lora_a_i8_fn *lora_a_i8;
    eb_lora_b_f16_fn *lora_b_f16;
    eb_lora_b_i8_fn *lora_b_i8;
    eb_rope_rotate_fn *rope_rotate;
    eb_round_f16_fn *round_f16;
    eb_quantise_kv_fn *quantise_kv;
    eb_attend_f16_fn *attend_f16;
    eb_attend_i8_fn *attend_i8;
    eb_attend_f32_fn *attend_f32;
    eb_merge_attention_fn *merge_attention;
    eb_read_sum_fn *read_sum;
    eb_peak_i8_fn *peak_i8;
} eb_ukernels;

#define EB_UKERNEL(op, name, features) eb_##op##_fn name;
#include "ukernels.inc"
#undef EB_UKERNEL

#endif
