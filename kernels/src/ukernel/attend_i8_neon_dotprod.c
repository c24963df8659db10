/* attend_i8_neon_dotprod.c - attention over a KV cache of int8 for cores with FEAT_DotProd (Cortex-A55, A76 and later):
 * an SDOT takes four positions by four elements, with each plane of the query. */
#define EB_LANES 4
#define EB_ROWS 4
#define EB_GROUPS 1
#define EB_COLUMNS 4
#define EB_KV_I8_BODY
#include "attend.h"

EB_INLINE void some_dots(int32_t *dots, const int8_t *keys, const attend_query *q, size_t row, const int rows) {
    int32x4_t hi[2][4], lo[2][4];
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < 4; p++)
            hi[r][p] = lo[r][p] = vdupq_n_s32(0);
    const unsigned char *x_hi = q->hi + row * q->pitch, *x_lo = q->lo + row * q->pitch;
    for (size_t d = 0; d < q->n; d += 4, keys += 64) {
        const int8x16_t key[4] = {vld1q_s8(keys), vld1q_s8(keys + 16), vld1q_s8(keys + 32), vld1q_s8(keys + 48)};
        for (int r = 0; r < rows; r++) {
            const size_t at = (size_t)r * q->pitch + d;
            const int8x16_t four_hi = vreinterpretq_s8_s32(vdupq_n_s32(eb_load_i32(x_hi + at)));
            const int8x16_t four_lo = vreinterpretq_s8_s32(vdupq_n_s32(eb_load_i32(x_lo + at)));
            for (int p = 0; p < 4; p++) {
                hi[r][p] = vdotq_s32(hi[r][p], key[p], four_hi);
                lo[r][p] = vdotq_s32(lo[r][p], key[p], four_lo);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int p = 0; p < 4; p++)
            vst1q_s32(dots + r * EB_SEGMENT + 4 * p, vaddq_s32(vshlq_n_s32(hi[r][p], 7), lo[r][p]));
}

/* Two rows at a time: their sums fill half of the registers. */
EB_INLINE void key_dots(int32_t *dots, const int8_t *keys, const attend_query *q, size_t row, const int rows) {
    for (int r = 0; r < rows; r += 2)
        some_dots(dots + r * EB_SEGMENT, keys, q, row + (size_t)r, rows - r < 2 ? 1 : 2);
}

void eb_attend_i8_neon_dotprod(const eb_attend *a) { attend(a); }
