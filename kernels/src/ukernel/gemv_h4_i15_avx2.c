/* gemv_h4_i15_avx2.c - the head's high plane for x86-64 with AVX2.
 * A tile is two registers of 32 columns of two rows, which meet both planes of the activations. An int16 lane takes at
 * most 2 * 2 * 15 * 128 = 7,680 from a tile: four tiles (30,720), and then it is widened. */
#include "lanes_avx2.h"
#include "ukernel.h"

enum { COLUMNS_PER_FLUSH = 128 };

typedef struct planes {
    __m256i hi, lo;
} planes;

static inline __attribute__((always_inline)) void add_two_rows(planes *part, __m256i w, const eb_i15 *x, size_t i) {
    const __m256i low4 = _mm256_set1_epi8(15);
    const __m256i even = _mm256_and_si256(w, low4), odd = _mm256_and_si256(_mm256_srli_epi16(w, 4), low4);
    const __m256i hi = _mm256_maddubs_epi16(even, eb_both_lanes(x->hi + i));
    const __m256i lo = _mm256_maddubs_epi16(even, eb_both_lanes(x->lo + i));
    part->hi =
        _mm256_add_epi16(part->hi, _mm256_add_epi16(hi, _mm256_maddubs_epi16(odd, eb_both_lanes(x->hi + i + 16))));
    part->lo =
        _mm256_add_epi16(part->lo, _mm256_add_epi16(lo, _mm256_maddubs_epi16(odd, eb_both_lanes(x->lo + i + 16))));
}

void eb_gemv_h4_i15_avx2(int64_t *restrict y, const uint8_t *restrict w, const eb_i15 *restrict x, size_t rows,
                         size_t k) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        planes acc01 = {0}, acc23 = {0};
        for (size_t i = 0; i < k;) {
            const size_t end = i + COLUMNS_PER_FLUSH < k ? i + COLUMNS_PER_FLUSH : k;
            planes part01 = {0}, part23 = {0};
            for (; i < end; i += 32, w += 64) {
                eb_prefetch(w);
                add_two_rows(&part01, eb_load256(w), x, i);
                add_two_rows(&part23, eb_load256(w + 32), x, i);
            }
            acc01 = (planes){eb_widened_sum(acc01.hi, part01.hi), eb_widened_sum(acc01.lo, part01.lo)};
            acc23 = (planes){eb_widened_sum(acc23.hi, part23.hi), eb_widened_sum(acc23.lo, part23.lo)};
        }
        const __m256i hi = _mm256_cvtepi32_epi64(eb_four_sums(acc01.hi, acc23.hi));
        const __m256i lo = _mm256_cvtepi32_epi64(eb_four_sums(acc01.lo, acc23.lo));
        _mm256_storeu_si256((__m256i *)(y + n), _mm256_add_epi64(_mm256_slli_epi64(hi, 7), lo));
    }
}
