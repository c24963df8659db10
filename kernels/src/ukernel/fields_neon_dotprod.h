/* fields_neon_dotprod.h - sums of two-bit codes by SDOT, for the micro-kernels with FEAT_DotProd. */
#ifndef EB_FIELDS_NEON_DOTPROD_H
#define EB_FIELDS_NEON_DOTPROD_H

#include "lanes_neon.h"

/* The four codes of a byte are multiplied where they stand: masked, not shifted, so each place has an accumulator of its
 * own. SDOT would read bit 7 as a sign, so the fourth is shifted down to join the first. */
typedef struct eb_fields {
    int32x4_t at0, at2, at4;
} eb_fields;

/* sum += one row of a tile of layout t2 times its 64 activations */
static inline __attribute__((always_inline)) void eb_add_row_t2(eb_fields *sum, const uint8_t *w,
                                                                const int8x16_t x[4]) {
    const uint8x16_t codes = vld1q_u8(w);
    sum->at0 = vdotq_s32(sum->at0, eb_masked(codes, 0x03), x[0]);
    sum->at2 = vdotq_s32(sum->at2, eb_masked(codes, 0x0c), x[1]);
    sum->at4 = vdotq_s32(sum->at4, eb_masked(codes, 0x30), x[2]);
    sum->at0 = vdotq_s32(sum->at0, eb_from_bit6(codes), x[3]);
}

/* sum[r] += row r of a tile of layout t2 times its 64 activations */
static inline __attribute__((always_inline)) void eb_add_tile_t2(eb_fields sum[4], const uint8_t *w, const int8_t *x) {
    const int8x16_t xs[4] = {vld1q_s8(x), vld1q_s8(x + 16), vld1q_s8(x + 32), vld1q_s8(x + 48)};
    eb_prefetch(w);
    for (int r = 0; r < 4; r++)
        eb_add_row_t2(&sum[r], w + 16 * r, xs);
}

/* The sums of all places. Those of the higher places are multiples of what is shifted away. */
static inline __attribute__((always_inline)) int32x4_t eb_fields_total(const eb_fields *sum) {
    return vaddq_s32(sum->at0, vaddq_s32(vshrq_n_s32(sum->at2, 2), vshrq_n_s32(sum->at4, 4)));
}

#endif
