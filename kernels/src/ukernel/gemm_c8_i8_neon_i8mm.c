/* gemm_c8_i8_neon_i8mm.c - prefill GEMM for cores with FEAT_I8MM (Cortex-A510, A710, Neoverse V1 and later).
 * SMMLA multiplies 8 columns of two rows with those of two tokens: twice the products of an SDOT, once pairs of rows and
 * of tokens lie side by side. Two tiles and eight tokens go together: 16 accumulators, 32 SMMLAs for 16 ZIPs. */
#include "lanes_neon.h"
#include "ukernel.h"

enum { TILES = 2, PAIRS = 4 };

/* What one call of the micro-kernel works on. */
typedef struct operands {
    int32_t *y;
    const uint8_t *codes;
    const int8_t *x;
    const int32_t *x_sum;
    size_t y_stride, x_stride, k, n_tokens;
} operands;

/* 16 columns of two rows or two tokens: the first 8 of both, then the others. */
typedef struct pair {
    int8x16_t first, second;
} pair;

static inline __attribute__((always_inline)) pair side_by_side(const int8_t *a, const int8_t *b) {
    const int64x2_t x = vreinterpretq_s64_s8(vld1q_s8(a)), y = vreinterpretq_s64_s8(vld1q_s8(b));
    return (pair){vreinterpretq_s8_s64(vzip1q_s64(x, y)), vreinterpretq_s8_s64(vzip2q_s64(x, y))};
}

/* `n_tiles`, 1 or TILES, and `n_pairs` of tokens, 1 to PAIRS, are constants where this is inlined. Of an odd number of
 * tokens the last is a pair with itself. */
static inline __attribute__((always_inline)) void block(const operands *o, size_t n_tiles, size_t n_pairs) {
    int32x4_t acc[PAIRS][2 * TILES]; /* token 0 with rows 0 and 1, token 1 with rows 0 and 1 */
    const int8_t *x[2 * PAIRS];
    for (size_t p = 0; p < n_pairs; p++)
        for (size_t r = 0; r < 2 * n_tiles; r++)
            acc[p][r] = vdupq_n_s32(0);
    for (size_t t = 0; t < 2 * n_pairs; t++)
        x[t] = o->x + (t < o->n_tokens ? t : t - 1) * o->x_stride;
    for (size_t i = 0; i < o->k; i += 16) {
        pair rows[2 * TILES];
        for (size_t r = 0; r < 2 * n_tiles; r++) {
            const int8_t *codes = (const int8_t *)o->codes + 4 * (r / 2 * o->k + i) + r % 2 * 32;
            rows[r] = side_by_side(codes, codes + 16);
        }
        for (size_t p = 0; p < n_pairs; p++) {
            eb_in_this_order();
            const pair tokens = side_by_side(x[2 * p] + i, x[2 * p + 1] + i);
            for (size_t r = 0; r < 2 * n_tiles; r++) {
                acc[p][r] = vmmlaq_s32(acc[p][r], tokens.first, rows[r].first);
                acc[p][r] = vmmlaq_s32(acc[p][r], tokens.second, rows[r].second);
            }
        }
    }
    for (size_t t = 0; t < 2 * n_pairs && t < o->n_tokens; t++)
        for (size_t tile = 0; tile < n_tiles; tile++) {
            const int64x2_t rows01 = vreinterpretq_s64_s32(acc[t / 2][2 * tile]);
            const int64x2_t rows23 = vreinterpretq_s64_s32(acc[t / 2][2 * tile + 1]);
            const int64x2_t sums = t % 2 ? vzip2q_s64(rows01, rows23) : vzip1q_s64(rows01, rows23);
            vst1q_s32(o->y + t * o->y_stride + tile * EB_TILE_ROWS,
                      vsubq_s32(vreinterpretq_s32_s64(sums), vdupq_n_s32(o->x_sum[t])));
        }
}

static inline __attribute__((always_inline)) void tokens_of(const operands *o, size_t n_tiles) {
    if (o->n_tokens > 6)
        block(o, n_tiles, 4);
    else if (o->n_tokens > 4)
        block(o, n_tiles, 3);
    else if (o->n_tokens > 2)
        block(o, n_tiles, 2);
    else
        block(o, n_tiles, 1);
}

void eb_gemm_c8_i8_neon_i8mm(int32_t *restrict y, size_t y_stride, const uint8_t *restrict codes,
                             const int8_t *restrict x, size_t x_stride, const int32_t *restrict x_sum, size_t rows,
                             size_t k, size_t n_tokens) {
    for (size_t n = 0; n < rows;) {
        const size_t step = rows - n >= TILES * EB_TILE_ROWS ? TILES * EB_TILE_ROWS : EB_TILE_ROWS;
        for (size_t t = 0; t < n_tokens; t += 2 * PAIRS) {
            const operands o = {y + t * y_stride + n, codes + n * k, x + t * x_stride, x_sum + t, y_stride, x_stride, k,
                                n_tokens - t};
            if (step > EB_TILE_ROWS)
                tokens_of(&o, TILES);
            else
                tokens_of(&o, 1);
        }
        n += step;
    }
}
