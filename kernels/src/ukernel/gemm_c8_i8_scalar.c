/* gemm_c8_i8_scalar.c - the definition: runs anywhere, and every other variant must equal it. */
#include "ukernel.h"

void eb_gemm_c8_i8_scalar(int32_t *restrict y, size_t y_stride, const uint8_t *restrict codes, const int8_t *restrict x,
                          size_t x_stride, const int32_t *restrict x_sum, size_t rows, size_t k, size_t n_tokens) {
    for (size_t t = 0; t < n_tokens; t++, y += y_stride, x += x_stride)
        for (size_t n = 0; n < rows; n++) {
            const uint8_t *row = codes + n / EB_TILE_ROWS * EB_TILE_ROWS * k + n % EB_TILE_ROWS * 16;
            int32_t sum = -x_sum[t];
            for (size_t i = 0; i < k; i += 16, row += 64)
                for (size_t p = 0; p < 16; p++)
                    sum += row[p] * x[i + p];
            y[n] = sum;
        }
}
