/* fields_neon_dotprod.h - sums of two-bit codes by SDOT, for the micro-kernels with FEAT_DotProd. */
#ifndef EB_FIELDS_NEON_DOTPROD_H
#define EB_FIELDS_NEON_DOTPROD_H

#include "lanes_neon.h"

#include <stddef.h>

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

/* For several tokens a code is shifted down once and multiplied with the activations of each: one accumulator for a row
 * and a token. */
typedef struct eb_token_sums {
    int32x4_t row[4];
} eb_token_sums;

/* Two-bit field `f` of `n`, 3 or 4, of each byte; what is above three fields is zero. */
static inline __attribute__((always_inline)) int8x16_t eb_field(uint8x16_t bytes, int f, int n) {
    switch (f) {
    case 0:
        return eb_masked(bytes, 3);
    case 1:
        return eb_masked(vshrq_n_u8(bytes, 2), 3);
    case 2:
        return n == 3 ? eb_from_bit4(bytes) : eb_masked(vshrq_n_u8(bytes, 4), 3);
    default:
        return eb_from_bit6(bytes);
    }
}

/* sum[t] += the first `n_fields` codes of each byte of four rows times the activations of token t. The numbers are
 * constants where this is inlined. */
static inline __attribute__((always_inline)) void eb_add_rows_tokens(eb_token_sums *sum, const uint8x16_t codes[4],
                                                                     int n_fields, const int8_t *x, size_t x_stride,
                                                                     int n_tokens) {
#pragma GCC unroll 4
    for (int f = 0; f < n_fields; f++) {
        int8x16_t field[4];
        eb_in_this_order();
        for (int r = 0; r < 4; r++)
            field[r] = eb_field(codes[r], f, n_fields);
        for (int t = 0; t < n_tokens; t++) {
            const int8x16_t xs = vld1q_s8(x + (size_t)t * x_stride + 16 * f);
            for (int r = 0; r < 4; r++)
                sum[t].row[r] = vdotq_s32(sum[t].row[r], field[r], xs);
        }
    }
}

/* sum[t] += a tile of layout t2 times the 64 activations of token t */
static inline __attribute__((always_inline)) void
eb_add_tile_t2_tokens(eb_token_sums *sum, const uint8_t *w, const int8_t *x, size_t x_stride, int n_tokens) {
    const uint8x16_t codes[4] = {vld1q_u8(w), vld1q_u8(w + 16), vld1q_u8(w + 32), vld1q_u8(w + 48)};
    eb_prefetch(w);
    eb_add_rows_tokens(sum, codes, 4, x, x_stride, n_tokens);
}

#endif
