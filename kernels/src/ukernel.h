/* ukernel.h - the contracts of the micro-kernels, once for all variants.
 *
 * The scalar variant defines the result; every other gives the same integers for the same input, any input. A
 * micro-kernel takes rows, never threads; it allocates nothing, keeps no state and reads no environment.
 * Its name is eb_<op>_<weights>_<activations>_<isa>[_<feature>], its file that name without eb_. */
#ifndef EB_UKERNEL_H
#define EB_UKERNEL_H

#include <stddef.h>
#include <stdint.h>

/* gemv_t2_i8: y[n] = sum over i of (code[n][i] - 1) * x[i].
 *   y  [rows]                w  [rows][k / 4] bytes of layout t2: codes 0 to 3, though 3 is in no sound file
 *   x  [k] int8, any value   x_sum  the sum of x, which takes the codes' 1 off once a row
 *   k  a multiple of 64, at most 262,144 (so that no int32 overflows: 262144 * 3 * 128 < 2^27) */
typedef void eb_gemv_t2_i8_fn(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                              size_t rows, size_t k);

/* A vector quantised to 15 bits: q[i] = 128 * hi[i] + lo[i], -16,256 to 16,256; hi -127 to 127, lo -64 to 63. Both
 * forms are given, since which is faster hangs on the ISA: one 16-bit product, or two 8-bit dot products. */
typedef struct eb_i15 {
    const int16_t *q; /* [k] */
    const int8_t *hi; /* [k] */
    const int8_t *lo; /* [k] */
} eb_i15;

/* gemv_i8_i15: y[n] = sum over i of w[n][i] * x.q[i].
 *   y  [rows]                w  [rows][k] int8, any value
 *   k  a multiple of 64, at most 65,536 */
typedef void eb_gemv_i8_i15_fn(int64_t *restrict y, const int8_t *restrict w, const eb_i15 *restrict x, size_t rows,
                               size_t k);

/* One variant of each op: what this CPU runs. */
typedef struct eb_ukernels {
    eb_gemv_t2_i8_fn *gemv_t2_i8;
    eb_gemv_i8_i15_fn *gemv_i8_i15;
} eb_ukernels;

#define EB_UKERNEL(op, name, features) eb_##op##_fn name;
#include "ukernels.inc"
#undef EB_UKERNEL

#endif
