/* gemv_t2_i8_scalar.c - the definition: runs anywhere, and every other variant must equal it. */
#include "ukernel.h"

void eb_gemv_t2_i8_scalar(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                          size_t rows, size_t k) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        for (size_t r = 0; r < EB_TILE_ROWS; r++)
            y[n + r] = -x_sum;
        for (size_t i = 0; i < k; i += 64)
            for (size_t r = 0; r < EB_TILE_ROWS; r++, w += 16)
                for (size_t p = 0; p < 16; p++)
                    y[n + r] += (w[p] & 3) * x[i + p] + (w[p] >> 2 & 3) * x[i + 16 + p] +
                                (w[p] >> 4 & 3) * x[i + 32 + p] + (w[p] >> 6) * x[i + 48 + p];
    }
}
