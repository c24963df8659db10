/* gemv_t2_i8_neon_dotprod.c - decode GEMV for cores with FEAT_DotProd (Cortex-A55, A76 and later).
 * One 16-byte load holds 64 weights; the two low bits of each byte are the first 16 of them, the next two bits the next
 * 16, and so on, so four shifts feed four SDOTs with no shuffle. Four rows go together: each load of activations serves
 * them all, and no SDOT waits for the one before it. */
#include "ukernel.h"

#include <arm_neon.h>

enum { ROWS = 4 };

static inline int32x4_t add_block(int32x4_t acc, const uint8_t *w, const int8x16_t x[4]) {
    const uint8x16_t codes = vld1q_u8(w), low2 = vdupq_n_u8(3);
    acc = vdotq_s32(acc, vreinterpretq_s8_u8(vandq_u8(codes, low2)), x[0]);
    acc = vdotq_s32(acc, vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(codes, 2), low2)), x[1]);
    acc = vdotq_s32(acc, vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(codes, 4), low2)), x[2]);
    return vdotq_s32(acc, vreinterpretq_s8_u8(vshrq_n_u8(codes, 6)), x[3]);
}

/* `n` rows, 1 or ROWS: a constant where this is inlined. */
static inline __attribute__((always_inline)) void some_rows(int32_t *restrict y, const uint8_t *restrict w,
                                                            const int8_t *restrict x, int32_t x_sum, size_t k, int n) {
    int32x4_t acc[ROWS];
    for (int r = 0; r < n; r++)
        acc[r] = vdupq_n_s32(0);
    for (size_t i = 0; i < k; i += 64, w += 16) {
        const int8x16_t xs[4] = {vld1q_s8(x + i), vld1q_s8(x + i + 16), vld1q_s8(x + i + 32), vld1q_s8(x + i + 48)};
        for (int r = 0; r < n; r++)
            acc[r] = add_block(acc[r], w + (size_t)r * (k / 4), xs);
    }
    for (int r = 0; r < n; r++)
        y[r] = vaddvq_s32(acc[r]) - x_sum;
}

void eb_gemv_t2_i8_neon_dotprod(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                                size_t rows, size_t k) {
    size_t n = 0;
    for (; n + ROWS <= rows; n += ROWS)
        some_rows(y + n, w + n * (k / 4), x, x_sum, k, ROWS);
    for (; n < rows; n++)
        some_rows(y + n, w + n * (k / 4), x, x_sum, k, 1);
}
