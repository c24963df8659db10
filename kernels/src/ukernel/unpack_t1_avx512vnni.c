/* unpack_t1_avx512vnni.c - blocks through the table of codes_t1_avx512.h; the rest of a row is layout t2. */
#include "codes_t1_avx512.h"
#include "lanes_avx512.h"
#include "ukernel.h"

static inline __attribute__((always_inline)) void store_field(uint8_t *codes, __m512i packed, int shift) {
    _mm512_storeu_si512(codes, _mm512_and_si512(_mm512_srli_epi16(packed, (unsigned)shift), _mm512_set1_epi8(3)));
}

void eb_unpack_t1_avx512vnni(uint8_t *restrict codes, const uint8_t *restrict w, size_t rows, size_t k) {
    const __m512i table = eb_t1_table();
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        size_t i = 0;
        for (; i + EB_T1_BLOCK <= k; i += EB_T1_BLOCK, w += 64 * EB_T1_VECTORS) {
            __m512i packed[EB_T1_INDICES];
            for (int v = 0; v < EB_T1_VECTORS; v++)
                _mm_prefetch((const char *)w + 64 * v + EB_PREFETCH_BYTES, _MM_HINT_T0);
            eb_t1_block(packed, w, table);
            for (int j = 0; j < EB_T1_INDICES; j++)
                for (int trit = 0; trit < 3; trit++, codes += 64)
                    store_field(codes, packed[j], 2 * trit);
        }
        for (; i < k; i += 64, w += 64)
            for (int field = 0; field < 4; field++, codes += 64)
                store_field(codes, _mm512_loadu_si512(w), 2 * field);
    }
}
