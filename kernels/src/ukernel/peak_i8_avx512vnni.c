/* peak_i8_avx512vnni.c - VPDPBUSD for each 64 products, on sixteen accumulators. unknown() is no instruction: it hides
 * from the compiler that an operand is the one from before, so that no product is taken for a repetition. */
#include "ukernel.h"

#include <immintrin.h>

enum { ACCUMULATORS = 16 };

static inline __m512i unknown(__m512i value) {
    __asm__("" : "+v"(value));
    return value;
}

uint32_t eb_peak_i8_avx512vnni(const uint8_t a[64], const int8_t b[64], size_t n) {
    __m512i x = _mm512_loadu_si512(a);
    const __m512i y = _mm512_loadu_si512(b);
    __m512i acc[ACCUMULATORS];
    for (int i = 0; i < ACCUMULATORS; i++)
        acc[i] = _mm512_setzero_si512();
    for (size_t round = 0; round < n; round++)
        for (int i = 0; i < EB_PEAK_MACS / 64; i++) {
            x = unknown(x);
            acc[i % ACCUMULATORS] = _mm512_dpbusd_epi32(acc[i % ACCUMULATORS], x, y);
        }
    for (int i = 1; i < ACCUMULATORS; i++)
        acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    return (uint32_t)_mm512_reduce_add_epi32(acc[0]);
}
