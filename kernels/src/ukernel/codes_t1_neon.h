/* codes_t1_neon.h - the vectors of indices of layout t1, for the four rows of a tile, as bytes of three two-bit codes. */
#ifndef EB_CODES_T1_NEON_H
#define EB_CODES_T1_NEON_H

#include "layout_t1.h"

#include <arm_neon.h>
#include <stddef.h>

static inline __attribute__((always_inline)) uint8x16x2_t eb_t1_table(void) { return vld1q_u8_x2(eb_t1_codes); }

/* Vector of indices `j`, 0 to 4, of the block at `w`. */
static inline __attribute__((always_inline)) void eb_t1_low(uint8x16_t codes[4], const uint8_t *w, size_t j,
                                                            uint8x16x2_t table) {
    for (int r = 0; r < 4; r++)
        codes[r] = vqtbl2q_u8(table, vandq_u8(vld1q_u8(w + 64 * j + 16 * r), vdupq_n_u8(0x1f)));
}

/* Vector of indices `j`, 5 to 7, of the block at `w`: a constant where this is inlined. SRI shifts its second operand
 * right, below the high bits of the first: the low two bits of an index below its three high ones. */
static inline __attribute__((always_inline)) void eb_t1_high(uint8x16_t codes[4], const uint8_t *w, size_t j,
                                                             uint8x16x2_t table) {
    for (int r = 0; r < 4; r++, w += 16) {
        const uint8x16_t high = vshrq_n_u8(vld1q_u8(w + 64 * (j - 5)), 3), d = vld1q_u8(w + 192), e = vld1q_u8(w + 256);
        const uint8x16_t low = j == 5 ? d : j == 6 ? e : vsriq_n_u8(vshlq_n_u8(d, 2), vshlq_n_u8(e, 2), 1);
        codes[r] = vqtbl2q_u8(table, vsriq_n_u8(high, low, 6));
    }
}

#endif
