/* gemv_t1_i8_avx2.c - decode GEMV from 1.67 bits a weight, with AVX2.
 * As in gemv_t2_i8_avx2.c: codes, and codes four times as large, in two accumulators; a block of 384 columns adds at most
 * 8 * 2 * 12 * 128 = 24,576 to an int16 lane of the large kind, a tile of layout t2 a quarter of that. */
#include "codes_t1_avx2.h"
#include "ukernel.h"

typedef struct sums {
    __m256i codes, fourfold;
} sums;

/* The codes in bits 5:0 of each byte times 3 x 16 activations. */
static inline __attribute__((always_inline)) void add_three(sums *part, __m256i w, const int8_t *x) {
    const __m256i even = _mm256_set1_epi8(0x03), odd = _mm256_set1_epi8(0x0c), high = _mm256_srli_epi16(w, 4);
    part->codes = _mm256_add_epi16(part->codes, _mm256_maddubs_epi16(_mm256_and_si256(w, even), eb_both_lanes(x)));
    part->fourfold =
        _mm256_add_epi16(part->fourfold, _mm256_maddubs_epi16(_mm256_and_si256(w, odd), eb_both_lanes(x + 16)));
    part->codes =
        _mm256_add_epi16(part->codes, _mm256_maddubs_epi16(_mm256_and_si256(high, even), eb_both_lanes(x + 32)));
}

static inline __attribute__((always_inline)) __m256i flushed(__m256i acc, const sums *part) {
    const __m256i quarter = _mm256_srai_epi32(_mm256_madd_epi16(part->fourfold, _mm256_set1_epi16(1)), 2);
    return _mm256_add_epi32(eb_widened_sum(acc, part->codes), quarter);
}

/* A whole block of two rows; the other two are 32 bytes on. */
static inline __attribute__((always_inline)) __m256i add_block(__m256i acc, const uint8_t *w, const int8_t *x,
                                                               eb_t1_tables tables) {
    sums part = {0};
#pragma GCC unroll 8
    for (int j = 0; j < EB_T1_INDICES; j++)
        add_three(&part, eb_t1_vector(w, j, tables), x + 48 * j);
    return flushed(acc, &part);
}

/* Two rows of a tile of layout t2. */
static inline __attribute__((always_inline)) __m256i add_tile(__m256i acc, const uint8_t *w, const int8_t *x) {
    sums part = {0};
    const __m256i codes = eb_load256(w), top = _mm256_and_si256(_mm256_srli_epi16(codes, 4), _mm256_set1_epi8(0x0c));
    add_three(&part, codes, x);
    part.fourfold = _mm256_add_epi16(part.fourfold, _mm256_maddubs_epi16(top, eb_both_lanes(x + 48)));
    return flushed(acc, &part);
}

void eb_gemv_t1_i8_avx2(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                        size_t rows, size_t k) {
    const eb_t1_tables tables = eb_t1_load_tables();
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        __m256i acc01 = _mm256_setzero_si256(), acc23 = acc01;
        size_t i = 0;
        for (; i + EB_T1_BLOCK <= k; i += EB_T1_BLOCK, w += 64 * EB_T1_VECTORS) {
            for (int v = 0; v < EB_T1_VECTORS; v++)
                eb_prefetch(w + 64 * v);
            acc01 = add_block(acc01, w, x + i, tables);
            acc23 = add_block(acc23, w + 32, x + i, tables);
        }
        for (; i < k; i += 64, w += 64) {
            eb_prefetch(w);
            acc01 = add_tile(acc01, w, x + i);
            acc23 = add_tile(acc23, w + 32, x + i);
        }
        _mm_storeu_si128((__m128i *)(y + n), _mm_sub_epi32(eb_four_sums(acc01, acc23), _mm_set1_epi32(x_sum)));
    }
}
