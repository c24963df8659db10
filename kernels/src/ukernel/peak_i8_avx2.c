/* peak_i8_avx2.c - VPMADDUBSW and an addition for each 32 products, as the GEMVs have it: an int16 lane takes 32
 * products of pairs (2 * 3 * 128 = 768 each) before it is widened, every eighth round. forget() is no instruction: the
 * compiler no longer knows what is in the two registers, so no product is left out as a repetition, and none is moved. */
#include "ukernel.h"

#include <immintrin.h>

enum { ACCUMULATORS = 8, ROUNDS_PER_FLUSH = 8 };

static inline void forget(__m256i *operand, __m256i *sum) { __asm__("" : "+x"(*operand), "+x"(*sum)); }

uint32_t eb_peak_i8_avx2(const uint8_t a[64], const int8_t b[64], size_t n) {
    __m256i a0 = _mm256_loadu_si256((const __m256i *)a), a1 = _mm256_loadu_si256((const __m256i *)(a + 32));
    const __m256i b0 = _mm256_loadu_si256((const __m256i *)b), b1 = _mm256_loadu_si256((const __m256i *)(b + 32));
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i total = _mm256_setzero_si256();
    for (size_t round = 0; round < n;) {
        __m256i acc[ACCUMULATORS];
#pragma GCC unroll 8
        for (int i = 0; i < ACCUMULATORS; i++)
            acc[i] = _mm256_setzero_si256();
        const size_t end = round + ROUNDS_PER_FLUSH < n ? round + ROUNDS_PER_FLUSH : n;
        for (; round < end; round++)
            for (int turn = 0; turn < EB_PEAK_MACS / 64 / ACCUMULATORS; turn++)
#pragma GCC unroll 8
                for (int i = 0; i < ACCUMULATORS; i++) {
                    acc[i] = _mm256_add_epi16(acc[i], _mm256_maddubs_epi16(a0, b0));
                    forget(&a0, &acc[i]);
                    acc[i] = _mm256_add_epi16(acc[i], _mm256_maddubs_epi16(a1, b1));
                    forget(&a1, &acc[i]);
                }
#pragma GCC unroll 8
        for (int i = 0; i < ACCUMULATORS; i++)
            total = _mm256_add_epi32(total, _mm256_madd_epi16(acc[i], ones));
    }
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}
