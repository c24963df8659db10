/* gemv_t2_i8_avxvnni.c - decode GEMV for x86-64 with AVX-VNNI (Alder Lake and its like, which have no AVX-512).
 * The four fields of a tile are masked and multiplied where they stand, each into an accumulator of its own. */
#include "fields_avxvnni.h"
#include "ukernel.h"

void eb_gemv_t2_i8_avxvnni(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                           size_t rows, size_t k) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        eb_fields rows01 = {0}, rows23 = {0};
        for (size_t i = 0; i < k; i += 64, w += 64) {
            eb_prefetch(w);
            eb_add_tile_t2(&rows01, eb_load256(w), x + i);
            eb_add_tile_t2(&rows23, eb_load256(w + 32), x + i);
        }
        const __m128i sums = eb_four_sums(eb_fields_total(&rows01), eb_fields_total(&rows23));
        _mm_storeu_si128((__m128i *)(y + n), _mm_sub_epi32(sums, _mm_set1_epi32(x_sum)));
    }
}
