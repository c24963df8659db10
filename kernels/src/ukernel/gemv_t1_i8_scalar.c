/* gemv_t1_i8_scalar.c - the definition: runs anywhere, and every other variant must equal it. */
#include "layout_t1.h"
#include "ukernel.h"

void eb_gemv_t1_i8_scalar(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                          size_t rows, size_t k) {
    uint8_t codes[4 * EB_T1_BLOCK];
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        for (size_t r = 0; r < EB_TILE_ROWS; r++)
            y[n + r] = -x_sum;
        for (size_t i = 0; i < k; i += EB_T1_BLOCK) {
            const size_t left = k - i < EB_T1_BLOCK ? k - i : EB_T1_BLOCK;
            eb_unpack_t1_scalar(codes, w, EB_TILE_ROWS, left);
            w += left < EB_T1_BLOCK ? left : 64 * EB_T1_VECTORS;
            for (size_t p = 0; p < 4 * left; p++)
                y[n + p / 16 % 4] += codes[p] * x[i + p / 64 * 16 + p % 16];
        }
    }
}
