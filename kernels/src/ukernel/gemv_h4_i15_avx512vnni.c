/* gemv_h4_i15_avx512vnni.c - the head's high plane for x86-64 with AVX-512 VNNI.
 * A tile is one register: 32 columns of four rows, which meet both planes of the activations: two masks, one shift and
 * four VPDPBUSDs for 128 weights. Two tiles in turn, since a VPDPBUSD waits for the one before it. */
#include "lanes_avx512.h"
#include "ukernel.h"

typedef struct planes {
    __m512i hi, lo;
} planes;

static inline __attribute__((always_inline)) void add_tile(planes *sum, const uint8_t *w, const eb_i15 *x, size_t i) {
    const __m512i codes = _mm512_loadu_si512(w), low4 = _mm512_set1_epi8(15);
    _mm_prefetch((const char *)w + EB_PREFETCH_BYTES, _MM_HINT_T0);
    const __m512i even = _mm512_and_si512(codes, low4), odd = _mm512_and_si512(_mm512_srli_epi16(codes, 4), low4);
    sum->hi = eb_dots(sum->hi, even, eb_all_lanes(x->hi + i));
    sum->lo = eb_dots(sum->lo, even, eb_all_lanes(x->lo + i));
    sum->hi = eb_dots(sum->hi, odd, eb_all_lanes(x->hi + i + 16));
    sum->lo = eb_dots(sum->lo, odd, eb_all_lanes(x->lo + i + 16));
}

void eb_gemv_h4_i15_avx512vnni(int64_t *restrict y, const uint8_t *restrict w, const eb_i15 *restrict x, size_t rows,
                               size_t k) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS) {
        planes first = {0}, second = {0};
        for (size_t i = 0; i < k; i += 64, w += 128) {
            add_tile(&first, w, x, i);
            add_tile(&second, w + 64, x, i + 32);
        }
        const __m128i hi = eb_lane_sums(_mm512_add_epi32(first.hi, second.hi));
        const __m128i lo = eb_lane_sums(_mm512_add_epi32(first.lo, second.lo));
        const __m256i wide = _mm256_slli_epi64(_mm256_cvtepi32_epi64(hi), 7);
        _mm256_storeu_si256((__m256i *)(y + n), _mm256_add_epi64(wide, _mm256_cvtepi32_epi64(lo)));
    }
}
