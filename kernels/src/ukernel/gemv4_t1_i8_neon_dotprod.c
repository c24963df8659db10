/* gemv4_t1_i8_neon_dotprod.c - up to four tokens straight from packed weights of 1.67 bits, for cores with FEAT_DotProd:
 * indices become codes as in gemv_t1_i8_neon_dotprod.c, once for all tokens. */
#include "codes_t1_neon.h"
#include "fields_neon_dotprod.h"
#include "ukernel.h"

/* `n_tokens` is a constant where this is inlined. */
static inline __attribute__((always_inline)) void tokens(const eb_gemv4_operands *o, int n_tokens) {
    const uint8x16x2_t table = eb_t1_table();
    const uint8_t *w = o->w;
    for (size_t n = 0; n < o->rows; n += EB_TILE_ROWS) {
        eb_token_sums sum[4];
        for (int t = 0; t < n_tokens; t++)
            sum[t] = (eb_token_sums){0};
        size_t i = 0;
        for (; i + EB_T1_BLOCK <= o->k; i += EB_T1_BLOCK, w += 64 * EB_T1_VECTORS) {
            uint8x16_t codes[EB_TILE_ROWS];
            for (int v = 0; v < EB_T1_VECTORS; v++)
                eb_prefetch(w + 64 * v);
#pragma GCC unroll 1 /* unrolled, it needs more registers than there are */
            for (size_t j = 0; j < EB_T1_VECTORS; j++) {
                eb_t1_low(codes, w, j, table);
                eb_add_rows_tokens(sum, codes, 3, o->x + i + 48 * j, o->x_stride, n_tokens);
            }
#pragma GCC unroll 3
            for (size_t j = EB_T1_VECTORS; j < EB_T1_INDICES; j++) {
                eb_t1_high(codes, w, j, table);
                eb_add_rows_tokens(sum, codes, 3, o->x + i + 48 * j, o->x_stride, n_tokens);
            }
        }
        for (; i < o->k; i += 64, w += 64)
            eb_add_tile_t2_tokens(sum, w, o->x + i, o->x_stride, n_tokens);
        for (int t = 0; t < n_tokens; t++)
            vst1q_s32(o->y + (size_t)t * o->y_stride + n,
                      vsubq_s32(eb_four_sums(sum[t].row), vdupq_n_s32(o->x_sum[t])));
    }
}

void eb_gemv4_t1_i8_neon_dotprod(const eb_gemv4_operands *o, size_t n_tokens) {
    switch (n_tokens) {
    case 1:
        tokens(o, 1);
        break;
    case 2:
        tokens(o, 2);
        break;
    case 3:
        tokens(o, 3);
        break;
    default:
        tokens(o, 4);
    }
}
