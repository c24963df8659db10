/* dot_l2_i15_neon_dotprod.c - one row of a low plane of the head, with SDOT: codes are multiplied where they stand, as in
 * gemv_t2_i8_neon_dotprod.c, with both planes of the activations. */
#include "fields_neon_dotprod.h"
#include "ukernel.h"

int64_t eb_dot_l2_i15_neon_dotprod(const uint8_t *restrict w, const eb_i15 *restrict x, size_t k) {
    eb_fields hi = {0}, lo = {0};
    for (size_t i = 0; i < k; i += 256, w += 64)
        for (size_t p = 0; p < 64; p += 16) {
            const int8_t *x_hi = x->hi + i + p, *x_lo = x->lo + i + p;
            const int8x16_t his[4] = {vld1q_s8(x_hi), vld1q_s8(x_hi + 64), vld1q_s8(x_hi + 128), vld1q_s8(x_hi + 192)};
            const int8x16_t los[4] = {vld1q_s8(x_lo), vld1q_s8(x_lo + 64), vld1q_s8(x_lo + 128), vld1q_s8(x_lo + 192)};
            eb_add_row_t2(&hi, w + p, his);
            eb_add_row_t2(&lo, w + p, los);
        }
    return 128 * (int64_t)vaddvq_s32(eb_fields_total(&hi)) + vaddvq_s32(eb_fields_total(&lo));
}
