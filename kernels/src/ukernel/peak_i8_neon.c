/* peak_i8_neon.c - SMLAL for each 8 products: an int16 lane takes 64 of at most 3 * 128 before it is widened, every
 * eighth round. forget() is no instruction: the compiler no longer knows what is in the two registers, so no product
 * is left out as a repetition, and none is moved. */
#include "ukernel.h"

#include <arm_neon.h>

enum { ACCUMULATORS = 8, ROUNDS_PER_FLUSH = 4 };

static inline void forget(int8x8_t *operand, int16x8_t *sum) { __asm__("" : "+w"(*operand), "+w"(*sum)); }

uint32_t eb_peak_i8_neon(const uint8_t a[64], const int8_t b[64], size_t n) {
    int8x8_t x[8], y[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        x[i] = vreinterpret_s8_u8(vld1_u8(a + 8 * i));
        y[i] = vld1_s8(b + 8 * i);
    }
    int32x4_t total = vdupq_n_s32(0);
    for (size_t round = 0; round < n;) {
        int16x8_t acc[ACCUMULATORS];
#pragma GCC unroll 8
        for (int i = 0; i < ACCUMULATORS; i++)
            acc[i] = vdupq_n_s16(0);
        const size_t end = round + ROUNDS_PER_FLUSH < n ? round + ROUNDS_PER_FLUSH : n;
        for (; round < end; round++)
            for (int turn = 0; turn < EB_PEAK_MACS / 8 / ACCUMULATORS; turn++)
#pragma GCC unroll 8
                for (int i = 0; i < ACCUMULATORS; i++) {
                    acc[i] = vmlal_s8(acc[i], x[i], y[i]);
                    forget(&x[i], &acc[i]);
                }
#pragma GCC unroll 8
        for (int i = 0; i < ACCUMULATORS; i++)
            total = vpadalq_s16(total, acc[i]);
    }
    return (uint32_t)vaddvq_s32(total);
}
