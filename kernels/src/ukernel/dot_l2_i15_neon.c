/* dot_l2_i15_neon.c - one row of a low plane of the head, for cores without FEAT_DotProd.
 * 256 columns add 16 products of at most 12 * 128 to a lane of at2, which just fits 16 bits; then they are widened. */
#include "fields_neon.h"
#include "ukernel.h"

static inline __attribute__((always_inline)) void add_field(eb_fields *hi, eb_fields *lo, uint8x16_t codes,
                                                            const int8_t *x_hi, const int8_t *x_lo) {
    const int8x16_t at0 = eb_masked(codes, 0x03), at2 = eb_masked(codes, 0x0c);
    hi->at0 = eb_products(hi->at0, at0, vld1q_s8(x_hi));
    lo->at0 = eb_products(lo->at0, at0, vld1q_s8(x_lo));
    hi->at2 = eb_products(hi->at2, at2, vld1q_s8(x_hi + 64));
    lo->at2 = eb_products(lo->at2, at2, vld1q_s8(x_lo + 64));
}

int64_t eb_dot_l2_i15_neon(const uint8_t *restrict w, const eb_i15 *restrict x, size_t k) {
    int32x4_t hi = vdupq_n_s32(0), lo = vdupq_n_s32(0);
    for (size_t i = 0; i < k; i += 256, w += 64) {
        eb_fields block_hi = {0}, block_lo = {0};
        for (size_t p = 0; p < 64; p += 16) {
            const uint8x16_t codes = vld1q_u8(w + p);
            const int8_t *x_hi = x->hi + i + p, *x_lo = x->lo + i + p;
            add_field(&block_hi, &block_lo, codes, x_hi, x_lo);
            add_field(&block_hi, &block_lo, vshrq_n_u8(codes, 4), x_hi + 128, x_lo + 128);
        }
        hi = eb_widened(hi, block_hi);
        lo = eb_widened(lo, block_lo);
    }
    return 128 * (int64_t)vaddvq_s32(hi) + vaddvq_s32(lo);
}
