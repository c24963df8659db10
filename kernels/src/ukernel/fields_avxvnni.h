/* fields_avxvnni.h - sums of two-bit codes for the AVX-VNNI micro-kernels: two rows in a register. */
#ifndef EB_FIELDS_AVXVNNI_H
#define EB_FIELDS_AVXVNNI_H

#include "lanes_avx2.h"

/* acc += codes (unsigned) times x (signed), four products to an int32. As assembly, since gcc 12 makes the intrinsic a copy
 * of the accumulator and more. {vex} tells it from the AVX-512 form. */
static inline __attribute__((always_inline)) __m256i eb_dots(__m256i acc, __m256i codes, __m256i x) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(codes), "x"(x));
    return acc;
}

/* Codes are multiplied where they stand in a byte, in bits 1:0, 3:2, 5:4 and 7:6: masked, not shifted, so each place has
 * an accumulator of its own. */
typedef struct eb_fields {
    __m256i at0, at2, at4, at6;
} eb_fields;

/* sum += the codes in bits 5:0 of each byte times 3 x 16 activations */
static inline __attribute__((always_inline)) void eb_add_three(eb_fields *sum, __m256i codes, const int8_t *x) {
    sum->at0 = eb_dots(sum->at0, _mm256_and_si256(codes, _mm256_set1_epi8(0x03)), eb_both_lanes(x));
    sum->at2 = eb_dots(sum->at2, _mm256_and_si256(codes, _mm256_set1_epi8(0x0c)), eb_both_lanes(x + 16));
    sum->at4 = eb_dots(sum->at4, _mm256_and_si256(codes, _mm256_set1_epi8(0x30)), eb_both_lanes(x + 32));
}

/* sum += two rows of a tile of layout t2 times its 64 activations */
static inline __attribute__((always_inline)) void eb_add_tile_t2(eb_fields *sum, __m256i codes, const int8_t *x) {
    eb_add_three(sum, codes, x);
    sum->at6 = eb_dots(sum->at6, _mm256_and_si256(codes, _mm256_set1_epi8((char)0xc0)), eb_both_lanes(x + 48));
}

/* The sums of all places. Those of the higher places are multiples of what is shifted away. */
static inline __attribute__((always_inline)) __m256i eb_fields_total(const eb_fields *sum) {
    const __m256i low = _mm256_add_epi32(sum->at0, _mm256_srai_epi32(sum->at2, 2));
    return _mm256_add_epi32(low, _mm256_add_epi32(_mm256_srai_epi32(sum->at4, 4), _mm256_srai_epi32(sum->at6, 6)));
}

#endif
