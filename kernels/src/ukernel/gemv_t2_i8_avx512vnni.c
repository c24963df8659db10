/* gemv_t2_i8_avx512vnni.c - decode GEMV for x86-64 with AVX-512 VNNI (Ice Lake, Zen 4 and later).
 * A tile is one register. Its four fields are masked and multiplied where they stand, each into an accumulator of its
 * own. Two tiles in turn, since a VPDPBUSD waits four or five cycles for the one before it. */
#include "lanes_avx512.h"
#include "ukernel.h"

void eb_gemv_t2_i8_avx512vnni(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                              size_t rows, size_t k) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        eb_fields even = {0}, odd = {0};
        size_t i = 0;
        for (; i + 128 <= k; i += 128, w += 128) {
            eb_add_tile_t2(&even, w, x + i);
            eb_add_tile_t2(&odd, w + 64, x + i + 64);
        }
        if (i < k) {
            eb_add_tile_t2(&even, w, x + i);
            w += 64;
        }
        eb_store_sums(y + n, _mm512_add_epi32(eb_fields_sum(&even), eb_fields_sum(&odd)), x_sum);
    }
}
