/* dot_l2_i15_avx512vnni.c - one row of a low plane of the head: 256 weights in a register.
 * The prefetch is for the case that most rows are read; where few are, it costs as much again as those few. */
#include "lanes_avx512.h"
#include "ukernel.h"

static inline __attribute__((always_inline)) __m512i add_dots(__m512i acc, __m512i codes, const int8_t *x) {
    return eb_dots(acc, codes, _mm512_loadu_si512(x));
}

int64_t eb_dot_l2_i15_avx512vnni(const uint8_t *restrict w, const eb_i15 *restrict x, size_t k) {
    const __m512i low2 = _mm512_set1_epi8(3);
    __m512i hi = _mm512_setzero_si512(), lo = hi, hi_odd = hi, lo_odd = hi;
    for (size_t i = 0; i < k; i += 256, w += 64) {
        const __m512i codes = _mm512_loadu_si512(w);
        _mm_prefetch((const char *)w + EB_PREFETCH_BYTES, _MM_HINT_T0);
        const __m512i at0 = _mm512_and_si512(codes, low2), at2 = _mm512_and_si512(_mm512_srli_epi16(codes, 2), low2);
        const __m512i at4 = _mm512_and_si512(_mm512_srli_epi16(codes, 4), low2);
        const __m512i at6 = _mm512_and_si512(_mm512_srli_epi16(codes, 6), low2);
        hi = add_dots(add_dots(hi, at0, x->hi + i), at4, x->hi + i + 128);
        lo = add_dots(add_dots(lo, at0, x->lo + i), at4, x->lo + i + 128);
        hi_odd = add_dots(add_dots(hi_odd, at2, x->hi + i + 64), at6, x->hi + i + 192);
        lo_odd = add_dots(add_dots(lo_odd, at2, x->lo + i + 64), at6, x->lo + i + 192);
    }
    return 128 * (int64_t)_mm512_reduce_add_epi32(_mm512_add_epi32(hi, hi_odd)) +
           _mm512_reduce_add_epi32(_mm512_add_epi32(lo, lo_odd));
}
