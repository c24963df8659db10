/* gemv_t1_i8_neon_dotprod.c - decode GEMV from 1.67 bits a weight, for cores with FEAT_DotProd.
 * One TBL turns a vector of five-bit indices into bytes of three two-bit codes, which are multiplied as in
 * gemv_t2_i8_neon_dotprod.c. Three TBLs that give a code each need no mask and are faster on the Cortex-A76, but slower
 * on the A55 and the X1. */
#include "codes_t1_neon.h"
#include "fields_neon_dotprod.h"
#include "ukernel.h"

/* sum[r] += the codes of row r, three in a byte, times their 48 activations */
static inline __attribute__((always_inline)) void add_codes(eb_fields sum[EB_TILE_ROWS],
                                                            const uint8x16_t codes[EB_TILE_ROWS], const int8_t *x) {
    eb_in_this_order();
    const int8x16_t xs[3] = {vld1q_s8(x), vld1q_s8(x + 16), vld1q_s8(x + 32)};
    for (int r = 0; r < EB_TILE_ROWS; r++) {
        sum[r].at0 = vdotq_s32(sum[r].at0, eb_masked(codes[r], 0x03), xs[0]);
        sum[r].at2 = vdotq_s32(sum[r].at2, eb_masked(codes[r], 0x0c), xs[1]);
        sum[r].at0 = vdotq_s32(sum[r].at0, eb_from_bit4(codes[r]), xs[2]);
    }
}

void eb_gemv_t1_i8_neon_dotprod(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                                size_t rows, size_t k) {
    const uint8x16x2_t table = eb_t1_table();
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        eb_fields sum[EB_TILE_ROWS] = {0};
        size_t i = 0;
        for (; i + EB_T1_BLOCK <= k; i += EB_T1_BLOCK, w += 64 * EB_T1_VECTORS) {
            uint8x16_t codes[EB_TILE_ROWS];
            for (int v = 0; v < EB_T1_VECTORS; v++)
                eb_prefetch(w + 64 * v);
#pragma GCC unroll 1 /* unrolled, it needs more registers than there are */
            for (size_t j = 0; j < EB_T1_VECTORS; j++) {
                eb_t1_low(codes, w, j, table);
                add_codes(sum, codes, x + i + 48 * j);
            }
#pragma GCC unroll 3
            for (size_t j = EB_T1_VECTORS; j < EB_T1_INDICES; j++) {
                eb_t1_high(codes, w, j, table);
                add_codes(sum, codes, x + i + 48 * j);
            }
        }
        for (; i < k; i += 64, w += 64)
            eb_add_tile_t2(sum, w, x + i);
        int32x4_t total[EB_TILE_ROWS];
        for (int r = 0; r < EB_TILE_ROWS; r++)
            total[r] = eb_fields_total(&sum[r]);
        vst1q_s32(y + n, vsubq_s32(eb_four_sums(total), vdupq_n_s32(x_sum)));
    }
}
