/* fields_neon.h - sums of two-bit codes by SMLAL, for cores without FEAT_DotProd: products of bytes in int16 lanes, which
 * are widened before they can overflow. */
#ifndef EB_FIELDS_NEON_H
#define EB_FIELDS_NEON_H

#include "lanes_neon.h"

/* Codes are multiplied where they stand in a half byte, so each place has an accumulator of its own. */
typedef struct eb_fields {
    int16x8_t at0, at2;
} eb_fields;

/* After so many tiles of layout t2 the int16 lanes must be widened: each adds four products of at most 12 * 128 to a lane
 * of at2, and 5 * 4 * 12 * 128 < 2^15. */
enum { EB_TILES_PER_FLUSH = 5 };

/* sum += 16 products, two to a lane */
static inline __attribute__((always_inline)) int16x8_t eb_products(int16x8_t sum, int8x16_t codes, int8x16_t x) {
    return vmlal_high_s8(vmlal_s8(sum, vget_low_s8(codes), vget_low_s8(x)), codes, x);
}

/* sum[r] += row r of a tile of layout t2 times its 64 activations; row after row in each step, since an SMLAL waits for
 * the one before it. */
static inline __attribute__((always_inline)) void eb_add_tile_t2(eb_fields sum[4], const uint8_t *w, const int8_t *x) {
    const int8x16_t xs[4] = {vld1q_s8(x), vld1q_s8(x + 16), vld1q_s8(x + 32), vld1q_s8(x + 48)};
    uint8x16_t codes[4];
    eb_prefetch(w);
    for (int r = 0; r < 4; r++)
        codes[r] = vld1q_u8(w + 16 * r);
    for (int half = 0; half < 2; half++)
        for (int r = 0; r < 4; r++) {
            const uint8x16_t two = half ? vshrq_n_u8(codes[r], 4) : codes[r];
            sum[r].at0 = eb_products(sum[r].at0, eb_masked(two, 0x03), xs[2 * half]);
            sum[r].at2 = eb_products(sum[r].at2, eb_masked(two, 0x0c), xs[2 * half + 1]);
        }
}

/* acc + the sums of both places. That of the higher one is a multiple of what is shifted away. */
static inline __attribute__((always_inline)) int32x4_t eb_widened(int32x4_t acc, eb_fields sum) {
    return vpadalq_s16(acc, vsraq_n_s16(sum.at0, sum.at2, 2));
}

#endif
