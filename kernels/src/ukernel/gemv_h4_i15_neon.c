/* gemv_h4_i15_neon.c - the head's high plane for cores without FEAT_DotProd.
 * 16 SMLALs for 32 weights of a row, which meet both planes of the activations. The four rows of a tile share each load
 * of activations. */
#include "fields_neon.h"
#include "ukernel.h"

/* A tile adds four products of at most 15 * 128 to an int16 lane: 4 * 4 * 15 * 128 < 2^15. */
enum { COLUMNS_PER_FLUSH = 4 * 32 };

typedef struct planes {
    int16x8_t hi, lo;
} planes;

static inline __attribute__((always_inline)) void add_tile(planes sum[EB_TILE_ROWS], const uint8_t *w, const int8_t *hi,
                                                           const int8_t *lo) {
    const int8x16_t his[2] = {vld1q_s8(hi), vld1q_s8(hi + 16)}, los[2] = {vld1q_s8(lo), vld1q_s8(lo + 16)};
    uint8x16_t codes[EB_TILE_ROWS];
    eb_prefetch(w);
    for (int r = 0; r < EB_TILE_ROWS; r++)
        codes[r] = vld1q_u8(w + 16 * r);
    for (int half = 0; half < 2; half++)
        for (int r = 0; r < EB_TILE_ROWS; r++) {
            const int8x16_t field = half ? eb_from_bit4(codes[r]) : eb_masked(codes[r], 15);
            sum[r].hi = eb_products(sum[r].hi, field, his[half]);
            sum[r].lo = eb_products(sum[r].lo, field, los[half]);
        }
}

void eb_gemv_h4_i15_neon(int64_t *restrict y, const uint8_t *restrict w, const eb_i15 *restrict x, size_t rows,
                         size_t k) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        int32x4_t hi[EB_TILE_ROWS] = {0}, lo[EB_TILE_ROWS] = {0};
        for (size_t i = 0; i < k;) {
            const size_t end = k - i < COLUMNS_PER_FLUSH ? k : i + COLUMNS_PER_FLUSH;
            planes sum[EB_TILE_ROWS] = {0};
            for (; i < end; i += 32, w += 64)
                add_tile(sum, w, x->hi + i, x->lo + i);
            for (int r = 0; r < EB_TILE_ROWS; r++) {
                hi[r] = vpadalq_s16(hi[r], sum[r].hi);
                lo[r] = vpadalq_s16(lo[r], sum[r].lo);
            }
        }
        eb_store_planes(y + n, eb_four_sums(hi), eb_four_sums(lo));
    }
}
