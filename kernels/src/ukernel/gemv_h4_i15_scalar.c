/* gemv_h4_i15_scalar.c - the definition: runs anywhere, and every other variant must equal it. */
#include "ukernel.h"

void eb_gemv_h4_i15_scalar(int64_t *restrict y, const uint8_t *restrict w, const eb_i15 *restrict x, size_t rows,
                           size_t k) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        int32_t hi[EB_TILE_ROWS] = {0}, lo[EB_TILE_ROWS] = {0};
        for (size_t i = 0; i < k; i += 32)
            for (size_t r = 0; r < EB_TILE_ROWS; r++, w += 16)
                for (size_t p = 0; p < 16; p++) {
                    hi[r] += (w[p] & 15) * x->hi[i + p] + (w[p] >> 4) * x->hi[i + 16 + p];
                    lo[r] += (w[p] & 15) * x->lo[i + p] + (w[p] >> 4) * x->lo[i + 16 + p];
                }
        for (size_t r = 0; r < EB_TILE_ROWS; r++)
            y[n + r] = 128 * (int64_t)hi[r] + lo[r];
    }
}
