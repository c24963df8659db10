/* gemv_u8_i15_scalar.c - the definition: runs anywhere, and every other variant must equal it. */
#include "ukernel.h"

void eb_gemv_u8_i15_scalar(int64_t *restrict y, const uint8_t *restrict w, const eb_i15 *restrict x, int64_t x_sum,
                           size_t w_stride, size_t rows, size_t k) {
    for (size_t n = 0; n < rows; n++, w += w_stride) {
        int32_t hi = 0, lo = 0;
        for (size_t i = 0; i < k; i++) {
            hi += w[i] * x->hi[i];
            lo += w[i] * x->lo[i];
        }
        y[n] = 128 * ((int64_t)hi - x_sum) + lo;
    }
}
