/* gemv_t2_i8_neon.c - decode GEMV for cores without FEAT_DotProd (Cortex-A53, A72, A73).
 * Eight SMLALs for 64 weights, which fill these cores' one multiplier; five masks and shifts beside them. The four rows
 * of a tile share each load of activations. */
#include "fields_neon.h"
#include "ukernel.h"

void eb_gemv_t2_i8_neon(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                        size_t rows, size_t k) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        int32x4_t acc[EB_TILE_ROWS] = {0};
        for (size_t i = 0; i < k;) {
            const size_t end = k - i < 64 * EB_TILES_PER_FLUSH ? k : i + 64 * EB_TILES_PER_FLUSH;
            eb_fields sum[EB_TILE_ROWS] = {0};
            for (; i < end; i += 64, w += 64)
                eb_add_tile_t2(sum, w, x + i);
            for (int r = 0; r < EB_TILE_ROWS; r++)
                acc[r] = eb_widened(acc[r], sum[r]);
        }
        vst1q_s32(y + n, vsubq_s32(eb_four_sums(acc), vdupq_n_s32(x_sum)));
    }
}
