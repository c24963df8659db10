/* unpack_t2_scalar.c - the definition: runs anywhere, and every other variant must equal it. */
#include "ukernel.h"

void eb_unpack_t2_scalar(uint8_t *restrict codes, const uint8_t *restrict w, size_t rows, size_t k) {
    for (size_t tile = 0; tile < rows / EB_TILE_ROWS * (k / 64); tile++, w += 64)
        for (int field = 0; field < 4; field++, codes += 64)
            for (size_t p = 0; p < 64; p++)
                codes[p] = w[p] >> 2 * field & 3;
}
