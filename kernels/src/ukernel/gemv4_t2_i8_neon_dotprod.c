/* gemv4_t2_i8_neon_dotprod.c - up to four tokens straight from packed weights, for cores with FEAT_DotProd: six masks and
 * shifts for 64 weights, and four SDOTs a token. */
#include "fields_neon_dotprod.h"
#include "ukernel.h"

/* `n_tokens` is a constant where this is inlined. */
static inline __attribute__((always_inline)) void tokens(const eb_gemv4_operands *o, int n_tokens) {
    const uint8_t *w = o->w;
    for (size_t n = 0; n < o->rows; n += EB_TILE_ROWS) {
        eb_token_sums sum[4];
        for (int t = 0; t < n_tokens; t++)
            sum[t] = (eb_token_sums){0};
        for (size_t i = 0; i < o->k; i += 64, w += 64)
            eb_add_tile_t2_tokens(sum, w, o->x + i, o->x_stride, n_tokens);
        for (int t = 0; t < n_tokens; t++)
            vst1q_s32(o->y + (size_t)t * o->y_stride + n,
                      vsubq_s32(eb_four_sums(sum[t].row), vdupq_n_s32(o->x_sum[t])));
    }
}

void eb_gemv4_t2_i8_neon_dotprod(const eb_gemv4_operands *o, size_t n_tokens) {
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
