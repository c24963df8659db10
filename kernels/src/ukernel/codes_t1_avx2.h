/* codes_t1_avx2.h - the vectors of indices of layout t1, for two rows, as bytes of three two-bit codes.
 * VPSHUFB has tables of 16: one for the indices below 16 and one for the others, told apart by bit 4. */
#ifndef EB_CODES_T1_AVX2_H
#define EB_CODES_T1_AVX2_H

#include "lanes_avx2.h"
#include "layout_t1.h"

typedef struct eb_t1_tables {
    __m256i below_16, from_16;
} eb_t1_tables;

static inline __attribute__((always_inline)) eb_t1_tables eb_t1_load_tables(void) {
    return (eb_t1_tables){eb_both_lanes((const int8_t *)eb_t1_codes), eb_both_lanes((const int8_t *)eb_t1_codes + 16)};
}

/* `index` has zeros above bit 4. */
static inline __attribute__((always_inline)) __m256i eb_t1_look_up(__m256i index, eb_t1_tables tables) {
    return _mm256_blendv_epi8(_mm256_shuffle_epi8(tables.below_16, index), _mm256_shuffle_epi8(tables.from_16, index),
                              _mm256_slli_epi16(index, 3));
}

/* Bits 4:2 from a vector's three high bits, 1:0 from `low`. */
static inline __attribute__((always_inline)) __m256i eb_t1_joined(__m256i vector, __m256i low) {
    const __m256i high = _mm256_and_si256(_mm256_srli_epi16(vector, 3), _mm256_set1_epi8(0x1c));
    return _mm256_or_si256(high, _mm256_and_si256(low, _mm256_set1_epi8(3)));
}

/* Vector of indices `j`, 0 to 7, of the two rows at `w`: a constant where this is inlined. */
static inline __attribute__((always_inline)) __m256i eb_t1_vector(const uint8_t *w, int j, eb_t1_tables tables) {
    const __m256i d = eb_load256(w + 192), e = eb_load256(w + 256);
    __m256i index;
    if (j < EB_T1_VECTORS)
        index = _mm256_and_si256(eb_load256(w + 64 * j), _mm256_set1_epi8(0x1f));
    else if (j == 5)
        index = eb_t1_joined(eb_load256(w), _mm256_srli_epi16(d, 6));
    else if (j == 6)
        index = eb_t1_joined(eb_load256(w + 64), _mm256_srli_epi16(e, 6));
    else {
        const __m256i bit1 = _mm256_and_si256(_mm256_srli_epi16(d, 4), _mm256_set1_epi8(2));
        const __m256i bit0 = _mm256_and_si256(_mm256_srli_epi16(e, 5), _mm256_set1_epi8(1));
        index = eb_t1_joined(eb_load256(w + 128), _mm256_or_si256(bit1, bit0));
    }
    return eb_t1_look_up(index, tables);
}

#endif
