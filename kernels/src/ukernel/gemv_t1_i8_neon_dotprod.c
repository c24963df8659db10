/* gemv_t1_i8_neon_dotprod.c - decode GEMV from 1.67 bits a weight, for cores with FEAT_DotProd.
 * One TBL turns a vector of five-bit indices into bytes of three two-bit codes, which are multiplied as in
 * gemv_t2_i8_neon_dotprod.c. */
#include "codes_t1_neon.h"
#include "fields_neon_dotprod.h"
#include "ukernel.h"

/* sum += 16 indices of a row times their 48 activations */
static inline __attribute__((always_inline)) void add_indices(eb_fields *sum, uint8x16_t indices, const int8x16_t x[3],
                                                              uint8x16x2_t table) {
    const uint8x16_t codes = vqtbl2q_u8(table, indices);
    sum->at0 = vdotq_s32(sum->at0, eb_masked(codes, 0x03), x[0]);
    sum->at2 = vdotq_s32(sum->at2, eb_masked(codes, 0x0c), x[1]);
    sum->at0 = vdotq_s32(sum->at0, vreinterpretq_s8_u8(vshrq_n_u8(codes, 4)), x[2]);
}

typedef uint8x16_t index_fn(const uint8_t *w, size_t j);

/* sum[r] += vector of indices `j` of row r times its 48 activations */
static inline __attribute__((always_inline)) void add_vector(eb_fields sum[EB_TILE_ROWS], index_fn *index,
                                                             const uint8_t *w, size_t j, const int8_t *x,
                                                             uint8x16x2_t table) {
    const int8x16_t xs[3] = {vld1q_s8(x + 48 * j), vld1q_s8(x + 48 * j + 16), vld1q_s8(x + 48 * j + 32)};
    for (int r = 0; r < EB_TILE_ROWS; r++)
        add_indices(&sum[r], index(w + 16 * r, j), xs, table);
}

void eb_gemv_t1_i8_neon_dotprod(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                                size_t rows, size_t k) {
    const uint8x16x2_t table = vld1q_u8_x2(eb_t1_codes);
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        eb_fields sum[EB_TILE_ROWS] = {0};
        size_t i = 0;
        for (; i + EB_T1_BLOCK <= k; i += EB_T1_BLOCK, w += 64 * EB_T1_VECTORS) {
            for (int v = 0; v < EB_T1_VECTORS; v++)
                eb_prefetch(w + 64 * v);
#pragma GCC unroll 1
            for (size_t j = 0; j < EB_T1_VECTORS; j++)
                add_vector(sum, eb_t1_low_index, w, j, x + i, table);
            add_vector(sum, eb_t1_high_index, w, 5, x + i, table);
            add_vector(sum, eb_t1_high_index, w, 6, x + i, table);
            add_vector(sum, eb_t1_high_index, w, 7, x + i, table);
        }
        for (; i < k; i += 64, w += 64)
            eb_add_tile_t2(sum, w, x + i);
        int32x4_t total[EB_TILE_ROWS];
        for (int r = 0; r < EB_TILE_ROWS; r++)
            total[r] = eb_fields_total(&sum[r]);
        vst1q_s32(y + n, vsubq_s32(eb_four_sums(total), vdupq_n_s32(x_sum)));
    }
}
