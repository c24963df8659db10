/* gemv_t2_i8_avx2.c - decode GEMV for x86-64 with AVX2 (Haswell, Zen and later).
 * A 128-bit lane holds one row: two rows' 16-byte blocks fill a register, and the 16 activations that belong to one
 * two-bit field are broadcast to both lanes, so four shifts feed four VPMADDUBSWs with no shuffle. Eight rows go
 * together, so each broadcast serves four registers of weights. A VPMADDUBSW lane is at most 2 * 3 * 128 = 768, also
 * with the code 3 that a damaged file may hold, and a block adds four of them: int16 lanes take 8 blocks (24,576), and
 * are then widened.
 * The next eight rows are prefetched at the same columns, half of them at each block: rows are short, and the hardware's
 * prefetchers begin anew at each. Past the last row a prefetch is lost and harms nothing. */
#include "ukernel.h"

#include <immintrin.h>

enum { BLOCKS_PER_FLUSH = 8 };

static inline __m256i two_rows(const uint8_t *even, const uint8_t *odd) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)even)),
                                   _mm_loadu_si128((const __m128i *)odd), 1);
}

static inline __m256i both_lanes(const int8_t *x) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)x));
}

static inline __m256i block_sums(__m256i codes, __m256i x0, __m256i x1, __m256i x2, __m256i x3) {
    const __m256i low2 = _mm256_set1_epi8(3);
    const __m256i a = _mm256_maddubs_epi16(_mm256_and_si256(codes, low2), x0);
    const __m256i b = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(codes, 2), low2), x1);
    const __m256i c = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(codes, 4), low2), x2);
    const __m256i d = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(codes, 6), low2), x3);
    return _mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_add_epi16(c, d));
}

/* Sums of the low and of the high lane. */
static inline void store_two(int32_t *y0, int32_t *y1, __m256i acc, int32_t x_sum) {
    acc = _mm256_add_epi32(acc, _mm256_shuffle_epi32(acc, 0x4e));
    acc = _mm256_add_epi32(acc, _mm256_shuffle_epi32(acc, 0xb1));
    *y0 = _mm256_extract_epi32(acc, 0) - x_sum;
    *y1 = _mm256_extract_epi32(acc, 4) - x_sum;
}

static void eight_rows(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                       size_t k) {
    const __m256i ones = _mm256_set1_epi16(1);
    const size_t row = k / 4;
    __m256i acc0 = _mm256_setzero_si256(), acc1 = acc0, acc2 = acc0, acc3 = acc0;
    for (size_t i = 0; i < k;) {
        __m256i part0 = _mm256_setzero_si256(), part1 = part0, part2 = part0, part3 = part0;
        const size_t end = i + 64 * BLOCKS_PER_FLUSH < k ? i + 64 * BLOCKS_PER_FLUSH : k;
        for (; i < end; i += 64, w += 16) {
            for (size_t r = 0; r < 8; r += 2)
                _mm_prefetch((const char *)(w + (8 + r + (i / 64 & 1)) * row), _MM_HINT_T0);
            const __m256i x0 = both_lanes(x + i), x1 = both_lanes(x + i + 16);
            const __m256i x2 = both_lanes(x + i + 32), x3 = both_lanes(x + i + 48);
            part0 = _mm256_add_epi16(part0, block_sums(two_rows(w, w + row), x0, x1, x2, x3));
            part1 = _mm256_add_epi16(part1, block_sums(two_rows(w + 2 * row, w + 3 * row), x0, x1, x2, x3));
            part2 = _mm256_add_epi16(part2, block_sums(two_rows(w + 4 * row, w + 5 * row), x0, x1, x2, x3));
            part3 = _mm256_add_epi16(part3, block_sums(two_rows(w + 6 * row, w + 7 * row), x0, x1, x2, x3));
        }
        acc0 = _mm256_add_epi32(acc0, _mm256_madd_epi16(part0, ones));
        acc1 = _mm256_add_epi32(acc1, _mm256_madd_epi16(part1, ones));
        acc2 = _mm256_add_epi32(acc2, _mm256_madd_epi16(part2, ones));
        acc3 = _mm256_add_epi32(acc3, _mm256_madd_epi16(part3, ones));
    }
    store_two(y, y + 1, acc0, x_sum);
    store_two(y + 2, y + 3, acc1, x_sum);
    store_two(y + 4, y + 5, acc2, x_sum);
    store_two(y + 6, y + 7, acc3, x_sum);
}

/* One row in both lanes' place: the second lane computes the same and is dropped. */
static void one_row(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum, size_t k) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i acc = _mm256_setzero_si256();
    for (size_t i = 0; i < k; i += 64, w += 16) {
        const __m256i sums = block_sums(two_rows(w, w), both_lanes(x + i), both_lanes(x + i + 16),
                                        both_lanes(x + i + 32), both_lanes(x + i + 48));
        acc = _mm256_add_epi32(acc, _mm256_madd_epi16(sums, ones));
    }
    int32_t dropped;
    store_two(y, &dropped, acc, x_sum);
}

void eb_gemv_t2_i8_avx2(int32_t *restrict y, const uint8_t *restrict w, const int8_t *restrict x, int32_t x_sum,
                        size_t rows, size_t k) {
    size_t n = 0;
    for (; n + 8 <= rows; n += 8)
        eight_rows(y + n, w + n * (k / 4), x, x_sum, k);
    for (; n < rows; n++)
        one_row(y + n, w + n * (k / 4), x, x_sum, k);
}
