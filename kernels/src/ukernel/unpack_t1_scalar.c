/* unpack_t1_scalar.c - the definition: runs anywhere, and every other variant must equal it. */
#include "layout_t1.h"
#include "ukernel.h"

void eb_unpack_t1_scalar(uint8_t *restrict codes, const uint8_t *restrict w, size_t rows, size_t k) {
    const size_t tail = k % EB_T1_BLOCK;
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        for (size_t i = 0; i + EB_T1_BLOCK <= k; i += EB_T1_BLOCK, w += 64 * EB_T1_VECTORS, codes += 4 * EB_T1_BLOCK)
            for (size_t p = 0; p < 64; p++) {
                uint8_t index[EB_T1_INDICES];
                eb_t1_indices(index, w + p);
                for (size_t j = 0; j < EB_T1_INDICES; j++)
                    for (size_t trit = 0; trit < 3; trit++)
                        codes[64 * (3 * j + trit) + p] = eb_t1_codes[index[j]] >> 2 * trit & 3;
            }
        eb_unpack_t2_scalar(codes, w, EB_TILE_ROWS, tail);
        w += tail, codes += 4 * tail;
    }
}
