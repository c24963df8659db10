/* lanes_avx512.h - what the AVX-512 micro-kernels share: a register is a tile, a 128-bit lane one of its four rows. */
#ifndef EB_LANES_AVX512_H
#define EB_LANES_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* Weights are prefetched this far ahead: over the end of a page, where the hardware's prefetchers stop. */
enum { EB_PREFETCH_BYTES = 8192 };

/* 16 activations for all four rows. */
static inline __attribute__((always_inline)) __m512i eb_all_lanes(const int8_t *x) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)x));
}

/* acc += codes (unsigned) times x (signed), four products to an int32. As assembly, since gcc 12 makes the intrinsic a copy
 * of the accumulator and more: a GEMM's 24 accumulators then go through the stack, at two fifths of the speed. */
static inline __attribute__((always_inline)) __m512i eb_dots(__m512i acc, __m512i codes, __m512i x) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(x));
    return acc;
}

/* The sum of each lane's four int32, one lane after the other. */
static inline __attribute__((always_inline)) __m128i eb_lane_sums(__m512i acc) {
    acc = _mm512_add_epi32(acc, _mm512_shuffle_epi32(acc, 0x4e));
    acc = _mm512_add_epi32(acc, _mm512_shuffle_epi32(acc, 0xb1));
    return _mm512_castsi512_si128(_mm512_maskz_compress_epi32(0x1111, acc));
}

/* Sums of two-bit codes that are multiplied where they stand in a byte, in bits 1:0, 3:2, 5:4 and 7:6: masked, not
 * shifted, so each place has an accumulator of its own. */
typedef struct eb_fields {
    __m512i at0, at2, at4, at6;
} eb_fields;

/* sum[t] += the codes in bits 5:0 of each byte times 3 x 16 activations of token t */
static inline __attribute__((always_inline)) void eb_add_three_tokens(eb_fields *sum, __m512i codes, const int8_t *x,
                                                                      size_t x_stride, int n_tokens) {
    const __m512i at0 = _mm512_and_si512(codes, _mm512_set1_epi8(0x03));
    const __m512i at2 = _mm512_and_si512(codes, _mm512_set1_epi8(0x0c));
    const __m512i at4 = _mm512_and_si512(codes, _mm512_set1_epi8(0x30));
    for (int t = 0; t < n_tokens; t++, x += x_stride) {
        sum[t].at0 = eb_dots(sum[t].at0, at0, eb_all_lanes(x));
        sum[t].at2 = eb_dots(sum[t].at2, at2, eb_all_lanes(x + 16));
        sum[t].at4 = eb_dots(sum[t].at4, at4, eb_all_lanes(x + 32));
    }
}

/* sum[t] += a tile of layout t2 times 64 activations of token t */
static inline __attribute__((always_inline)) void
eb_add_tile_t2_tokens(eb_fields *sum, const uint8_t *w, const int8_t *x, size_t x_stride, int n_tokens) {
    const __m512i codes = _mm512_loadu_si512(w), at6 = _mm512_and_si512(codes, _mm512_set1_epi8((char)0xc0));
    _mm_prefetch((const char *)w + EB_PREFETCH_BYTES, _MM_HINT_T0);
    eb_add_three_tokens(sum, codes, x, x_stride, n_tokens);
    for (int t = 0; t < n_tokens; t++, x += x_stride)
        sum[t].at6 = eb_dots(sum[t].at6, at6, eb_all_lanes(x + 48));
}

/* The same for one token. */
static inline __attribute__((always_inline)) void eb_add_three(eb_fields *sum, __m512i codes, const int8_t *x) {
    eb_add_three_tokens(sum, codes, x, 0, 1);
}

static inline __attribute__((always_inline)) void eb_add_tile_t2(eb_fields *sum, const uint8_t *w, const int8_t *x) {
    eb_add_tile_t2_tokens(sum, w, x, 0, 1);
}

/* The sums of all places. Those of the higher ones are multiples of what is shifted away. */
static inline __attribute__((always_inline)) __m512i eb_fields_sum(const eb_fields *sum) {
    return _mm512_add_epi32(_mm512_add_epi32(sum->at0, _mm512_srai_epi32(sum->at2, 2)),
                            _mm512_add_epi32(_mm512_srai_epi32(sum->at4, 4), _mm512_srai_epi32(sum->at6, 6)));
}

/* Stores the sums of a tile's four rows, less `x_sum`. */
static inline __attribute__((always_inline)) void eb_store_sums(int32_t *y, __m512i acc, int32_t x_sum) {
    _mm_storeu_si128((__m128i *)y, _mm_sub_epi32(eb_lane_sums(acc), _mm_set1_epi32(x_sum)));
}

#endif
