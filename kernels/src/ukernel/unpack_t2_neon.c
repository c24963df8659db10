/* unpack_t2_neon.c - a tile of four rows at a time: three shifts and masks for each 16 bytes. */
#include "lanes_neon.h"
#include "ukernel.h"

void eb_unpack_t2_neon(uint8_t *restrict codes, const uint8_t *restrict w, size_t rows, size_t k) {
    for (size_t tile = 0; tile < rows / EB_TILE_ROWS * (k / 64); tile++, w += 64, codes += 256)
        for (size_t r = 0; r < EB_TILE_ROWS; r++)
            eb_store_fields(codes + 16 * r, vld1q_u8(w + 16 * r), 4);
}
