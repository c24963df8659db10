/* gemm_c8_i8_avx512vnni.c - prefill GEMM for x86-64 with AVX-512 VNNI.
 * 16 rows and 6 tokens go together: 24 accumulators, and for each 16 columns four registers of codes and six of
 * activations, ten loads for 24 VPDPBUSDs. The four int32 of a lane are added up once, at the end. */
#include "lanes_avx512.h"
#include "ukernel.h"

enum { TILES = 4, TOKENS = 6 };

/* What one call of the micro-kernel works on. */
typedef struct operands {
    int32_t *y;
    const uint8_t *codes;
    const int8_t *x;
    const int32_t *x_sum;
    size_t y_stride, x_stride, k;
} operands;

/* `n_tiles`, 1 or TILES, and `n_tokens`, 1 to TOKENS, are constants where this is inlined. */
static inline __attribute__((always_inline)) void block(const operands *o, int n_tiles, int n_tokens) {
    __m512i acc[TOKENS][TILES];
    for (int t = 0; t < n_tokens; t++)
        for (int tile = 0; tile < n_tiles; tile++)
            acc[t][tile] = _mm512_setzero_si512();
    for (size_t i = 0; i < o->k; i += 16) {
        __m512i codes[TILES];
        for (int tile = 0; tile < n_tiles; tile++)
            codes[tile] = _mm512_loadu_si512(o->codes + 4 * ((size_t)tile * o->k + i));
        for (int t = 0; t < n_tokens; t++) {
            const __m512i x = eb_all_lanes(o->x + (size_t)t * o->x_stride + i);
            for (int tile = 0; tile < n_tiles; tile++)
                acc[t][tile] = eb_dots(acc[t][tile], codes[tile], x);
        }
    }
    for (int t = 0; t < n_tokens; t++)
        for (int tile = 0; tile < n_tiles; tile++)
            _mm_storeu_si128((__m128i *)(o->y + (size_t)t * o->y_stride + tile * EB_TILE_ROWS),
                             _mm_sub_epi32(eb_lane_sums(acc[t][tile]), _mm_set1_epi32(o->x_sum[t])));
}

static inline __attribute__((always_inline)) void tokens_of(const operands *o, int n_tiles, size_t n_tokens) {
    switch (n_tokens) {
    case 1:
        block(o, n_tiles, 1);
        break;
    case 2:
        block(o, n_tiles, 2);
        break;
    case 3:
        block(o, n_tiles, 3);
        break;
    case 4:
        block(o, n_tiles, 4);
        break;
    case 5:
        block(o, n_tiles, 5);
        break;
    default:
        block(o, n_tiles, TOKENS);
    }
}

void eb_gemm_c8_i8_avx512vnni(int32_t *restrict y, size_t y_stride, const uint8_t *restrict codes,
                              const int8_t *restrict x, size_t x_stride, const int32_t *restrict x_sum, size_t rows,
                              size_t k, size_t n_tokens) {
    for (size_t n = 0; n < rows;) {
        const size_t step = rows - n >= TILES * EB_TILE_ROWS ? TILES * EB_TILE_ROWS : EB_TILE_ROWS;
        for (size_t t = 0; t < n_tokens; t += TOKENS) {
            const size_t left = n_tokens - t < TOKENS ? n_tokens - t : TOKENS;
            const operands o = {
                y + t * y_stride + n, codes + n * k, x + t * x_stride, x_sum + t, y_stride, x_stride, k};
            if (step > EB_TILE_ROWS)
                tokens_of(&o, TILES, left);
            else
                tokens_of(&o, 1, left);
        }
        n += step;
    }
}
