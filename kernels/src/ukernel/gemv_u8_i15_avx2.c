/* gemv_u8_i15_avx2.c - an int8 head in plain rows for x86-64 with AVX2.
 * Products of bytes in pairs would not fit 16 bits (2 * 255 * 127), so codes are widened to 16 bits and meet the
 * activations as the 15 bits that they are: one VPMADDWD for 16 weights. The activations of a block of columns are put
 * together once for all rows. Row after row, so that memory is read as one stream. */
#include "lanes_avx2.h"
#include "ukernel.h"

/* 16 columns add at most 2 * 255 * 16256 to an int32 lane, and 4096 / 16 * 2 * 255 * 16256 < 2^31. */
enum { BLOCK_COLUMNS = 4096 };

/* q = 128 * hi + lo */
static inline __attribute__((always_inline)) void join_planes(int16_t *q, const int8_t *hi, const int8_t *lo,
                                                              size_t k) {
    for (size_t i = 0; i < k; i += 16) {
        const __m256i high = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(hi + i)));
        const __m256i low = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(lo + i)));
        _mm256_store_si256((__m256i *)(q + i), _mm256_add_epi16(_mm256_slli_epi16(high, 7), low));
    }
}

static inline __attribute__((always_inline)) __m256i products(const uint8_t *w, const int16_t *q) {
    const __m256i codes = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)w));
    return _mm256_madd_epi16(codes, _mm256_load_si256((const __m256i *)q));
}

/* The sum of eight int32. */
static inline __attribute__((always_inline)) int64_t total(__m256i acc) {
    const __m256i low = _mm256_cvtepi32_epi64(_mm256_castsi256_si128(acc));
    const __m256i four = _mm256_add_epi64(low, _mm256_cvtepi32_epi64(_mm256_extracti128_si256(acc, 1)));
    const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
    return _mm_cvtsi128_si64(two) + _mm_extract_epi64(two, 1);
}

static inline __attribute__((always_inline)) int64_t dot(const uint8_t *w, const int16_t *q, size_t k) {
    __m256i acc = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 64 <= k; i += 64) {
        eb_prefetch(w + i);
#pragma GCC unroll 4
        for (size_t p = i; p < i + 64; p += 16)
            acc = _mm256_add_epi32(acc, products(w + p, q + p));
    }
    for (; i < k; i += 16)
        acc = _mm256_add_epi32(acc, products(w + i, q + i));
    return total(acc);
}

void eb_gemv_u8_i15_avx2(int64_t *restrict y, const uint8_t *restrict w, const eb_i15 *restrict x, int64_t x_sum,
                         size_t w_stride, size_t rows, size_t k) {
    for (size_t begin = 0; begin < k; begin += BLOCK_COLUMNS) {
        const size_t width = k - begin < BLOCK_COLUMNS ? k - begin : BLOCK_COLUMNS;
        _Alignas(32) int16_t q[BLOCK_COLUMNS];
        join_planes(q, x->hi + begin, x->lo + begin, width);
        for (size_t n = 0; n < rows; n++)
            y[n] = (begin ? y[n] : -128 * x_sum) + dot(w + n * w_stride + begin, q, width);
    }
}
