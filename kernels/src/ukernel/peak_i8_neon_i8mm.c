/* peak_i8_neon_i8mm.c - SMMLA for each 32 products: two rows of eight by two columns of eight. Both rows and both
 * columns are the same eight here, so that all four sums of a tile are the one that is wanted. forget() is no
 * instruction: the compiler no longer knows what is in the two registers, so no product is left out as a repetition,
 * and none is moved. */
#include "ukernel.h"

#include <arm_neon.h>

enum { EIGHTS = 8 };

static inline void forget(int8x16_t *operand, int32x4_t *sum) { __asm__("" : "+w"(*operand), "+w"(*sum)); }

uint32_t eb_peak_i8_neon_i8mm(const uint8_t a[64], const int8_t b[64], size_t n) {
    int8x16_t x[EIGHTS], y[EIGHTS];
    int32x4_t acc[EIGHTS];
#pragma GCC unroll 8
    for (int i = 0; i < EIGHTS; i++) {
        const int8x8_t row = vreinterpret_s8_u8(vld1_u8(a + 8 * i)), column = vld1_s8(b + 8 * i);
        x[i] = vcombine_s8(row, row);
        y[i] = vcombine_s8(column, column);
        acc[i] = vdupq_n_s32(0);
    }
    for (size_t round = 0; round < n; round++)
        for (int turn = 0; turn < EB_PEAK_MACS / 32 / EIGHTS; turn++)
#pragma GCC unroll 8
            for (int i = 0; i < EIGHTS; i++) {
                acc[i] = vmmlaq_s32(acc[i], x[i], y[i]);
                forget(&x[i], &acc[i]);
            }
#pragma GCC unroll 8
    for (int i = 1; i < EIGHTS; i++)
        acc[0] = vaddq_s32(acc[0], acc[i]);
    return (uint32_t)vaddvq_s32(acc[0]);
}
