/* attend.h - the body of attention over one segment (contract in ukernel.h), once for all widths and types of KV cache:
 * ukernel/attend_<type>_<isa>.c sets
 *   EB_LANES, EB_ROWS, EB_GROUPS, EB_COLUMNS   floats in a vector; what is computed together, as far as registers reach:
 *                                              rows, groups of 16 positions (scores), vectors of a value (sums)
 *   EB_KV_F16_BODY, _I8_BODY or _F32_BODY      the type
 * and defines, for int8, key_dots(). Sums have one order at any width: a score adds its products in rising order of the
 * element, a sum of weighted values in rising order of the position. */
#include "ukernel.h"
#include "vec.h"

#if defined(EB_KV_F16_BODY)
typedef uint16_t kv_element;
EB_INLINE eb_vf load_elements(const kv_element *from) { return eb_v_load_f16(from); }
#elif defined(EB_KV_I8_BODY)
typedef int8_t kv_element;
EB_INLINE eb_vf load_elements(const kv_element *from) { return eb_v_load_i8(from); }
#else
typedef float kv_element;
EB_INLINE eb_vf load_elements(const kv_element *from) { return eb_v_load(from); }
#endif

#if defined(EB_KV_I8_BODY)
/* Queries quantised to 15 bits, q = 128 * hi + lo; [n_rows][pitch] in each. */
typedef struct attend_query {
    size_t n, pitch; /* elements that count, a multiple of 4, what is beyond head_dim being zero; of a row, in bytes */
    const unsigned char *q, *hi, *lo; /* q: int16 */
} attend_query;

/* dots [rows][EB_SEGMENT]: the exact products of `rows` queries from `row` on with the keys of one group. */
EB_INLINE void key_dots(int32_t *dots, const int8_t *keys, const attend_query *q, size_t row, const int rows);
#endif

EB_INLINE const unsigned char *group_of(const eb_attend *a, size_t position) {
    return a->groups + position / EB_KV_GROUP * a->kv.group_bytes;
}

/* ---- scores ---- */

#if !defined(EB_KV_I8_BODY)

/* Scores of `rows` rows from `row` on with the positions of `groups` groups from `position` on; constants where this is
 * inlined. The first rows fetch ahead, for themselves the keys of the groups that come next, past the last segment too,
 * which harms nothing, and for mix() the values of these: keys and values take turns in memory, so that hardware follows
 * neither. */
EB_INLINE void score_tile(const eb_attend *a, size_t row, size_t position, const int rows, const int groups,
                          const int ahead) {
    eb_vf score[EB_ROWS][EB_GROUPS * EB_VECTORS] = {{{0}}};
    const kv_element *keys = (const kv_element *)group_of(a, position);
    const size_t group_elements = a->kv.group_bytes / sizeof *keys, stride = a->kv.stride;
    const float *q = a->q + row * stride;
    for (size_t d = 0; d < a->kv.head_dim; d++, q++, keys += EB_KV_GROUP) {
        eb_vf key[EB_GROUPS * EB_VECTORS];
        for (int g = 0; g < groups && ahead; g++) {
            const char *at = (const char *)(keys + (size_t)g * group_elements);
            __builtin_prefetch(at + a->kv.values_at);
            __builtin_prefetch(at + (size_t)groups * a->kv.group_bytes);
        }
        for (int g = 0; g < groups; g++)
            for (int v = 0; v < EB_VECTORS; v++)
                key[g * EB_VECTORS + v] = load_elements(keys + (size_t)g * group_elements + v * EB_LANES);
        for (int r = 0; r < rows; r++) {
            const eb_vf x = eb_v_splat(q[(size_t)r * stride]);
            for (int v = 0; v < groups * EB_VECTORS; v++)
                score[r][v] += key[v] * x;
        }
    }
    float *to = a->scores + row * EB_SEGMENT + position;
    for (int r = 0; r < rows; r++, to += EB_SEGMENT)
        for (int v = 0; v < groups * EB_VECTORS; v++)
            eb_v_store(to + v * EB_LANES, score[r][v]);
}

EB_INLINE void score_groups(const eb_attend *a, size_t position, const int groups) {
    size_t row = 0;
    if (a->n_rows >= EB_ROWS)
        score_tile(a, row, position, EB_ROWS, groups, 1), row += EB_ROWS;
    for (; row + EB_ROWS <= a->n_rows; row += EB_ROWS)
        score_tile(a, row, position, EB_ROWS, groups, 0);
    for (; row < a->n_rows; row++)
        score_tile(a, row, position, 1, groups, 1);
}

/* Of all rows with positions 0 .. n-1, a multiple of EB_KV_GROUP. */
EB_INLINE void score_all(const eb_attend *a, size_t n) {
    size_t position = 0;
    for (; position + EB_GROUPS * EB_KV_GROUP <= n; position += EB_GROUPS * EB_KV_GROUP)
        score_groups(a, position, EB_GROUPS);
    for (; position < n; position += EB_KV_GROUP)
        score_groups(a, position, 1);
}

#endif

#if defined(EB_KV_I8_BODY)

EB_INLINE void dots_of_group(const eb_attend *a, const attend_query *q, size_t position) {
    const int8_t *keys = (const int8_t *)group_of(a, position);
    for (size_t at = 0; at < a->kv.scales_at + 128;
         at += 64) /* the values of this group and the keys of the next one */
        __builtin_prefetch(keys + a->kv.values_at + at);
    int32_t *dots = (int32_t *)a->scores + position;
    size_t row = 0;
    for (; row + EB_ROWS <= a->n_rows; row += EB_ROWS)
        key_dots(dots + row * EB_SEGMENT, keys, q, row, EB_ROWS);
    for (; row < a->n_rows; row++)
        key_dots(dots + row * EB_SEGMENT, keys, q, row, 1);
}

/* Quantises the queries, and gives their scales. */
EB_INLINE attend_query quantise_queries(const eb_attend *a, float *scale) {
    const size_t stride = a->kv.stride;
    unsigned char *to = (unsigned char *)a->q15;
    const attend_query query = {(a->kv.head_dim + 3) / 4 * 4, 4 * stride, to, to + 2 * stride, to + 3 * stride};
    for (size_t row = 0; row < a->n_rows; row++, to += 4 * stride) {
        const float *x = a->q + row * stride;
        const float most = eb_absmax(x, stride, 1e-20f), factor = 16256.0f / most;
        for (size_t i = 0; i < stride; i += 16) {
            eb_vi q[EB_VECTORS], high[EB_VECTORS], low[EB_VECTORS];
            for (int v = 0; v < EB_VECTORS; v++) {
                q[v] = eb_v_quantised(x + i + v * EB_LANES, factor, -16256.0f, 16256.0f);
                high[v] = (q[v] + 64) >> 7;
                low[v] = q[v] - (high[v] << 7);
            }
            eb_store16_i16((int16_t *)to + i, q);
            eb_store16_i8((int8_t *)to + 2 * stride + i, high);
            eb_store16_i8((int8_t *)to + 3 * stride + i, low);
        }
        scale[row] = most / 16256.0f;
    }
    return query;
}

EB_INLINE void score_all(const eb_attend *a, size_t n) {
    float scale[EB_ATTEND_ROWS];
    const attend_query q = quantise_queries(a, scale);
    for (size_t position = 0; position < n; position += EB_KV_GROUP) {
        dots_of_group(a, &q, position);
        const float *scales = (const float *)(group_of(a, position) + a->kv.scales_at);
        for (size_t row = 0; row < a->n_rows; row++)
            for (int v = 0; v < EB_VECTORS; v++) {
                float *score = a->scores + row * EB_SEGMENT + position + v * EB_LANES;
                const eb_vf dot = __builtin_convertvector(eb_vi_load((int32_t *)score), eb_vf);
                eb_v_store(score, dot * (eb_v_load(scales + v * EB_LANES) * scale[row]));
            }
    }
}

#endif

/* ---- softmax ---- */

/* The row's scores [n], made up to a multiple of 16, become e^(score - highest), times the value's scale for int8. */
EB_INLINE eb_softmax exponentials(const eb_attend *a, float *scores, size_t n) {
    const size_t padded = (n + 15) / 16 * 16;
    for (size_t t = n; t < padded; t++)
        scores[t] = -__builtin_inff();
    eb_vf most[EB_VECTORS];
    for (int v = 0; v < EB_VECTORS; v++)
        most[v] = eb_v_splat(-__builtin_inff());
    for (size_t t = 0; t < padded; t += 16)
        for (int v = 0; v < EB_VECTORS; v++)
            most[v] = eb_v_max(eb_v_load(scores + t + v * EB_LANES), most[v]);
    for (int v = 1; v < EB_VECTORS; v++)
        most[0] = eb_v_max(most[v], most[0]);
    const float highest = eb_v_highest(most[0]);
    eb_sum16 sum = {{{0}}};
    for (size_t t = 0; t < padded; t += 16) {
#if defined(EB_KV_I8_BODY)
        const float *scales = (const float *)(group_of(a, t) + a->kv.scales_at) + EB_KV_GROUP;
#else
        (void)a;
#endif
        for (int v = 0; v < EB_VECTORS; v++) {
            eb_vf e = eb_v_exp(eb_v_load(scores + t + v * EB_LANES) - highest);
            sum.part[v] += e;
#if defined(EB_KV_I8_BODY)
            e *= eb_v_load(scales + v * EB_LANES);
#endif
            eb_v_store(scores + t + v * EB_LANES, e);
        }
    }
    return (eb_softmax){highest, eb_sum16_total(&sum)};
}

/* ---- weighted values ---- */

/* Adds the values of positions begin .. end-1, weighted, to `columns` vectors of the sums of `rows` rows. */
EB_INLINE void mix_tile(const eb_attend *a, size_t row, size_t column, size_t begin, size_t end, const int rows,
                        const int columns) {
    const size_t stride = a->kv.stride;
    float *sums = a->sums + row * stride + column;
    eb_vf sum[EB_ROWS][EB_COLUMNS];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++)
            sum[r][c] = eb_v_load(sums + (size_t)r * stride + c * EB_LANES);
    for (size_t t = begin; t < end;) {
        const kv_element *values = (const kv_element *)(group_of(a, t) + a->kv.values_at);
        values += t % EB_KV_GROUP * stride + column;
        const size_t group_end = t - t % EB_KV_GROUP + EB_KV_GROUP, stop = group_end < end ? group_end : end;
        const float *weights = a->scores + row * EB_SEGMENT;
        for (; t < stop; t++, values += stride) {
            eb_vf value[EB_COLUMNS];
            for (int c = 0; c < columns; c++)
                value[c] = load_elements(values + c * EB_LANES);
            for (int r = 0; r < rows; r++) {
                const eb_vf weight = eb_v_splat(weights[r * EB_SEGMENT + t]);
                for (int c = 0; c < columns; c++)
                    sum[r][c] += value[c] * weight;
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++)
            eb_v_store(sums + (size_t)r * stride + c * EB_LANES, sum[r][c]);
}

EB_INLINE void mix_columns(const eb_attend *a, size_t row, size_t end_row, size_t column, size_t begin, size_t end,
                           const int columns) {
    for (; row + EB_ROWS <= end_row; row += EB_ROWS)
        mix_tile(a, row, column, begin, end, EB_ROWS, columns);
    for (; row < end_row; row++)
        mix_tile(a, row, column, begin, end, 1, columns);
}

/* Rows row .. end_row-1 with positions begin .. end-1. */
EB_INLINE void mix(const eb_attend *a, size_t row, size_t end_row, size_t begin, size_t end) {
    enum { BLOCK = 64 }; /* positions, whose values stay in the first-level cache for all rows */
    for (size_t next; begin < end; begin = next) {
        next = begin - begin % BLOCK + BLOCK < end ? begin - begin % BLOCK + BLOCK : end;
        size_t column = 0;
        for (; column + EB_COLUMNS * EB_LANES <= a->kv.stride; column += EB_COLUMNS * EB_LANES)
            mix_columns(a, row, end_row, column, begin, next, EB_COLUMNS);
        for (; column < a->kv.stride; column += EB_LANES)
            mix_columns(a, row, end_row, column, begin, next, 1);
    }
}

EB_INLINE void attend(const eb_attend *a) {
    const size_t n_tokens = a->n_rows / a->rows_per_token;
    const size_t most = a->count + (n_tokens - 1) * a->more;
    score_all(a, (most + EB_KV_GROUP - 1) / EB_KV_GROUP * EB_KV_GROUP);
    for (size_t row = 0; row < a->n_rows; row++)
        a->softmax[row] = exponentials(a, a->scores + row * EB_SEGMENT, a->count + row / a->rows_per_token * a->more);
    for (size_t i = 0; i < a->n_rows * a->kv.stride; i += EB_LANES)
        eb_v_store(a->sums + i, (eb_vf){0});
    /* What all rows see, and then, token by token, what only later ones do. */
    mix(a, 0, a->n_rows, 0, a->count);
    if (a->more)
        for (size_t token = 1; token < n_tokens; token++)
            mix(a, token * a->rows_per_token, (token + 1) * a->rows_per_token, a->count, a->count + token);
}
