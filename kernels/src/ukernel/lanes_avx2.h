/* lanes_avx2.h - what the AVX2 and AVX-VNNI micro-kernels share: a tile is two registers of two rows, a row a lane. */
#ifndef EB_LANES_AVX2_H
#define EB_LANES_AVX2_H

#include <immintrin.h>
#include <stdint.h>

/* Weights are prefetched this far ahead: over the end of a page, where the hardware's prefetchers stop. */
enum { EB_PREFETCH_BYTES = 8192 };

static inline __attribute__((always_inline)) __m256i eb_load256(const uint8_t *from) {
    return _mm256_loadu_si256((const __m256i *)from);
}

/* 16 activations for both rows. */
static inline __attribute__((always_inline)) __m256i eb_both_lanes(const int8_t *x) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)x));
}

static inline __attribute__((always_inline)) void eb_prefetch(const uint8_t *w) {
    _mm_prefetch((const char *)w + EB_PREFETCH_BYTES, _MM_HINT_T0);
}

/* The sums of the four int32 of each lane: rows 0 and 1 in `first`, 2 and 3 in `second`. */
static inline __attribute__((always_inline)) __m128i eb_four_sums(__m256i first, __m256i second) {
    const __m256i pairs = _mm256_hadd_epi32(first, second);
    const __m256i sums = _mm256_hadd_epi32(pairs, pairs); /* low lane: rows 0, 2, 0, 2; high lane: rows 1, 3, 1, 3 */
    return _mm_unpacklo_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
}

/* Sums in int16 lanes, added in pairs to int32. */
static inline __attribute__((always_inline)) __m256i eb_widened_sum(__m256i acc, __m256i part) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(part, _mm256_set1_epi16(1)));
}

#endif
