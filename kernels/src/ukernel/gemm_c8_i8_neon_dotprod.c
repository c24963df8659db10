/* gemm_c8_i8_neon_dotprod.c - prefill GEMM for cores with FEAT_DotProd.
 * One tile and six tokens go together: 24 accumulators, and for each 16 columns four registers of codes and six of
 * activations, ten loads for 24 SDOTs. The four int32 of a register are added up once, at the end. */
#include "gemm_operands.h"
#include "lanes_neon.h"
#include "ukernel.h"

enum { TOKENS = 6 };

/* `n_tokens`, 1 to TOKENS: a constant where this is inlined. */
static inline __attribute__((always_inline)) void block(const operands *o, int n_tokens) {
    int32x4_t acc[TOKENS][EB_TILE_ROWS];
    for (int t = 0; t < n_tokens; t++)
        for (int r = 0; r < EB_TILE_ROWS; r++)
            acc[t][r] = vdupq_n_s32(0);
    for (size_t i = 0; i < o->k; i += 16) {
        int8x16_t codes[EB_TILE_ROWS];
        for (int r = 0; r < EB_TILE_ROWS; r++)
            codes[r] = vreinterpretq_s8_u8(vld1q_u8(o->codes + 4 * i + 16 * (size_t)r));
        for (int t = 0; t < n_tokens; t++) {
            const int8x16_t x = vld1q_s8(o->x + (size_t)t * o->x_stride + i);
            for (int r = 0; r < EB_TILE_ROWS; r++)
                acc[t][r] = vdotq_s32(acc[t][r], codes[r], x);
        }
    }
    for (int t = 0; t < n_tokens; t++)
        vst1q_s32(o->y + (size_t)t * o->y_stride, vsubq_s32(eb_four_sums(acc[t]), vdupq_n_s32(o->x_sum[t])));
}

void eb_gemm_c8_i8_neon_dotprod(int32_t *restrict y, size_t y_stride, const uint8_t *restrict codes,
                                const int8_t *restrict x, size_t x_stride, const int32_t *restrict x_sum, size_t rows,
                                size_t k, size_t n_tokens) {
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
            case 4:
                block(&o, 4);
                break;
            case 5:
                block(&o, 5);
                break;
            default:
                block(&o, TOKENS);
            }
        }
}
