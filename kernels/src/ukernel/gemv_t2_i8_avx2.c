/* gemv_t2_i8_avx2.c - decode GEMV for x86-64 with AVX2 (Haswell, Zen and later).
 * One shift serves two fields: VPMADDUBSW takes the even fields as codes and the odd ones four times as large, each kind
 * with an accumulator of its own. An int16 lane takes at most 2 * 2 * 12 * 128 = 6,144 of the large kind from a tile
 * with sound codes or not: four tiles (24,576), and then it is widened. */
#include "lanes_avx2.h"
#include "ukernel.h"

enum { COLUMNS_PER_FLUSH = 256 };

typedef struct sums {
    __m256i codes, fourfold;
} sums;

static inline __attribute__((always_inline)) void add_two_rows(sums *part, __m256i w, __m256i x0, __m256i x1,
                                                               __m256i x2, __m256i x3) {
    const __m256i even = _mm256_set1_epi8(0x03), odd = _mm256_set1_epi8(0x0c), high = _mm256_srli_epi16(w, 4);
    part->codes = _mm256_add_epi16(part->codes, _mm256_maddubs_epi16(_mm256_and_si256(w, even), x0));
    part->fourfold = _mm256_add_epi16(part->fourfold, _mm256_maddubs_epi16(_mm256_and_si256(w, odd), x1));
    part->codes = _mm256_add_epi16(part->codes, _mm256_maddubs_epi16(_mm256_and_si256(high, even), x2));
    part->fourfold = _mm256_add_epi16(part->fourfold, _mm256_maddubs_epi16(_mm256_and_si256(high, odd), x3));
}

static inline __attribute__((always_inline)) __m256i flushed(__m256i acc, const sums *part) {
    const __m256i quarter = _mm256_srai_epi32(_mm256_madd_epi16(part->fourfold, _mm256_set1_epi16(1)), 2);
    return _mm256_add_epi32(eb_widened_sum(acc, part->codes), quarter);
}

void eb_gemv_t2_i8_avx2(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                        size_t rows, size_t k) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        __m256i acc01 = _mm256_setzero_si256(), acc23 = acc01;
        for (size_t i = 0; i < k;) {
            const size_t end = i + COLUMNS_PER_FLUSH < k ? i + COLUMNS_PER_FLUSH : k;
            sums part01 = {0}, part23 = {0};
            for (; i < end; i += 64, w += 64) {
                eb_prefetch(w);
                const __m256i x0 = eb_both_lanes(x + i), x1 = eb_both_lanes(x + i + 16);
                const __m256i x2 = eb_both_lanes(x + i + 32), x3 = eb_both_lanes(x + i + 48);
                add_two_rows(&part01, eb_load256(w), x0, x1, x2, x3);
                add_two_rows(&part23, eb_load256(w + 32), x0, x1, x2, x3);
            }
            acc01 = flushed(acc01, &part01);
            acc23 = flushed(acc23, &part23);
        }
        _mm_storeu_si128((__m128i *)(y + n), _mm_sub_epi32(eb_four_sums(acc01, acc23), _mm_set1_epi32(x_sum)));
    }
}
