/* peak_i8_neon.c - SMLAL for each 8 products: an int16 lane takes 64 of at most 3 * 128 before it is widened, every
 * eighth round. unknown() is no instruction: it hides from the compiler that an operand is the one from before, so that
 * no product is taken for a repetition. */
#include "ukernel.h"

#include <arm_neon.h>

enum { ACCUMULATORS = 16, ROUNDS_PER_FLUSH = 8 };

static inline int8x8_t unknown(int8x8_t value) {
    __asm__("" : "+w"(value));
    return value;
}

uint32_t eb_peak_i8_neon(const uint8_t a[64], const int8_t b[64], size_t n) {
    int8x8_t x[8], y[8];
    for (int i = 0; i < 8; i++) {
        x[i] = vreinterpret_s8_u8(vld1_u8(a + 8 * i));
        y[i] = vld1_s8(b + 8 * i);
    }
    int32x4_t total = vdupq_n_s32(0);
    for (size_t round = 0; round < n;) {
        int16x8_t acc[ACCUMULATORS];
        for (int i = 0; i < ACCUMULATORS; i++)
            acc[i] = vdupq_n_s16(0);
        const size_t end = round + ROUNDS_PER_FLUSH < n ? round + ROUNDS_PER_FLUSH : n;
        for (; round < end; round++)
            for (int turn = 0; turn < EB_PEAK_MACS / 64; turn++)
                for (int i = 0; i < 8; i++) {
                    x[i] = unknown(x[i]);
                    int16x8_t *sum = &acc[(8 * turn + i) % ACCUMULATORS];
                    *sum = vmlal_s8(*sum, x[i], y[i]);
                }
        for (int i = 0; i < ACCUMULATORS; i++)
            total = vpadalq_s16(total, acc[i]);
    }
    return (uint32_t)vaddvq_s32(total);
}
