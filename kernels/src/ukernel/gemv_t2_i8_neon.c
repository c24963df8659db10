/* gemv_t2_i8_neon.c - decode GEMV for cores without FEAT_DotProd (Cortex-A53, A72, A73).
 * SMLAL multiplies bytes and adds to int16 lanes: two accumulators a row, one for each half of a register of weights. A
 * product is at most 3 * 128 = 384, also with the code 3 that a damaged file may hold, and a block adds four of them to
 * a lane: after 16 blocks (24,576) the lanes are widened by SADALP. Four rows share each load of activations and keep
 * the in-order cores' pipelines full. */
#include "ukernel.h"

#include <arm_neon.h>

enum { ROWS = 4, BLOCKS_PER_FLUSH = 16 };

/* The four two-bit fields of 16 bytes. */
typedef struct fields {
    int8x16_t field[4];
} fields;

static inline fields unpack(const uint8_t *w) {
    const uint8x16_t codes = vld1q_u8(w), low2 = vdupq_n_u8(3);
    return (fields){
        {vreinterpretq_s8_u8(vandq_u8(codes, low2)), vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(codes, 2), low2)),
         vreinterpretq_s8_u8(vandq_u8(vshrq_n_u8(codes, 4), low2)), vreinterpretq_s8_u8(vshrq_n_u8(codes, 6))}};
}

static inline void add_block(int16x8_t *low, int16x8_t *high, const uint8_t *w, const int8x16_t x[4]) {
    const fields codes = unpack(w);
    for (int f = 0; f < 4; f++) {
        *low = vmlal_s8(*low, vget_low_s8(codes.field[f]), vget_low_s8(x[f]));
        *high = vmlal_s8(*high, vget_high_s8(codes.field[f]), vget_high_s8(x[f]));
    }
}

/* `n` rows, 1 or ROWS: a constant where this is inlined. */
static inline __attribute__((always_inline)) void some_rows(int32_t *restrict y, const uint8_t *restrict w,
                                                            const int8_t *restrict x, int32_t x_sum, size_t k, int n) {
    int32x4_t acc[ROWS];
    for (int r = 0; r < n; r++)
        acc[r] = vdupq_n_s32(0);
    for (size_t i = 0; i < k;) {
        int16x8_t low[ROWS], high[ROWS];
        for (int r = 0; r < n; r++)
            low[r] = high[r] = vdupq_n_s16(0);
        const size_t end = i + 64 * BLOCKS_PER_FLUSH < k ? i + 64 * BLOCKS_PER_FLUSH : k;
        for (; i < end; i += 64, w += 16) {
            const int8x16_t xs[4] = {vld1q_s8(x + i), vld1q_s8(x + i + 16), vld1q_s8(x + i + 32), vld1q_s8(x + i + 48)};
            for (int r = 0; r < n; r++)
                add_block(&low[r], &high[r], w + (size_t)r * (k / 4), xs);
        }
        for (int r = 0; r < n; r++)
            acc[r] = vpadalq_s16(vpadalq_s16(acc[r], low[r]), high[r]);
    }
    for (int r = 0; r < n; r++)
        y[r] = vaddvq_s32(acc[r]) - x_sum;
}

void eb_gemv_t2_i8_neon(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                        size_t rows, size_t k) {
    size_t n = 0;
    for (; n + ROWS <= rows; n += ROWS)
        some_rows(y + n, w + n * (k / 4), x, x_sum, k, ROWS);
    for (; n < rows; n++)
        some_rows(y + n, w + n * (k / 4), x, x_sum, k, 1);
}
