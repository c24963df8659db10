/* peak_i8_avxvnni.c - VPDPBUSD for each 32 products, on eight accumulators. forget() is no instruction: the compiler
 * no longer knows what is in the two registers, so no product is left out as a repetition, and none is moved. */
#include "ukernel.h"

#include <immintrin.h>

enum { ACCUMULATORS = 8 };

static inline void forget(__m256i *operand, __m256i *sum) { __asm__("" : "+x"(*operand), "+x"(*sum)); }

uint32_t eb_peak_i8_avxvnni(const uint8_t a[64], const int8_t b[64], size_t n) {
    __m256i x[2], y[2], acc[ACCUMULATORS];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        x[i] = _mm256_loadu_si256((const __m256i *)(a + 32 * i));
        y[i] = _mm256_loadu_si256((const __m256i *)(b + 32 * i));
    }
#pragma GCC unroll 8
    for (int i = 0; i < ACCUMULATORS; i++)
        acc[i] = _mm256_setzero_si256();
    for (size_t round = 0; round < n; round++)
        for (int turn = 0; turn < EB_PEAK_MACS / 32 / ACCUMULATORS; turn++)
#pragma GCC unroll 8
            for (int i = 0; i < ACCUMULATORS; i++) {
                acc[i] = _mm256_dpbusd_avx_epi32(acc[i], x[i & 1], y[i & 1]);
                forget(&x[i & 1], &acc[i]);
            }
#pragma GCC unroll 8
    for (int i = 1; i < ACCUMULATORS; i++)
        acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(acc[0]), _mm256_extracti128_si256(acc[0], 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}
