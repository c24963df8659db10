/* dot_l2_i15_avx2.c - one row of a low plane of the head, with AVX2.
 * An int16 lane takes at most 2 * 3 * 128 = 768 from each 32 columns, 3,072 from the 128 that two loads hold with their
 * fields two by two; it is widened after each 256. */
#include "lanes_avx2.h"
#include "ukernel.h"

static inline __attribute__((always_inline)) __m256i products(__m256i codes, const int8_t *x) {
    return _mm256_maddubs_epi16(codes, _mm256_loadu_si256((const __m256i *)x));
}

static int64_t total(__m256i acc) {
    const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(acc), _mm256_extracti128_si256(acc, 1));
    const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

int64_t eb_dot_l2_i15_avx2(const uint8_t *restrict w, const eb_i15 *restrict x, size_t k) {
    __m256i hi = _mm256_setzero_si256(), lo = hi;
    for (size_t i = 0; i < k; i += 256, w += 64) {
        __m256i part_hi = _mm256_setzero_si256(), part_lo = part_hi;
        for (size_t half = 0; half < 64; half += 32) {
            const __m256i packed = eb_load256(w + half);
            eb_prefetch(w + half);
            for (size_t field = 0; field < 4; field++) {
                const __m256i codes =
                    _mm256_and_si256(_mm256_srli_epi16(packed, (int)(2 * field)), _mm256_set1_epi8(3));
                part_hi = _mm256_add_epi16(part_hi, products(codes, x->hi + i + 64 * field + half));
                part_lo = _mm256_add_epi16(part_lo, products(codes, x->lo + i + 64 * field + half));
            }
        }
        hi = eb_widened_sum(hi, part_hi);
        lo = eb_widened_sum(lo, part_lo);
    }
    return 128 * total(hi) + total(lo);
}
