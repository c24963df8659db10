/* attention.c - attention over a KV cache in float.
 *
 * Positions go in blocks that stay in the first-level cache, so that the query heads of one group read keys and values
 * from memory once. No result hangs on the block size: each score is one sum, and each output element takes its
 * positions in rising order. */
#include "ops.h"
#include "vec4.h"

enum { BLOCK = 32 }; /* positions */

static float dot(const float *a, const float *b, size_t n) {
    eb_sum16 sum = {{{0}}};
    for (size_t i = 0; i < n; i += 16)
        for (int p = 0; p < 4; p++)
            sum.part[p] += eb_f4_load(a + i + 4 * p) * eb_f4_load(b + i + 4 * p);
    return eb_sum16_total(&sum);
}

/* scores [n rounded up to 16] become e^(score - highest), zero in the filled-up part; their sum is given back */
static float exponentials(float *scores, size_t n) {
    const size_t padded = eb_round_up(n, 16);
    for (size_t t = n; t < padded; t++)
        scores[t] = -__builtin_inff();
    eb_f4 most = eb_f4_splat(-__builtin_inff());
    for (size_t t = 0; t < padded; t += 4)
        most = eb_f4_max(eb_f4_load(scores + t), most);
    const eb_f4 highest = eb_f4_splat(eb_f4_highest(most));
    eb_sum16 sum = {{{0}}};
    for (size_t t = 0; t < padded; t += 16)
        for (int p = 0; p < 4; p++) {
            const eb_f4 e = eb_f4_exp(eb_f4_load(scores + t + 4 * p) - highest);
            eb_f4_store(scores + t + 4 * p, e);
            sum.part[p] += e;
        }
    return eb_sum16_total(&sum);
}

/* acc [16] += weights[t] * values[t][0 .. 15] for t in 0 .. n-1, in that order */
static inline void add_weighted(float *acc, const float *weights, const float *values, size_t n, size_t stride) {
    eb_f4 a = eb_f4_load(acc), b = eb_f4_load(acc + 4), c = eb_f4_load(acc + 8), d = eb_f4_load(acc + 12);
    for (size_t t = 0; t < n; t++, values += stride) {
        const eb_f4 weight = eb_f4_splat(weights[t]);
        a += weight * eb_f4_load(values);
        b += weight * eb_f4_load(values + 4);
        c += weight * eb_f4_load(values + 8);
        d += weight * eb_f4_load(values + 12);
    }
    eb_f4_store(acc, a);
    eb_f4_store(acc + 4, b);
    eb_f4_store(acc + 8, c);
    eb_f4_store(acc + 12, d);
}

void eb_attention(float *out, const float *q, const float *keys, const float *values, float *scores, size_t n_q,
                  size_t n, size_t head_dim, size_t stride) {
    const size_t padded = eb_round_up(n, 16);
    const float scale = 1.0f / __builtin_sqrtf((float)head_dim);
    for (size_t block = 0; block < n; block += BLOCK) {
        const size_t end = block + BLOCK < n ? block + BLOCK : n;
        for (size_t h = 0; h < n_q; h++)
            for (size_t t = block; t < end; t++)
                scores[h * padded + t] = dot(q + h * stride, keys + t * stride, stride) * scale;
    }
    float *acc = scores + n_q * padded; /* [n_q][stride] */
    eb_memset(acc, 0, n_q * stride * sizeof *acc);
    for (size_t h = 0; h < n_q; h++)
        out[h * head_dim] = exponentials(scores + h * padded, n); /* their sum waits here */
    for (size_t block = 0; block < n; block += BLOCK) {
        const size_t count = block + BLOCK < n ? BLOCK : n - block;
        for (size_t h = 0; h < n_q; h++)
            for (size_t i = 0; i < stride; i += 16)
                add_weighted(acc + h * stride + i, scores + h * padded + block, values + block * stride + i, count,
                             stride);
    }
    for (size_t h = 0; h < n_q; h++) {
        const float total = out[h * head_dim];
        for (size_t i = 0; i < head_dim; i++)
            out[h * head_dim + i] = acc[h * stride + i] / total;
    }
}
