/* gemv_i8_i15_avx2.c - the head's GEMV for x86-64 with AVX2.
 * Weights are widened to 16 bits and multiplied with the 15-bit activations by VPMADDWD: three instructions for 16
 * weights. A product pair is at most 2 * 128 * 16,256 < 2^22, so an int32 lane takes 256 of them, 4,096 columns, with
 * room to spare, before it goes on to 64 bits. Four rows share each load of activations. The next four rows are
 * prefetched. */
#include "ukernel.h"

#include <immintrin.h>

enum { ROWS = 4, COLUMNS_PER_FLUSH = 4096 };

static inline __m256i widened(const int8_t *w) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w)); }

static inline int64_t sum_lanes(__m256i acc) {
    const __m256i pairs = _mm256_add_epi64(_mm256_cvtepi32_epi64(_mm256_castsi256_si128(acc)),
                                           _mm256_cvtepi32_epi64(_mm256_extracti128_si256(acc, 1)));
    const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
    return _mm_cvtsi128_si64(two) + _mm_extract_epi64(two, 1);
}

void eb_gemv_i8_i15_avx2(int64_t *restrict y, const int8_t *restrict w, const eb_i15 *restrict x, size_t rows,
                         size_t k) {
    for (size_t n = 0; n < rows; n += ROWS) {
        /* The last group's missing rows repeat its last one: computed and not stored. */
        const size_t last = rows - 1;
        const int8_t *w0 = w + n * k;
        const int8_t *w1 = w + (n + 1 < last ? n + 1 : last) * k;
        const int8_t *w2 = w + (n + 2 < last ? n + 2 : last) * k;
        const int8_t *w3 = w + (n + 3 < last ? n + 3 : last) * k;
        int64_t sums[ROWS] = {0};
        for (size_t i = 0; i < k;) {
            __m256i acc0 = _mm256_setzero_si256(), acc1 = acc0, acc2 = acc0, acc3 = acc0;
            const size_t end = i + COLUMNS_PER_FLUSH < k ? i + COLUMNS_PER_FLUSH : k;
            for (; i < end; i += 16) {
                _mm_prefetch((const char *)(w0 + (ROWS + i / 16 % ROWS) * k + i), _MM_HINT_T0);
                const __m256i q = _mm256_loadu_si256((const __m256i *)(x->q + i));
                acc0 = _mm256_add_epi32(acc0, _mm256_madd_epi16(widened(w0 + i), q));
                acc1 = _mm256_add_epi32(acc1, _mm256_madd_epi16(widened(w1 + i), q));
                acc2 = _mm256_add_epi32(acc2, _mm256_madd_epi16(widened(w2 + i), q));
                acc3 = _mm256_add_epi32(acc3, _mm256_madd_epi16(widened(w3 + i), q));
            }
            sums[0] += sum_lanes(acc0);
            sums[1] += sum_lanes(acc1);
            sums[2] += sum_lanes(acc2);
            sums[3] += sum_lanes(acc3);
        }
        for (size_t r = 0; r < ROWS && n + r < rows; r++)
            y[n + r] = sums[r];
    }
}
