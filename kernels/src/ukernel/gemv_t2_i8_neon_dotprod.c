/* gemv_t2_i8_neon_dotprod.c - decode GEMV for cores with FEAT_DotProd (Cortex-A55, A76 and later).
 * Three masks, a shift and four SDOTs for 64 weights. The four rows of a tile share each load of activations, and no
 * SDOT waits for the one before it. */
#include "fields_neon_dotprod.h"
#include "ukernel.h"

void eb_gemv_t2_i8_neon_dotprod(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                                size_t rows, size_t k) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        eb_fields sum[EB_TILE_ROWS] = {0};
        for (size_t i = 0; i < k; i += 64, w += 64)
            eb_add_tile_t2(sum, w, x + i);
        int32x4_t total[EB_TILE_ROWS];
        for (int r = 0; r < EB_TILE_ROWS; r++)
            total[r] = eb_fields_total(&sum[r]);
        vst1q_s32(y + n, vsubq_s32(eb_four_sums(total), vdupq_n_s32(x_sum)));
    }
}
