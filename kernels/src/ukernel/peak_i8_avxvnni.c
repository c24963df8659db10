/* peak_i8_avxvnni.c - VPDPBUSD for each 32 products, on eight accumulators. unknown() is no instruction: it hides from
 * the compiler that an operand is the one from before, so that no product is taken for a repetition. */
#include "ukernel.h"

#include <immintrin.h>

enum { ACCUMULATORS = 8 };

static inline __m256i unknown(__m256i value) {
    __asm__("" : "+x"(value));
    return value;
}

uint32_t eb_peak_i8_avxvnni(const uint8_t a[64], const int8_t b[64], size_t n) {
    __m256i x[2], y[2], acc[ACCUMULATORS];
    for (int i = 0; i < 2; i++) {
        x[i] = _mm256_loadu_si256((const __m256i *)(a + 32 * i));
        y[i] = _mm256_loadu_si256((const __m256i *)(b + 32 * i));
    }
    for (int i = 0; i < ACCUMULATORS; i++)
        acc[i] = _mm256_setzero_si256();
    for (size_t round = 0; round < n; round++)
        for (int turn = 0; turn < EB_PEAK_MACS / 64; turn++)
            for (int i = 0; i < 2; i++) {
                __m256i *sum = &acc[(2 * turn + i) % ACCUMULATORS];
                x[i] = unknown(x[i]);
                *sum = _mm256_dpbusd_avx_epi32(*sum, x[i], y[i]);
            }
    for (int i = 1; i < ACCUMULATORS; i++)
        acc[0] = _mm256_add_epi32(acc[0], acc[i]);
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(acc[0]), _mm256_extracti128_si256(acc[0], 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}
