/* attend_i8_avxvnni.c - attention over a KV cache of int8 with AVX-VNNI: as with AVX-512 VNNI, eight positions at once. */
#define EB_LANES 8
#define EB_ROWS 4
#define EB_GROUPS 1
#define EB_COLUMNS 2
#define EB_KV_I8_BODY
#include "attend.h"

EB_INLINE void key_dots(int32_t *dots, const int8_t *keys, const attend_query *q, size_t row, const int rows) {
    const unsigned char *x_hi = q->hi + row * q->pitch, *x_lo = q->lo + row * q->pitch;
    for (int half = 0; half < 2; half++, keys += 32, dots += 8) {
        __m256i hi[EB_ROWS], lo[EB_ROWS];
        for (int r = 0; r < rows; r++)
            hi[r] = lo[r] = _mm256_setzero_si256();
        for (size_t d = 0; d < q->n; d += 4) {
            const __m256i key = _mm256_xor_si256(_mm256_loadu_si256((const __m256i *)(const void *)(keys + 16 * d)),
                                                 _mm256_set1_epi8(-128));
            for (int r = 0; r < rows; r++) {
                const size_t at = (size_t)r * q->pitch + d;
                hi[r] = _mm256_dpbusd_avx_epi32(hi[r], key, _mm256_set1_epi32(eb_load_i32(x_hi + at)));
                lo[r] = _mm256_dpbusd_avx_epi32(lo[r], key, _mm256_set1_epi32(eb_load_i32(x_lo + at)));
            }
        }
        for (int r = 0; r < rows; r++) {
            const __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(hi[r], 7), lo[r]);
            const __m256i taken_off = _mm256_set1_epi32(128 * q->sum[row + (size_t)r]);
            _mm256_storeu_si256((__m256i *)(void *)(dots + r * EB_SEGMENT), _mm256_sub_epi32(sum, taken_off));
        }
    }
}

void eb_attend_i8_avxvnni(const eb_attend *a) { attend(a); }
