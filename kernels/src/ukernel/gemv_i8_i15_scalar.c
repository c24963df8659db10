/* gemv_i8_i15_scalar.c - the definition: runs anywhere, and every other variant must equal it. */
#include "ukernel.h"

void eb_gemv_i8_i15_scalar(int64_t *restrict y, const int8_t *restrict w, const eb_i15 *restrict x, size_t rows,
                           size_t k) {
    for (size_t n = 0; n < rows; n++, w += k) {
        int64_t sum = 0;
        for (size_t i = 0; i < k; i += 64) {
            int32_t part = 0; /* 64 * 128 * 16256 < 2^27 */
            for (size_t p = 0; p < 64; p++)
                part += w[i + p] * x->q[i + p];
            sum += part;
        }
        y[n] = sum;
    }
}
