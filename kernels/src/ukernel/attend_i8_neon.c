/* attend_i8_neon.c - attention over a KV cache of int8 for cores without FEAT_DotProd (Cortex-A53, A72, A73).
 * Keys are widened to int16 and meet the query's 15 bits whole; SMLAL keeps four sums for each of four positions. */
#define EB_LANES 4
#define EB_ROWS 4
#define EB_GROUPS 1
#define EB_COLUMNS 4
#define EB_KV_I8_BODY
#include "attend.h"

EB_INLINE void key_dots(int32_t *dots, const int8_t *keys, const attend_query *q, size_t row, const int rows) {
    const unsigned char *x = q->q + row * q->pitch;
    for (int quarter = 0; quarter < 4; quarter++, keys += 16, dots += 4) { /* four positions */
        int32x4_t sum[EB_ROWS][4];
        for (int r = 0; r < rows; r++)
            for (int p = 0; p < 4; p++)
                sum[r][p] = vdupq_n_s32(0);
        for (size_t d = 0; d < q->n; d += 4) {
            const int8x16_t key = vld1q_s8(keys + 16 * d);
            const int16x8_t low = vmovl_s8(vget_low_s8(key)), high = vmovl_s8(vget_high_s8(key));
            for (int r = 0; r < rows; r++) {
                const int16x4_t four = vld1_s16((const int16_t *)(x + (size_t)r * q->pitch) + d);
                sum[r][0] = vmlal_s16(sum[r][0], vget_low_s16(low), four);
                sum[r][1] = vmlal_s16(sum[r][1], vget_high_s16(low), four);
                sum[r][2] = vmlal_s16(sum[r][2], vget_low_s16(high), four);
                sum[r][3] = vmlal_s16(sum[r][3], vget_high_s16(high), four);
            }
        }
        for (int r = 0; r < rows; r++)
            vst1q_s32(dots + r * EB_SEGMENT,
                      vpaddq_s32(vpaddq_s32(sum[r][0], sum[r][1]), vpaddq_s32(sum[r][2], sum[r][3])));
    }
}

void eb_attend_i8_neon(const eb_attend *a) { attend(a); }
