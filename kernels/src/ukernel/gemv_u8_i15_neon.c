/* gemv_u8_i15_neon.c - an int8 head in plain rows for cores without FEAT_DotProd.
 * Flipping a code's top bit gives the weight, -128 to 127. An int16 lane holds two products with a plane of the
 * activations, 2 * 128 * 127 < 2^15, and is widened after each 16 columns. Row after row, so that memory is read as one
 * stream. */
#include "fields_neon.h"
#include "ukernel.h"

typedef struct planes {
    int32x4_t hi, lo;
} planes;

static inline __attribute__((always_inline)) int32x4_t add_products(int32x4_t acc, int8x16_t weights, int8x16_t x) {
    return vpadalq_s16(acc, vmlal_high_s8(vmull_s8(vget_low_s8(weights), vget_low_s8(x)), weights, x));
}

static inline __attribute__((always_inline)) void add_columns(planes *sum, const uint8_t *w, const eb_i15 *x,
                                                              size_t i) {
    const int8x16_t weights = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w + i), vdupq_n_u8(128)));
    sum->hi = add_products(sum->hi, weights, vld1q_s8(x->hi + i));
    sum->lo = add_products(sum->lo, weights, vld1q_s8(x->lo + i));
}

void eb_gemv_u8_i15_neon(int64_t *restrict y, const uint8_t *restrict w, const eb_i15 *restrict x, int64_t x_sum,
                         size_t w_stride, size_t rows, size_t k) {
    (void)x_sum; /* the weights are what is multiplied, not the codes */
    for (size_t n = 0; n < rows; n++, w += w_stride) {
        planes sum[2] = {0}; /* in turn, since a sum waits for the one before it */
        size_t i = 0;
        for (; i + 64 <= k; i += 64) {
            eb_prefetch(w + i);
#pragma GCC unroll 4
            for (size_t p = 0; p < 64; p += 16)
                add_columns(&sum[p / 16 % 2], w, x, i + p);
        }
        for (; i < k; i += 16)
            add_columns(&sum[0], w, x, i);
        y[n] = 128 * (int64_t)vaddvq_s32(vaddq_s32(sum[0].hi, sum[1].hi)) + vaddvq_s32(vaddq_s32(sum[0].lo, sum[1].lo));
    }
}
