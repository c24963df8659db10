/* gemm_c8_i8_neon.c - prefill GEMM for cores without FEAT_DotProd (Cortex-A53, A72, A73).
 * One tile and four tokens go together: 16 accumulators, and for each 16 columns eight loads for 32 SMLALs. Products go
 * to int16 lanes, two at a time and each at most 3 * 128, and are widened every 640 columns: 2 * 40 * 384 < 2^15. */
#include "fields_neon.h"
#include "gemm_operands.h"
#include "ukernel.h"

enum { TOKENS = 4, COLUMNS_PER_FLUSH = 640 };

/* `n_tokens`, 1 to TOKENS: a constant where this is inlined. */
static inline __attribute__((always_inline)) void block(const operands *o, int n_tokens) {
    int32x4_t acc[TOKENS][EB_TILE_ROWS];
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < EB_TILE_ROWS; r++)
            acc[t][r] = vdupq_n_s32(0);
    for (size_t i = 0; i < o->k;) {
        const size_t end = o->k - i < COLUMNS_PER_FLUSH ? o->k : i + COLUMNS_PER_FLUSH;
        int16x8_t part[TOKENS][EB_TILE_ROWS];
        for (int t = 0; t < n_tokens; t++)
            for (int r = 0; r < EB_TILE_ROWS; r++)
                part[t][r] = vdupq_n_s16(0);
        for (; i < end; i += 16) {
            int8x16_t codes[EB_TILE_ROWS];
            for (int r = 0; r < EB_TILE_ROWS; r++)
                codes[r] = vreinterpretq_s8_u8(vld1q_u8(o->codes + 4 * i + 16 * (size_t)r));
            for (int t = 0; t < n_tokens; t++) {
                const int8x16_t x = vld1q_s8(o->x + (size_t)t * o->x_stride + i);
                for (int r = 0; r < EB_TILE_ROWS; r++)
                    part[t][r] = eb_products(part[t][r], codes[r], x);
            }
        }
        for (int t = 0; t < n_tokens; t++)
            for (int r = 0; r < EB_TILE_ROWS; r++)
                acc[t][r] = vpadalq_s16(acc[t][r], part[t][r]);
    }
    for (int t = 0; t < n_tokens; t++)
        vst1q_s32(o->y + (size_t)t * o->y_stride, vsubq_s32(eb_four_sums(acc[t]), vdupq_n_s32(o->x_sum[t])));
}

void eb_gemm_c8_i8_neon(int32_t *restrict y, size_t y_stride, const uint8_t *restrict codes, const int8_t *restrict x,
                        size_t x_stride, const int32_t *restrict x_sum, size_t rows, size_t k, size_t n_tokens) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS)
        for (size_t t = 0; t < n_tokens; t += TOKENS) {
            const operands o = {
                y + t * y_stride + n, codes + n * k, x + t * x_stride, x_sum + t, y_stride, x_stride, k};
            switch (n_tokens - t) {
            case 1:
                block(&o, 1);
                break;
            case 2:
                block(&o, 2);
                break;
            case 3:
                block(&o, 3);
                break;
            default:
                block(&o, TOKENS);
            }
        }
}
