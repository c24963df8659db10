/* dot_l2_i15_scalar.c - the definition: runs anywhere, and every other variant must equal it. */
#include "ukernel.h"

int64_t eb_dot_l2_i15_scalar(const uint8_t *restrict w, const eb_i15 *restrict x, size_t k) {
    int32_t hi = 0, lo = 0;
    for (size_t i = 0; i < k; i += 256, w += 64)
        for (size_t field = 0; field < 4; field++)
            for (size_t p = 0; p < 64; p++) {
                const int32_t code = w[p] >> 2 * field & 3;
                hi += code * x->hi[i + 64 * field + p];
                lo += code * x->lo[i + 64 * field + p];
            }
    return 128 * (int64_t)hi + lo;
}
