/* peak_i8_neon_dotprod.c - SDOT for each 16 products, on sixteen accumulators. unknown() is no instruction: it hides
 * from the compiler that an operand is the one from before, so that no product is taken for a repetition. */
#include "ukernel.h"

#include <arm_neon.h>

enum { ACCUMULATORS = 16 };

static inline int8x16_t unknown(int8x16_t value) {
    __asm__("" : "+w"(value));
    return value;
}

uint32_t eb_peak_i8_neon_dotprod(const uint8_t a[64], const int8_t b[64], size_t n) {
    int8x16_t x[4], y[4];
    for (int i = 0; i < 4; i++) {
        x[i] = vreinterpretq_s8_u8(vld1q_u8(a + 16 * i));
        y[i] = vld1q_s8(b + 16 * i);
    }
    int32x4_t acc[ACCUMULATORS];
    for (int i = 0; i < ACCUMULATORS; i++)
        acc[i] = vdupq_n_s32(0);
    for (size_t round = 0; round < n; round++)
        for (int turn = 0; turn < EB_PEAK_MACS / 64; turn++)
            for (int i = 0; i < 4; i++) {
                x[i] = unknown(x[i]);
                int32x4_t *sum = &acc[(4 * turn + i) % ACCUMULATORS];
                *sum = vdotq_s32(*sum, x[i], y[i]);
            }
    for (int i = 1; i < ACCUMULATORS; i++)
        acc[0] = vaddq_s32(acc[0], acc[i]);
    return (uint32_t)vaddvq_s32(acc[0]);
}
