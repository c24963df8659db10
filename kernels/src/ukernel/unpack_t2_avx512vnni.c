/* unpack_t2_avx512vnni.c - one tile is one register: four shifts and masks. */
#include "lanes_avx512.h"
#include "ukernel.h"

void eb_unpack_t2_avx512vnni(uint8_t *restrict codes, const uint8_t *restrict w, size_t rows, size_t k) {
    const __m512i low2 = _mm512_set1_epi8(3);
    for (size_t tile = 0; tile < rows / EB_TILE_ROWS * (k / 64); tile++, w += 64, codes += 256) {
        const __m512i packed = _mm512_loadu_si512(w);
        _mm_prefetch((const char *)w + EB_PREFETCH_BYTES, _MM_HINT_T0);
        _mm512_storeu_si512(codes, _mm512_and_si512(packed, low2));
        _mm512_storeu_si512(codes + 64, _mm512_and_si512(_mm512_srli_epi16(packed, 2), low2));
        _mm512_storeu_si512(codes + 128, _mm512_and_si512(_mm512_srli_epi16(packed, 4), low2));
        _mm512_storeu_si512(codes + 192, _mm512_and_si512(_mm512_srli_epi16(packed, 6), low2));
    }
}
