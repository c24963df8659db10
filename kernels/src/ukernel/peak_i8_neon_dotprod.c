/* peak_i8_neon_dotprod.c - SDOT for each 16 products, on sixteen accumulators. forget() is no instruction: the
 * compiler no longer knows what is in the two registers, so no product is left out as a repetition, and none is moved. */
#include "ukernel.h"

#include <arm_neon.h>

enum { ACCUMULATORS = 16 };

static inline void forget(int8x16_t *operand, int32x4_t *sum) { __asm__("" : "+w"(*operand), "+w"(*sum)); }

uint32_t eb_peak_i8_neon_dotprod(const uint8_t a[64], const int8_t b[64], size_t n) {
    int8x16_t x[4], y[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        x[i] = vreinterpretq_s8_u8(vld1q_u8(a + 16 * i));
        y[i] = vld1q_s8(b + 16 * i);
    }
    int32x4_t acc[ACCUMULATORS];
#pragma GCC unroll 16
    for (int i = 0; i < ACCUMULATORS; i++)
        acc[i] = vdupq_n_s32(0);
    for (size_t round = 0; round < n; round++)
        for (int turn = 0; turn < EB_PEAK_MACS / 16 / ACCUMULATORS; turn++)
#pragma GCC unroll 16
            for (int i = 0; i < ACCUMULATORS; i++) {
                acc[i] = vdotq_s32(acc[i], x[i % 4], y[i % 4]);
                forget(&x[i % 4], &acc[i]);
            }
#pragma GCC unroll 16
    for (int i = 1; i < ACCUMULATORS; i++)
        acc[0] = vaddq_s32(acc[0], acc[i]);
    return (uint32_t)vaddvq_s32(acc[0]);
}
