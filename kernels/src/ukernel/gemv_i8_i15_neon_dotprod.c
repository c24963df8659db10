/* gemv_i8_i15_neon_dotprod.c - the head's GEMV for cores with FEAT_DotProd (Cortex-A55, A76 and later).
 * Two SDOTs for 16 weights, one with each 8-bit plane of the activations. The int32 sums hold 65,536 columns:
 * 65536 * 128 * 127 < 2^31. Four rows share the loads of activations. */
#include "ukernel.h"

#include <arm_neon.h>

enum { ROWS = 4 };

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
            hi[r] = vdotq_s32(hi[r], weights, x_hi);
            lo[r] = vdotq_s32(lo[r], weights, x_lo);
        }
    }
    for (int r = 0; r < n; r++)
        y[r] = 128 * vaddlvq_s32(hi[r]) + vaddlvq_s32(lo[r]);
}

void eb_gemv_i8_i15_neon_dotprod(int64_t *restrict y, const int8_t *restrict w, const eb_i15 *restrict x, size_t rows,
                                 size_t k) {
    size_t n = 0;
    for (; n + ROWS <= rows; n += ROWS)
        some_rows(y + n, w + n * k, x, k, ROWS);
    for (; n < rows; n++)
        some_rows(y + n, w + n * k, x, k, 1);
}
