/* unpack_t1_avx2.c - blocks through the tables of codes_t1_avx2.h; the rest of a row is layout t2. */
#include "codes_t1_avx2.h"
#include "ukernel.h"

static inline __attribute__((always_inline)) void store_field(uint8_t *codes, __m256i packed, int shift) {
    _mm256_storeu_si256((__m256i *)codes, _mm256_and_si256(_mm256_srli_epi16(packed, shift), _mm256_set1_epi8(3)));
}

void eb_unpack_t1_avx2(uint8_t *restrict codes, const uint8_t *restrict w, size_t rows, size_t k) {
    const eb_t1_tables tables = eb_t1_load_tables();
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        size_t i = 0;
        for (; i + EB_T1_BLOCK <= k; i += EB_T1_BLOCK, w += 64 * EB_T1_VECTORS) {
            for (int v = 0; v < EB_T1_VECTORS; v++)
                eb_prefetch(w + 64 * v);
#pragma GCC unroll 8
            for (int j = 0; j < EB_T1_INDICES; j++)
                for (int trit = 0; trit < 3; trit++, codes += 64) {
                    store_field(codes, eb_t1_vector(w, j, tables), 2 * trit);
                    store_field(codes + 32, eb_t1_vector(w + 32, j, tables), 2 * trit);
                }
        }
        for (; i < k; i += 64, w += 64)
            for (int field = 0; field < 4; field++, codes += 64) {
                store_field(codes, eb_load256(w), 2 * field);
                store_field(codes + 32, eb_load256(w + 32), 2 * field);
            }
    }
}
