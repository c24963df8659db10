/* gemm_c8_i8_avx512vnni.c - prefill GEMM for x86-64 with AVX-512 VNNI.
 * 24 accumulators: 16 rows and 6 tokens or, where few rows are unpacked together since they are long, 8 rows and 12 tokens. For
 * each 16 columns that is 10 or 14 loads for 24 VPDPBUSDs. The four int32 of a lane are added up once, at the end. */
#include "gemm_operands.h"
#include "lanes_avx512.h"
#include "ukernel.h"

enum { MAX_TILES = 4, MAX_TOKENS = 12 };

/* `n_tiles` and `n_tokens` are constants where this is inlined. */
static inline __attribute__((always_inline)) void block(const operands *o, int n_tiles, int n_tokens) {
    __m512i acc[MAX_TOKENS][MAX_TILES];
    for (int t = 0; t < n_tokens; t++)
        for (int tile = 0; tile < n_tiles; tile++)
            acc[t][tile] = _mm512_setzero_si512();
    for (size_t i = 0; i < o->k; i += 16) {
        __m512i codes[MAX_TILES];
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

/* As many of the n tokens as go into one block of `n_tiles`. */
static inline __attribute__((always_inline)) size_t tokens_of(const operands *o, int n_tiles, size_t n) {
    const size_t most = n_tiles == 4 ? 6 : 12;
    switch (n < most ? n : most) {
    case 1:
        block(o, n_tiles, 1);
        return 1;
    case 2:
        block(o, n_tiles, 2);
        return 2;
    case 3:
        block(o, n_tiles, 3);
        return 3;
    case 4:
    case 5:
        block(o, n_tiles, 4);
        return 4;
    case 6:
    case 7:
        block(o, n_tiles, 6);
        return 6;
    case 8:
    case 9:
    case 10:
    case 11:
        block(o, n_tiles, 8);
        return 8;
    default:
        block(o, n_tiles, 12);
        return 12;
    }
}

static inline __attribute__((always_inline)) void all_tokens(operands o, int n_tiles, size_t n_tokens) {
    while (n_tokens) {
        const size_t done = tokens_of(&o, n_tiles, n_tokens);
        o.y += done * o.y_stride;
        o.x += done * o.x_stride;
        o.x_sum += done;
        n_tokens -= done;
    }
}

void eb_gemm_c8_i8_avx512vnni(int32_t *restrict y, size_t y_stride, const uint8_t *restrict codes,
                              const int8_t *restrict x, size_t x_stride, const int32_t *restrict x_sum, size_t rows,
                              size_t k, size_t n_tokens) {
    for (size_t n = 0; n < rows;) {
        const size_t n_tiles = (rows - n) / EB_TILE_ROWS;
        const operands o = {y + n, codes + n * k, x, x_sum, y_stride, x_stride, k};
        if (n_tiles >= 4) {
            all_tokens(o, 4, n_tokens);
            n += 4 * EB_TILE_ROWS;
        } else if (n_tiles >= 2) {
            all_tokens(o, 2, n_tokens);
            n += 2 * EB_TILE_ROWS;
        } else {
            all_tokens(o, 1, n_tokens);
            n += EB_TILE_ROWS;
        }
    }
}
