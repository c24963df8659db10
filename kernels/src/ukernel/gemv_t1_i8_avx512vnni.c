/* gemv_t1_i8_avx512vnni.c - decode GEMV from 1.67 bits a weight, with AVX-512 VNNI and VBMI.
 * One VPERMB turns a vector of five-bit indices into bytes of three two-bit codes, which are masked and multiplied where
 * they stand, as in gemv_t2_i8_avx512vnni.c. */
#include "codes_t1_avx512.h"
#include "lanes_avx512.h"
#include "ukernel.h"

void eb_gemv_t1_i8_avx512vnni(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                              size_t rows, size_t k) {
    const __m512i table = eb_t1_table();
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        eb_fields even = {0}, odd = {0};
        size_t i = 0;
        for (; i + EB_T1_BLOCK <= k; i += EB_T1_BLOCK, w += 64 * EB_T1_VECTORS) {
            __m512i codes[EB_T1_INDICES];
            for (int v = 0; v < EB_T1_VECTORS; v++)
                _mm_prefetch((const char *)w + 64 * v + EB_PREFETCH_BYTES, _MM_HINT_T0);
            eb_t1_block(codes, w, table);
            for (int j = 0; j < EB_T1_INDICES; j++)
                eb_add_three(j % 2 ? &odd : &even, codes[j], x + i + 48 * j);
        }
        for (; i < k; i += 64, w += 64)
            eb_add_tile_t2(&even, w, x + i);
        eb_store_sums(y + n, _mm512_add_epi32(eb_fields_sum(&even), eb_fields_sum(&odd)), x_sum);
    }
}
