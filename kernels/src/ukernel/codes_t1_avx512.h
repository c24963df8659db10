/* codes_t1_avx512.h - a block of layout t1 as registers: each gives, for a vector of indices of the four rows, the byte
 * of three two-bit codes that eb_t1_codes has.
 * VPERMB looks at six bits of an index, so the table stands twice and what lies in the sixth bit does not matter: the
 * five indices in the low bits need no masking, and neighbours that 16-bit shifts bring in are harmless above bit 4. */
#ifndef EB_CODES_T1_AVX512_H
#define EB_CODES_T1_AVX512_H

#include "layout_t1.h"

#include <immintrin.h>

/* Bits of a where the mask has ones, of b elsewhere. */
static inline __attribute__((always_inline)) __m512i eb_select(__m512i mask, __m512i a, __m512i b) {
    return _mm512_ternarylogic_epi32(mask, a, b, 0xca);
}

static inline __attribute__((always_inline)) __m512i eb_t1_table(void) {
    const __m256i table = _mm256_loadu_si256((const __m256i *)eb_t1_codes);
    return _mm512_inserti64x4(_mm512_castsi256_si512(table), table, 1);
}

static inline __attribute__((always_inline)) void eb_t1_block(__m512i codes[EB_T1_INDICES], const uint8_t *w,
                                                              __m512i table) {
    const __m512i a = _mm512_loadu_si512(w), b = _mm512_loadu_si512(w + 64), c = _mm512_loadu_si512(w + 128);
    const __m512i d = _mm512_loadu_si512(w + 192), e = _mm512_loadu_si512(w + 256);
    const __m512i high = _mm512_set1_epi8(0x1c), middle = _mm512_set1_epi8(0x02);
    const __m512i low_of_seven = eb_select(middle, _mm512_srli_epi16(d, 4), _mm512_srli_epi16(e, 5));
    const __m512i five = eb_select(high, _mm512_srli_epi16(a, 3), _mm512_srli_epi16(d, 6));
    const __m512i six = eb_select(high, _mm512_srli_epi16(b, 3), _mm512_srli_epi16(e, 6));
    const __m512i seven = eb_select(high, _mm512_srli_epi16(c, 3), low_of_seven);
    codes[0] = _mm512_permutexvar_epi8(a, table);
    codes[1] = _mm512_permutexvar_epi8(b, table);
    codes[2] = _mm512_permutexvar_epi8(c, table);
    codes[3] = _mm512_permutexvar_epi8(d, table);
    codes[4] = _mm512_permutexvar_epi8(e, table);
    codes[5] = _mm512_permutexvar_epi8(five, table);
    codes[6] = _mm512_permutexvar_epi8(six, table);
    codes[7] = _mm512_permutexvar_epi8(seven, table);
}

#endif
