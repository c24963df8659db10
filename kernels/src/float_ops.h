/* float_ops.h - the body of the float operations (contracts in ukernel.h), once for all widths: ukernel/float_ops_<isa>.c
 * sets EB_LANES and EB_VARIANT(op), the name of its variant, and includes this. Each element goes through the same
 * operations in the same order at any width, so the results are the same bits. */
#include "ops.h"
#include "ukernel.h"
#include "vec.h"

/* Doubles, and the floats that become them, half a vector at a time. */
typedef double eb_vd __attribute__((vector_size(4 * EB_LANES)));
typedef float eb_vf_half __attribute__((vector_size(2 * EB_LANES)));

/* In double, where each square is exact, so that the mean is that of real numbers, rounded once: a float sum is off by
 * a unit or two of its last place, and a value that stands on a tie (58.5 of 127) then falls to the other side than in
 * the reference. See docs/decisions/norm-in-double.md. */
EB_INLINE double sum_of_squares(const float *x, size_t n) {
    eb_vd part[2 * EB_VECTORS] = {{0}};
    for (size_t i = 0; i < n; i += 16)
        for (int v = 0; v < 2 * EB_VECTORS; v++) {
            eb_vf_half half;
            eb_memcpy(&half, x + i + v * (EB_LANES / 2), sizeof half);
            const eb_vd value = __builtin_convertvector(half, eb_vd);
            part[v] += value * value;
        }
    double lane[16];
    eb_memcpy(lane, part, sizeof lane);
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

void EB_VARIANT(rmsnorm)(float *y, const float *x, const float *weight, size_t n, float eps) {
    const float mean = (float)(sum_of_squares(x, eb_round_up(n, 16)) / (double)n);
    const float inverse = 1.0f / __builtin_sqrtf(mean + eps);
    for (size_t i = 0; i < n; i += EB_LANES)
        eb_v_store_n(y + i, eb_v_load_n(weight + i, n - i) * (eb_v_load_n(x + i, n - i) * inverse), n - i);
    for (size_t i = n; i < eb_round_up(n, 64); i++)
        y[i] = 0;
}

void EB_VARIANT(quantise_i8)(int8_t *q, float *scale, int32_t *sum, const float *x, size_t n) {
    const size_t padded = eb_round_up(n, 64);
    const float most = eb_absmax(x, padded, 1e-5f), factor = 127.0f / most;
    eb_vi total = {0};
    for (size_t i = 0; i < padded; i += 16) {
        eb_vi v[EB_VECTORS];
        for (int p = 0; p < EB_VECTORS; p++) {
            v[p] = eb_v_quantised(x + i + p * EB_LANES, factor, -128.0f, 127.0f);
            total += v[p];
        }
        eb_store16_i8(q + i, v);
    }
    *scale = most / 127.0f;
    int32_t all = 0;
    for (int lane = 0; lane < EB_LANES; lane++)
        all += total[lane];
    *sum = all;
}

void EB_VARIANT(quantise_i15)(int8_t *hi, int8_t *lo, float *scale, const float *x, size_t n) {
    const size_t padded = eb_round_up(n, 64);
    const float most = eb_absmax(x, padded, 1e-20f), factor = 16256.0f / most; /* of zeros, any scale will do */
    for (size_t i = 0; i < padded; i += 16) {
        eb_vi high[EB_VECTORS], low[EB_VECTORS];
        for (int p = 0; p < EB_VECTORS; p++) {
            const eb_vi v = eb_v_quantised(x + i + p * EB_LANES, factor, -16256.0f, 16256.0f);
            high[p] = (v + 64) >> 7;
            low[p] = v - (high[p] << 7);
        }
        eb_store16_i8(hi + i, high);
        eb_store16_i8(lo + i, low);
    }
    *scale = most / 16256.0f;
}

void EB_VARIANT(quantise_kv)(int8_t *q, float *scale, const float *x, size_t n) {
    const float most = eb_absmax(x, n, 1e-20f), factor = 127.0f / most;
    for (size_t i = 0; i < n; i += 16) {
        eb_vi v[EB_VECTORS];
        for (int p = 0; p < EB_VECTORS; p++)
            v[p] = eb_v_quantised(x + i + p * EB_LANES, factor, -127.0f, 127.0f);
        eb_store16_i8(q + i, v);
    }
    *scale = most / 127.0f;
}

void EB_VARIANT(round_f16)(uint16_t *y, const float *x, size_t n) {
    for (size_t i = 0; i < n; i += EB_LANES)
        eb_v_store_f16(y + i, eb_v_load(x + i));
}

/* Numbers i .. of a token, the first n of a vector. */
EB_INLINE eb_vf scaled(const eb_scaled_dots *of, size_t token, size_t i, size_t n, float scale) {
    const eb_vf dots = __builtin_convertvector(eb_vi_load_n(of->dots + token * of->stride + i, n), eb_vf);
    return of->by_row ? dots * (eb_v_load_n(of->scales + i, n) * scale) : dots * (of->scales[0] * scale);
}

typedef int32_t eb_vi_half __attribute__((vector_size(2 * EB_LANES)));

/* 128 * hi + lo, which a double holds exactly, rounded once. */
EB_INLINE eb_vf float_of_planes(eb_vi hi, eb_vi lo) {
    eb_vi_half high[2], low[2];
    eb_vf_half sum[2];
    eb_memcpy(high, &hi, sizeof high);
    eb_memcpy(low, &lo, sizeof low);
    for (int h = 0; h < 2; h++)
        sum[h] = __builtin_convertvector(
            __builtin_convertvector(high[h], eb_vd) * 128 + __builtin_convertvector(low[h], eb_vd), eb_vf_half);
    eb_vf all;
    eb_memcpy(&all, sum, sizeof all);
    return all;
}

/* scaled() of dots in two planes. */
EB_INLINE eb_vf scaled_planes(const eb_scaled_dots *of, size_t token, size_t i, size_t n, float scale) {
    const size_t at = token * of->stride + i;
    const eb_vf dots = float_of_planes(eb_vi_load_n(of->dots + at, n), eb_vi_load_n(of->lo + at, n));
    return of->by_row ? dots * (eb_v_load_n(of->scales + i, n) * scale) : dots * (of->scales[0] * scale);
}

EB_INLINE void scale_planes(float *y, size_t y_stride, const eb_scaled_dots *of, const float *scales, size_t n,
                            size_t n_tokens, int add) {
    for (size_t token = 0; token < n_tokens; token++, y += y_stride)
        for (size_t i = 0; i < n; i += EB_LANES) {
            const eb_vf value = scaled_planes(of, token, i, n - i, scales[token]);
            eb_v_store_n(y + i, add ? eb_v_load_n(y + i, n - i) + value : value, n - i);
        }
}

void EB_VARIANT(scale_dots)(float *y, size_t y_stride, const eb_scaled_dots *of, const float *scales, size_t n,
                            size_t n_tokens, int add) {
    if (of->lo) {
        scale_planes(y, y_stride, of, scales, n, n_tokens, add);
        return;
    }
    for (size_t token = 0; token < n_tokens; token++, y += y_stride)
        for (size_t i = 0; i < n; i += EB_LANES) {
            const eb_vf value = scaled(of, token, i, n - i, scales[token]);
            eb_v_store_n(y + i, add ? eb_v_load_n(y + i, n - i) + value : value, n - i);
        }
}

EB_INLINE eb_vf silu(eb_vf x) { return x / (eb_v_exp(-x) + 1.0f); }

EB_INLINE eb_vf gated(eb_vf gate, eb_vf up, int is_silu) {
    const eb_vf positive = eb_v_max(gate, eb_v_splat(0));
    return (is_silu ? silu(gate) : positive * positive) * up;
}

void EB_VARIANT(gate_dots)(float *f, size_t f_stride, const eb_scaled_dots *gate, const eb_scaled_dots *up,
                           const float *scales, size_t n, size_t n_tokens, int is_silu) {
    for (size_t token = 0; token < n_tokens; token++, f += f_stride)
        for (size_t i = 0; i < n; i += EB_LANES) {
            const eb_vf g = scaled(gate, token, i, n - i, scales[token]);
            eb_v_store_n(f + i, gated(g, scaled(up, token, i, n - i, scales[token]), is_silu), n - i);
        }
}

void EB_VARIANT(gate_values)(float *f, const float *gate, const float *up, size_t n, int is_silu) {
    for (size_t i = 0; i < n; i += EB_LANES)
        eb_v_store_n(f + i, gated(eb_v_load_n(gate + i, n - i), eb_v_load_n(up + i, n - i), is_silu), n - i);
}

/* ---- low-rank side paths: values of one or two bytes ---- */

enum {
    EB_LORA_ROWS = EB_LANES == 4 ? 2 : 4,             /* rows of A that share the loads of x */
    EB_LORA_GROUPS = EB_LANES == 4 ? 1 : EB_LANES / 4 /* groups of 16 rows of B that are summed side by side */
};

/* Numbers at `index` .. of int8 or f16. */
EB_INLINE eb_vf lora_load(const void *values, size_t index, int is_i8) {
    return is_i8 ? eb_v_load_i8((const int8_t *)values + index) : eb_v_load_f16((const uint16_t *)values + index);
}

/* `rows` rows of A, from row j on. */
EB_INLINE void lora_a_rows(float *y, const void *a, const float *scales, const float *x, size_t j, size_t rows,
                           size_t columns, int is_i8) {
    const size_t stride = eb_round_up(columns, 16);
    eb_sum16 sum[EB_LORA_ROWS] = {{{{0}}}};
    for (size_t i = 0; i < stride; i += 16)
        for (int v = 0; v < EB_VECTORS; v++) {
            const eb_vf value = eb_v_load(x + i + v * EB_LANES);
            for (size_t r = 0; r < rows; r++)
                sum[r].part[v] += lora_load(a, (j + r) * stride + i + v * EB_LANES, is_i8) * value;
        }
    for (size_t r = 0; r < rows; r++)
        y[j + r] = is_i8 ? eb_sum16_total(&sum[r]) * scales[j + r] : eb_sum16_total(&sum[r]);
}

EB_INLINE void lora_a(float *y, const void *a, const float *scales, const float *x, size_t n, size_t columns,
                      int is_i8) {
    size_t j = 0;
    for (; j + EB_LORA_ROWS <= n; j += EB_LORA_ROWS)
        lora_a_rows(y, a, scales, x, j, EB_LORA_ROWS, columns, is_i8);
    for (; j < n; j++)
        lora_a_rows(y, a, scales, x, j, 1, columns, is_i8);
}

void EB_VARIANT(lora_a_f16)(float *y, const void *a, const float *scales, const float *x, size_t n, size_t columns) {
    lora_a(y, a, scales, x, n, columns, 0);
}

void EB_VARIANT(lora_a_i8)(float *y, const void *a, const float *scales, const float *x, size_t n, size_t columns) {
    lora_a(y, a, scales, x, n, columns, 1);
}

/* `groups` groups of 16 rows of B, from row `first` on; of y, no more than n. */
EB_INLINE void lora_b_groups(float *y, const void *b, const float *scales, float scale, const float *x, size_t n,
                             size_t rank, size_t first, size_t groups, int is_i8) {
    eb_vf sum[EB_LORA_GROUPS][EB_VECTORS] = {{{0}}};
    for (size_t j = 0; j < rank; j++)
        for (size_t g = 0; g < groups; g++)
            for (int v = 0; v < EB_VECTORS; v++)
                sum[g][v] += lora_load(b, (first + 16 * g) * rank + 16 * j + v * EB_LANES, is_i8) * x[j];
    for (size_t g = 0; g < groups; g++)
        for (int v = 0; v < EB_VECTORS; v++) {
            const size_t at = first + 16 * g + v * EB_LANES;
            if (at >= n)
                return;
            const eb_vf value = is_i8 ? sum[g][v] * (eb_v_load_n(scales + at, n - at) * scale) : sum[g][v] * scale;
            eb_v_store_n(y + at, eb_v_load_n(y + at, n - at) + value, n - at);
        }
}

EB_INLINE void lora_b(float *y, const void *b, const float *scales, float scale, const float *x, size_t n, size_t rank,
                      int is_i8) {
    size_t first = 0;
    for (; first + 16 * EB_LORA_GROUPS <= n; first += 16 * EB_LORA_GROUPS)
        lora_b_groups(y, b, scales, scale, x, n, rank, first, EB_LORA_GROUPS, is_i8);
    for (; first < n; first += 16)
        lora_b_groups(y, b, scales, scale, x, n, rank, first, 1, is_i8);
}

void EB_VARIANT(lora_b_f16)(float *y, const void *b, const float *scales, float scale, const float *x, size_t n,
                            size_t rank) {
    lora_b(y, b, scales, scale, x, n, rank, 0);
}

void EB_VARIANT(lora_b_i8)(float *y, const void *b, const float *scales, float scale, const float *x, size_t n,
                           size_t rank) {
    lora_b(y, b, scales, scale, x, n, rank, 1);
}

void EB_VARIANT(rope_rotate)(float *restrict y, const float *restrict x, const float *cosines, const float *sines,
                             size_t half) {
    for (size_t i = 0; i < half; i += EB_LANES) {
        const size_t n = half - i;
        const eb_vf a = eb_v_load_n(x + i, n), b = eb_v_load_n(x + half + i, n);
        const eb_vf c = eb_v_load_n(cosines + i, n), s = eb_v_load_n(sines + i, n);
        eb_v_store_n(y + i, a * c - b * s, n);
        eb_v_store_n(y + half + i, b * c + a * s, n);
    }
}

void EB_VARIANT(merge_attention)(eb_softmax *into, float *sums, const eb_softmax *part, const float *part_sums,
                                 size_t n) {
    /* The one with the lower maximum is scaled to the other's. */
    const int rises = part->highest > into->highest;
    const float down = rises ? into->highest - part->highest : part->highest - into->highest;
    const float factor = eb_v_exp(eb_v_splat(down))[0];
    const float ours = rises ? factor : 1.0f, theirs = rises ? 1.0f : factor;
    for (size_t i = 0; i < n; i += EB_LANES)
        eb_v_store(sums + i, eb_v_load(sums + i) * ours + eb_v_load(part_sums + i) * theirs);
    into->total = into->total * ours + part->total * theirs;
    into->highest = rises ? part->highest : into->highest;
}
