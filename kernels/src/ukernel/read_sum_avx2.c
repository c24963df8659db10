/* read_sum_avx2.c - one stream of plain loads, two cache lines a turn: the hardware's prefetchers follow one stream
 * best, and 2 KiB ahead is where a software prefetch still gains a little on top of them. */
#include "ukernel.h"

#include <immintrin.h>

enum { AHEAD = 2048 / sizeof(uint64_t) };

static inline __m256i load(const uint64_t *words) { return _mm256_load_si256((const __m256i *)words); }

uint64_t eb_read_sum_avx2(const uint64_t *words, size_t n) {
    __m256i a = _mm256_setzero_si256(), b = a, c = a, d = a;
    for (size_t i = 0; i < n; i += 16) {
        _mm_prefetch((const char *)(words + i + AHEAD), _MM_HINT_T0);
        _mm_prefetch((const char *)(words + i + AHEAD + 8), _MM_HINT_T0);
        a = _mm256_add_epi64(a, load(words + i));
        b = _mm256_add_epi64(b, load(words + i + 4));
        c = _mm256_add_epi64(c, load(words + i + 8));
        d = _mm256_add_epi64(d, load(words + i + 12));
    }
    a = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
    const __m128i half = _mm_add_epi64(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    return (uint64_t)_mm_cvtsi128_si64(half) + (uint64_t)_mm_extract_epi64(half, 1);
}
