/* attend_i8_avx512vnni.c - attention over a KV cache of int8 with AVX-512 VNNI.
 * Keys are widened to int16 and meet the query's 15 bits whole: VPDPWSSD adds two products a lane, and a register holds
 * eight positions by four elements. (VPDPBUSD on the query's two planes is as many products and twice the broadcasts.) */
#define EB_LANES 16
#define EB_ROWS 4
#define EB_GROUPS 1
#define EB_COLUMNS 4
#define EB_KV_I8_BODY
#include "attend.h"

EB_INLINE __m512i widened(const int8_t *from) {
    return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)from));
}

EB_INLINE void key_dots(int32_t *dots, const int8_t *keys, const attend_query *q, size_t row, const int rows) {
    __m512i low[EB_ROWS], high[EB_ROWS];
    for (int r = 0; r < rows; r++)
        low[r] = high[r] = _mm512_setzero_si512();
    const unsigned char *x = q->q + row * q->pitch;
    for (size_t d = 0; d < q->n; d += 4, keys += 64) {
        const __m512i key_low = widened(keys), key_high = widened(keys + 32);
        for (int r = 0; r < rows; r++) {
            const __m512i four = _mm512_set1_epi64((int64_t)eb_load_u64(x + (size_t)r * q->pitch + 2 * d));
            low[r] = _mm512_dpwssd_epi32(low[r], key_low, four);
            high[r] = _mm512_dpwssd_epi32(high[r], key_high, four);
        }
    }
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    for (int r = 0; r < rows; r++) {
        const __m512i of_even = _mm512_permutex2var_epi32(low[r], even, high[r]);
        const __m512i of_odd = _mm512_permutex2var_epi32(low[r], _mm512_add_epi32(even, _mm512_set1_epi32(1)), high[r]);
        _mm512_storeu_si512(dots + r * EB_SEGMENT, _mm512_add_epi32(of_even, of_odd));
    }
}

void eb_attend_i8_avx512vnni(const eb_attend *a) { attend(a); }
