/* gemv_h4_i15_neon_dotprod.c - the head's high plane for cores with FEAT_DotProd.
 * A mask, a shift and four SDOTs for 32 weights, which meet both planes of the activations. The four rows of a tile
 * share each load of activations. */
#include "lanes_neon.h"
#include "ukernel.h"

void eb_gemv_h4_i15_neon_dotprod(int64_t *restrict y, const uint8_t *restrict w, const eb_i15 *restrict x, size_t rows,
                                 size_t k) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        int32x4_t hi[EB_TILE_ROWS] = {0}, lo[EB_TILE_ROWS] = {0};
        for (size_t i = 0; i < k; i += 32, w += 64) {
            const int8x16_t x_hi[2] = {vld1q_s8(x->hi + i), vld1q_s8(x->hi + i + 16)};
            const int8x16_t x_lo[2] = {vld1q_s8(x->lo + i), vld1q_s8(x->lo + i + 16)};
            eb_prefetch(w);
            for (int r = 0; r < EB_TILE_ROWS; r++) {
                const uint8x16_t codes = vld1q_u8(w + 16 * r);
                const int8x16_t even = eb_masked(codes, 15), odd = eb_from_bit4(codes);
                hi[r] = vdotq_s32(vdotq_s32(hi[r], even, x_hi[0]), odd, x_hi[1]);
                lo[r] = vdotq_s32(vdotq_s32(lo[r], even, x_lo[0]), odd, x_lo[1]);
            }
        }
        eb_store_planes(y + n, eb_four_sums(hi), eb_four_sums(lo));
    }
}
