/* peak_i8_avx2.c - VPMADDUBSW and an addition for each 32 products, as the GEMVs have it: an int16 lane takes 32
 * products of pairs (2 * 3 * 128 = 768 each) before it is widened, every eighth round.
 * unknown() is no instruction: it hides from the compiler that an operand is the one from before, so that no product is
 * taken for a repetition. */
#include "ukernel.h"

#include <immintrin.h>

enum { ACCUMULATORS = 8, ROUNDS_PER_FLUSH = 8 };

static inline __m256i unknown(__m256i value) {
    __asm__("" : "+x"(value));
    return value;
}

uint32_t eb_peak_i8_avx2(const uint8_t a[64], const int8_t b[64], size_t n) {
    __m256i a0 = _mm256_loadu_si256((const __m256i *)a), a1 = _mm256_loadu_si256((const __m256i *)(a + 32));
    const __m256i b0 = _mm256_loadu_si256((const __m256i *)b), b1 = _mm256_loadu_si256((const __m256i *)(b + 32));
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i total = _mm256_setzero_si256();
    for (size_t round = 0; round < n;) {
        __m256i acc[ACCUMULATORS];
        for (int i = 0; i < ACCUMULATORS; i++)
            acc[i] = _mm256_setzero_si256();
        const size_t end = round + ROUNDS_PER_FLUSH < n ? round + ROUNDS_PER_FLUSH : n;
        for (; round < end; round++)
            for (int turn = 0; turn < EB_PEAK_MACS / 64 / ACCUMULATORS; turn++)
                for (int i = 0; i < ACCUMULATORS; i++) {
                    a0 = unknown(a0), a1 = unknown(a1);
                    acc[i] = _mm256_add_epi16(acc[i], _mm256_maddubs_epi16(a0, b0));
                    acc[i] = _mm256_add_epi16(acc[i], _mm256_maddubs_epi16(a1, b1));
                }
        for (int i = 0; i < ACCUMULATORS; i++)
            total = _mm256_add_epi32(total, _mm256_madd_epi16(acc[i], ones));
    }
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}
