/* codes_t1_neon.h - the vectors of indices of layout t1, for one row. */
#ifndef EB_CODES_T1_NEON_H
#define EB_CODES_T1_NEON_H

#include "layout_t1.h"

#include <arm_neon.h>
#include <stddef.h>

/* Vector of indices `j`, 0 to 4, of the row at `w`. */
static inline __attribute__((always_inline)) uint8x16_t eb_t1_low_index(const uint8_t *w, size_t j) {
    return vandq_u8(vld1q_u8(w + 64 * j), vdupq_n_u8(0x1f));
}

/* Bits 4:2 from a vector's three high bits, 1:0 from the two high bits of `low`: SRI shifts its second operand right,
 * below what it leaves of the first. */
static inline __attribute__((always_inline)) uint8x16_t eb_t1_joined(uint8x16_t vector, uint8x16_t low) {
    return vsriq_n_u8(vshrq_n_u8(vector, 3), low, 6);
}

/* Vector of indices `j`, 5 to 7, of the row at `w`: a constant where this is inlined. */
static inline __attribute__((always_inline)) uint8x16_t eb_t1_high_index(const uint8_t *w, size_t j) {
    const uint8x16_t vector = vld1q_u8(w + 64 * (j - 5)), d = vld1q_u8(w + 192), e = vld1q_u8(w + 256);
    if (j == 5)
        return eb_t1_joined(vector, d);
    if (j == 6)
        return eb_t1_joined(vector, e);
    return eb_t1_joined(vector, vsriq_n_u8(vshlq_n_u8(d, 2), vshlq_n_u8(e, 2), 1));
}

#endif
