/* peak_i8_avx512vnni.c - VPDPBUSD for each 64 products, on sixteen accumulators. forget() is no instruction: the
 * compiler no longer knows what is in the two registers, so no product is left out as a repetition, and none is moved. */
#include "ukernel.h"

#include <immintrin.h>

enum { ACCUMULATORS = EB_PEAK_MACS / 64 };

static inline void forget(__m512i *operand, __m512i *sum) { __asm__("" : "+v"(*operand), "+v"(*sum)); }

uint32_t eb_peak_i8_avx512vnni(const uint8_t a[64], const int8_t b[64], size_t n) {
    __m512i x = _mm512_loadu_si512(a);
    const __m512i y = _mm512_loadu_si512(b);
    __m512i acc[ACCUMULATORS];
#pragma GCC unroll 16
    for (int i = 0; i < ACCUMULATORS; i++)
        acc[i] = _mm512_setzero_si512();
    for (size_t round = 0; round < n; round++)
#pragma GCC unroll 16
        for (int i = 0; i < ACCUMULATORS; i++) {
            acc[i] = _mm512_dpbusd_epi32(acc[i], x, y);
            forget(&x, &acc[i]);
        }
#pragma GCC unroll 16
    for (int i = 1; i < ACCUMULATORS; i++)
        acc[0] = _mm512_add_epi32(acc[0], acc[i]);
    return (uint32_t)_mm512_reduce_add_epi32(acc[0]);
}
