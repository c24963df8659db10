/* gemv_u8_i15_avx512vnni.c - an int8 head in plain rows for x86-64 with AVX-512 VNNI.
 * 64 columns meet both planes of the activations: two VPDPBUSDs for 64 weights. Row after row, and one accumulator a
 * plane: with two rows or twice the accumulators it is faster only as long as the rows lie in a cache, and a fifth slower
 * from memory. */
#include "lanes_avx512.h"
#include "ukernel.h"

void eb_gemv_u8_i15_avx512vnni(int64_t *restrict y, const uint8_t *restrict w, const eb_i15 *restrict x, int64_t x_sum,
                               size_t w_stride, size_t rows, size_t k) {
    const __mmask64 rest = ((__mmask64)1 << k % 64) - 1; /* nothing is read behind the last columns */
    for (size_t n = 0; n < rows; n++, w += w_stride) {
        __m512i hi = _mm512_setzero_si512(), lo = hi;
        size_t i = 0;
        for (; i + 64 <= k; i += 64) {
            const __m512i codes = _mm512_loadu_si512(w + i);
            _mm_prefetch((const char *)w + i + EB_PREFETCH_BYTES, _MM_HINT_T0);
            hi = eb_dots(hi, codes, _mm512_loadu_si512(x->hi + i));
            lo = eb_dots(lo, codes, _mm512_loadu_si512(x->lo + i));
        }
        if (rest) {
            const __m512i codes = _mm512_maskz_loadu_epi8(rest, w + i);
            hi = eb_dots(hi, codes, _mm512_maskz_loadu_epi8(rest, x->hi + i));
            lo = eb_dots(lo, codes, _mm512_maskz_loadu_epi8(rest, x->lo + i));
        }
        y[n] = 128 * (_mm512_reduce_add_epi32(hi) - x_sum) + _mm512_reduce_add_epi32(lo);
    }
}
