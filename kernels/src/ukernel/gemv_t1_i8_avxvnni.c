/* gemv_t1_i8_avxvnni.c - decode GEMV from 1.67 bits a weight, with AVX-VNNI.
 * Indices become bytes of three two-bit codes, which are masked and multiplied where they stand, as in
 * gemv_t2_i8_avxvnni.c. */
#include "codes_t1_avx2.h"
#include "fields_avxvnni.h"
#include "ukernel.h"

void eb_gemv_t1_i8_avxvnni(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                           size_t rows, size_t k) {
    const eb_t1_tables tables = eb_t1_load_tables();
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        eb_fields rows01 = {0}, rows23 = {0};
        size_t i = 0;
        for (; i + EB_T1_BLOCK <= k; i += EB_T1_BLOCK, w += 64 * EB_T1_VECTORS) {
            for (int v = 0; v < EB_T1_VECTORS; v++)
                eb_prefetch(w + 64 * v);
#pragma GCC unroll 8
            for (int j = 0; j < EB_T1_INDICES; j++) {
                eb_add_three(&rows01, eb_t1_vector(w, j, tables), x + i + 48 * j);
                eb_add_three(&rows23, eb_t1_vector(w + 32, j, tables), x + i + 48 * j);
            }
        }
        for (; i < k; i += 64, w += 64) {
            eb_prefetch(w);
            eb_add_tile_t2(&rows01, eb_load256(w), x + i);
            eb_add_tile_t2(&rows23, eb_load256(w + 32), x + i);
        }
        const __m128i sums = eb_four_sums(eb_fields_total(&rows01), eb_fields_total(&rows23));
        _mm_storeu_si128((__m128i *)(y + n), _mm_sub_epi32(sums, _mm_set1_epi32(x_sum)));
    }
}
