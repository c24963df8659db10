/* ukernel.h - the contracts of the micro-kernels, once for all variants.
 *
 * The scalar variant defines the result; every other gives the same integers for the same input, any input. A
 * micro-kernel takes rows, never threads; it allocates nothing, keeps no state and reads no environment.
 * Its name is eb_<op>_<weights>_<activations>_<isa>[_<feature>], its file that name without eb_.
 *
 * Weight matrices lie in tiles: four rows go together, 16 bytes of each in turn, so that 64 bytes, a cache line, hold
 * the same columns of four rows, a 128-bit lane is one row, and a matrix is read as one stream. `rows` is a multiple of
 * 4 and `k` one of 64 wherever they stand. docs/model-format.md describes the layouts t2, t1 and h8. */
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
} eb_ukernels;

#define EB_UKERNEL(op, name, features) eb_##op##_fn name;
#include "ukernels.inc"
#undef EB_UKERNEL

#endif
