/* unpack_t1_neon.c - blocks through the table of layout_t1.h; the rest of a row is layout t2. */
#include "codes_t1_neon.h"
#include "lanes_neon.h"
#include "ukernel.h"

static inline __attribute__((always_inline)) void store_rows(uint8_t *codes, const uint8x16_t packed[EB_TILE_ROWS]) {
    for (size_t r = 0; r < EB_TILE_ROWS; r++)
        eb_store_fields(codes + 16 * r, packed[r], 3);
}

void eb_unpack_t1_neon(uint8_t *restrict codes, const uint8_t *restrict w, size_t rows, size_t k) {
    const uint8x16x2_t table = eb_t1_table();
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        size_t i = 0;
        for (; i + EB_T1_BLOCK <= k; i += EB_T1_BLOCK, w += 64 * EB_T1_VECTORS) {
            uint8x16_t packed[EB_TILE_ROWS];
            for (size_t j = 0; j < EB_T1_VECTORS; j++, codes += 3 * 64) {
                eb_t1_low(packed, w, j, table);
                store_rows(codes, packed);
            }
#pragma GCC unroll 3
            for (size_t j = EB_T1_VECTORS; j < EB_T1_INDICES; j++, codes += 3 * 64) {
                eb_t1_high(packed, w, j, table);
                store_rows(codes, packed);
            }
        }
        for (; i < k; i += 64, w += 64, codes += 256)
            for (size_t r = 0; r < EB_TILE_ROWS; r++)
                eb_store_fields(codes + 16 * r, vld1q_u8(w + 16 * r), 4);
    }
}
