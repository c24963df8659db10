/* gemm_c8_i8_avxvnni.c - prefill GEMM for x86-64 with AVX-VNNI.
 * One tile and six tokens go together: twelve accumulators, two registers of codes, one of activations. */
#include "fields_avxvnni.h"
#include "gemm_operands.h"
#include "ukernel.h"

enum { TOKENS = 6 };

/* `n_tokens`, 1 to TOKENS: a constant where this is inlined. */
static inline __attribute__((always_inline)) void block(const operands *o, int n_tokens) {
    __m256i acc[TOKENS][2];
    for (int t = 0; t < n_tokens; t++)
        acc[t][0] = acc[t][1] = _mm256_setzero_si256();
    for (size_t i = 0; i < o->k; i += 16) {
        const __m256i rows01 = eb_load256(o->codes + 4 * i), rows23 = eb_load256(o->codes + 4 * i + 32);
        for (int t = 0; t < n_tokens; t++) {
            const __m256i x = eb_both_lanes(o->x + (size_t)t * o->x_stride + i);
            acc[t][0] = eb_dots(acc[t][0], rows01, x);
            acc[t][1] = eb_dots(acc[t][1], rows23, x);
        }
    }
    for (int t = 0; t < n_tokens; t++)
        _mm_storeu_si128((__m128i *)(o->y + (size_t)t * o->y_stride),
                         _mm_sub_epi32(eb_four_sums(acc[t][0], acc[t][1]), _mm_set1_epi32(o->x_sum[t])));
}

void eb_gemm_c8_i8_avxvnni(int32_t *restrict y, size_t y_stride, const uint8_t *restrict codes,
                           const int8_t *restrict x, size_t x_stride, const int32_t *restrict x_sum, size_t rows,
                           size_t k, size_t n_tokens) {
    for (size_t n = 0; n < rows; n += EB_TILE_ROWS)
        for (size_t t = 0; t < n_tokens; t += TOKENS) {
            const operands o = {
                y + t * y_stride + n, codes + n * k, x + t * x_stride, x_sum + t, y_stride, x_stride, k};
            switch (n_tokens - t) {
            case 1:
                block(&o, 1);
                break;
            case 2:
                block(&o, 2);
                break;
            case 3:
                block(&o, 3);
                break;
            case 4:
                block(&o, 4);
                break;
            case 5:
                block(&o, 5);
                break;
            default:
                block(&o, TOKENS);
            }
        }
}
