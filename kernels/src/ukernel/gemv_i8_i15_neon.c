/* gemv_i8_i15_neon.c - the head's GEMV for cores without FEAT_DotProd (Cortex-A53, A72, A73).
 * Two dot products, one with each 8-bit plane of the activations. SMULL and SMLAL2 add two products to an int16 lane:
 * at most 2 * 128 * 127 = 32,512 in magnitude, which just fits; SADALP then widens. The int32 sums hold 65,536 columns:
 * 65536 * 128 * 127 < 2^31. Two rows share the loads of activations. */
#include "ukernel.h"

#include <arm_neon.h>

enum { ROWS = 2 };

static inline int32x4_t add_products(int32x4_t acc, int8x16_t w, int8x16_t x) {
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    return vpadalq_s16(acc, vmlal_s8(low, vget_high_s8(w), vget_high_s8(x)));
}

/* `n` rows, 1 or ROWS: a constant where this is inlined. */
static inline __attribute__((always_inline)) void some_rows(int64_t *restrict y, const int8_t *restrict w,
                                                            const eb_i15 *restrict x, size_t k, int n) {
    int32x4_t hi[ROWS], lo[ROWS];
    for (int r = 0; r < n; r++)
        hi[r] = lo[r] = vdupq_n_s32(0);
    for (size_t i = 0; i < k; i += 16) {
        const int8x16_t x_hi = vld1q_s8(x->hi + i), x_lo = vld1q_s8(x->lo + i);
        for (int r = 0; r < n; r++) {
            const int8x16_t weights = vld1q_s8(w + (size_t)r * k + i);
            hi[r] = add_products(hi[r], weights, x_hi);
            lo[r] = add_products(lo[r], weights, x_lo);
        }
    }
    for (int r = 0; r < n; r++)
        y[r] = 128 * vaddlvq_s32(hi[r]) + vaddlvq_s32(lo[r]);
}

void eb_gemv_i8_i15_neon(int64_t *restrict y, const int8_t *restrict w, const eb_i15 *restrict x, size_t rows,
                         size_t k) {
    size_t n = 0;
    for (; n + ROWS <= rows; n += ROWS)
        some_rows(y + n, w + n * k, x, k, ROWS);
    for (; n < rows; n++)
        some_rows(y + n, w + n * k, x, k, 1);
}
