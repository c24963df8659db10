/* attend_i8_avx2.c - attention over a KV cache of int8 with AVX2.
 * VPMADDUBSW would saturate, so keys are widened to int16 and meet the query's 15 bits whole: four positions by four
 * elements a register, which VPMADDWD adds to two sums a position. (AVX-VNNI's VPDPWSSD in its place is slower on Zen 5:
 * 45 products a nanosecond, and 51 with this.) */
#define EB_LANES 8
#define EB_ROWS 4
#define EB_GROUPS 1
#define EB_COLUMNS 2
#define EB_KV_I8_BODY
#include "attend.h"

EB_INLINE void key_dots(int32_t *dots, const int8_t *keys, const attend_query *q, size_t row, const int rows) {
    const unsigned char *x = q->q + row * q->pitch;
    for (int half = 0; half < 2; half++, keys += 32, dots += 8) { /* eight positions */
        __m256i low[EB_ROWS], high[EB_ROWS];
        for (int r = 0; r < rows; r++)
            low[r] = high[r] = _mm256_setzero_si256();
        for (size_t d = 0; d < q->n; d += 4) {
            const __m128i *at = (const __m128i *)(const void *)(keys + 16 * d);
            const __m256i key_low = _mm256_cvtepi8_epi16(_mm_loadu_si128(at));
            const __m256i key_high = _mm256_cvtepi8_epi16(_mm_loadu_si128(at + 1));
            for (int r = 0; r < rows; r++) {
                const __m256i four = _mm256_set1_epi64x((int64_t)eb_load_u64(x + (size_t)r * q->pitch + 2 * d));
                low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(key_low, four));
                high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(key_high, four));
            }
        }
        for (int r = 0; r < rows; r++) { /* VPHADDD leaves positions 0, 1, 4, 5, 2, 3, 6, 7 */
            const __m256i sums = _mm256_permute4x64_epi64(_mm256_hadd_epi32(low[r], high[r]), 0xd8);
            _mm256_storeu_si256((__m256i *)(void *)(dots + r * EB_SEGMENT), sums);
        }
    }
}

void eb_attend_i8_avx2(const eb_attend *a) { attend(a); }
