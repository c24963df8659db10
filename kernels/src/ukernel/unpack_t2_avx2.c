/* unpack_t2_avx2.c - a tile is two registers: four shifts and masks of each. */
#include "lanes_avx2.h"
#include "ukernel.h"

void eb_unpack_t2_avx2(uint8_t *restrict codes, const uint8_t *restrict w, size_t rows, size_t k) {
    const __m256i low2 = _mm256_set1_epi8(3);
    for (size_t half = 0; half < rows / EB_TILE_ROWS * (k / 64) * 2; half++, w += 32) {
        const __m256i packed = eb_load256(w);
        eb_prefetch(w);
        uint8_t *to = codes + half / 2 * 256 + half % 2 * 32;
        for (int field = 0; field < 4; field++)
            _mm256_storeu_si256((__m256i *)(to + 64 * field),
                                _mm256_and_si256(_mm256_srli_epi16(packed, 2 * field), low2));
    }
}
