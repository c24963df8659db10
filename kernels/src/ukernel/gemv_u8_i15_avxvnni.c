/* gemv_u8_i15_avxvnni.c - an int8 head in plain rows for x86-64 with AVX-VNNI.
 * 32 columns meet both planes of the activations: two VPDPBUSDs for 32 weights. Row after row, so that memory is read as
 * one stream. */
#include "fields_avxvnni.h"
#include "ukernel.h"

typedef struct planes {
    __m256i hi, lo;
} planes;

static inline __attribute__((always_inline)) __m256i load(const int8_t *x) {
    return _mm256_loadu_si256((const __m256i *)x);
}

static inline __attribute__((always_inline)) void add_columns(planes *sum, const uint8_t *w, const eb_i15 *x,
                                                              size_t i) {
    const __m256i codes = eb_load256(w + i);
    sum->hi = eb_dots(sum->hi, codes, load(x->hi + i));
    sum->lo = eb_dots(sum->lo, codes, load(x->lo + i));
}

/* 16 columns; the upper lanes are any, and meet zeros. */
static inline __attribute__((always_inline)) void add_last(planes *sum, const uint8_t *w, const eb_i15 *x, size_t i) {
    const __m256i codes = _mm256_zextsi128_si256(_mm_loadu_si128((const __m128i *)(w + i)));
    sum->hi = eb_dots(sum->hi, codes, eb_both_lanes(x->hi + i));
    sum->lo = eb_dots(sum->lo, codes, eb_both_lanes(x->lo + i));
}

static inline __attribute__((always_inline)) int32_t total(__m256i acc) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(acc), _mm256_extracti128_si256(acc, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

void eb_gemv_u8_i15_avxvnni(int64_t *restrict y, const uint8_t *restrict w, const eb_i15 *restrict x, int64_t x_sum,
                            size_t w_stride, size_t rows, size_t k) {
    for (size_t n = 0; n < rows; n++, w += w_stride) {
        planes even = {0}, odd = {0}; /* a VPDPBUSD waits for the one before it */
        size_t i = 0;
        for (; i + 64 <= k; i += 64) {
            eb_prefetch(w + i);
            add_columns(&even, w, x, i);
            add_columns(&odd, w, x, i + 32);
        }
        if (i + 32 <= k) {
            add_columns(&even, w, x, i);
            i += 32;
        }
        if (i < k)
            add_last(&odd, w, x, i);
        const int64_t hi = total(_mm256_add_epi32(even.hi, odd.hi));
        y[n] = 128 * (hi - x_sum) + total(_mm256_add_epi32(even.lo, odd.lo));
    }
}
