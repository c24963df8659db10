/* products.c - products with ternary weights.
 *
 * A tensor is one matrix, or one for each group of columns; an input has one plane of int8, or two. Each matrix and plane
 * gives exact integers. Those of the planes become one float, dot * (the input's scale * the weights' scale), and those of
 * the groups are added in their order. */
#include "products.h"
#include "ops.h"

/* A plane of the input, as far as a group of columns reads it. */
typedef struct plane {
    const int8_t *x;    /* [chunk.n], rows of widest_stride */
    const int32_t *sum; /* [chunk.n] */
} plane;

/* Dot products of `rows` rows at `w`, a multiple of 4, with each token of the chunk, few tokens at a time. */
static void gemv(const eb_engine *engine, const eb_tensor *tensor, const uint8_t *w, plane of, int32_t *dots,
                 size_t rows) {
    const eb_ukernels *kernels = &engine->kernels;
    const int is_t1 = tensor->encoding == EB_T1;
    const size_t x_stride = engine->widest_stride, n_tokens = engine->chunk.n, k = tensor->k;
    eb_gemv4_t2_i8_fn *four = is_t1 ? kernels->gemv4_t1_i8 : kernels->gemv4_t2_i8;
    eb_gemv_t2_i8_fn *one = is_t1 ? kernels->gemv_t1_i8 : kernels->gemv_t2_i8;
    for (size_t b = 0; b < n_tokens;) {
        const size_t n = !four ? 1 : n_tokens - b < 4 ? n_tokens - b : 4;
        int32_t *y = dots + b * EB_GEMM_ROWS;
        const int8_t *x = of.x + b * x_stride;
        if (n == 1)
            one(y, w, x, of.sum[b], rows, k);
        else
            four(&(eb_gemv4_operands){y, w, x, of.sum + b, EB_GEMM_ROWS, x_stride, rows, k}, n);
        b += n;
    }
}

/* The same with all tokens of the chunk at once, from unpacked codes. */
static void gemm(const eb_engine *engine, const eb_tensor *tensor, const uint8_t *codes, plane of, int32_t *dots,
                 size_t rows) {
    engine->kernels.gemm_c8_i8(dots, EB_GEMM_ROWS, codes, of.x, engine->widest_stride, of.sum, rows, tensor->k,
                               engine->chunk.n);
}

/* How many rows go together. One token: many, whose dot products then wait in a buffer. A few tokens: as many as stay in the
 * first-level cache for the next four tokens. Some: as many as stay there unpacked, where writing the codes costs as much as
 * using them. Many: twice as many, which share the loads of activations. */
static size_t rows_together(const eb_engine *engine, const eb_tensor *tensor) {
    const uint32_t n_tokens = engine->chunk.n;
    if (n_tokens == 1)
        return EB_GEMV_ROWS;
    const int fits = tensor->k * (EB_GEMM_ROWS / 2) <= EB_CODES_BYTES;
    return n_tokens > EB_FEW_TOKENS && n_tokens <= EB_SOME_TOKENS && fits ? EB_GEMM_ROWS / 2 : EB_GEMM_ROWS;
}

/* Dot products of one of the tensor's matrices: n rows from `begin` on with every token of the chunk, [chunk.n][EB_GEMM_ROWS];
 * those of the low plane go dots_size behind. n is at most rows_together(). */
static void products(const eb_engine *engine, const eb_tensor *tensor, const eb_input *input, uint32_t group,
                     int32_t *dots, size_t begin, size_t n, unsigned thread) {
    const size_t rows = eb_round_up(n, EB_TILE_ROWS);
    const size_t x_at = (size_t)group * tensor->k, sum_at = (size_t)group * engine->batch_len;
    const plane high = {input->x + x_at, input->sum + sum_at};
    const plane low = input->lo ? (plane){input->lo + x_at, input->lo_sum + sum_at} : (plane){NULL, NULL};
    const uint8_t *w =
        (const uint8_t *)tensor->values + group * eb_matrix_bytes(tensor) + begin / EB_TILE_ROWS * tensor->band_bytes;
    if (engine->chunk.n <= EB_FEW_TOKENS) {
        gemv(engine, tensor, w, high, dots, rows);
        if (low.x)
            gemv(engine, tensor, w, low, dots + engine->dots_size, rows);
        return;
    }
    uint8_t *codes = engine->codes + (size_t)thread * EB_GEMM_ROWS * engine->widest_stride;
    eb_unpack_t2_fn *unpack = tensor->encoding == EB_T1 ? engine->kernels.unpack_t1 : engine->kernels.unpack_t2;
    unpack(codes, w, rows, tensor->k);
    gemm(engine, tensor, codes, high, dots, rows);
    if (low.x)
        gemm(engine, tensor, codes, low, dots + engine->dots_size, rows);
}

/* What products() gave. */
static eb_scaled_dots scaled_dots(const eb_engine *engine, const eb_tensor *tensor, const eb_input *input,
                                  uint32_t group, const int32_t *dots, size_t begin) {
    const int by_row = tensor->granularity != EB_BY_TENSOR;
    return (eb_scaled_dots){.dots = dots,
                            .stride = EB_GEMM_ROWS,
                            .scales = tensor->scales + (by_row ? (size_t)group * tensor->rows + begin : 0),
                            .by_row = by_row,
                            .lo = input->lo ? dots + engine->dots_size : NULL};
}

/* out[b][0 .. n-1] (+)= the rows' products with token b's input */
static void put_values(const eb_engine *engine, const eb_tensor *tensor, const eb_input *input, float *out,
                       size_t out_stride, int add, size_t begin, size_t n, unsigned thread) {
    int32_t *dots = engine->dots + thread * 2 * engine->dots_size;
    for (uint32_t group = 0; group < tensor->n_groups; group++) {
        products(engine, tensor, input, group, dots, begin, n, thread);
        const eb_scaled_dots of = scaled_dots(engine, tensor, input, group, dots, begin);
        engine->kernels.scale_dots(out, out_stride, &of, input->scale, n, engine->chunk.n, add || group);
    }
}

void eb_linear(eb_engine *engine, const eb_tensor *tensor, const eb_input *input, float *out, size_t out_stride,
               int add, part me) {
    const size_t step = rows_together(engine, tensor);
    const range rows = share(me, tensor->rows, engine->chunk.n == 1 ? EB_TILE_ROWS : step);
    const int is_apart = add && tensor->n_groups > 1; /* the groups' sum is added, not each group */
    float *values = engine->values + me.thread * 2 * engine->dots_size;
    for (size_t begin = rows.begin; begin < rows.end; begin += step) {
        const size_t n = begin + step < rows.end ? step : rows.end - begin;
        if (!is_apart) {
            put_values(engine, tensor, input, out + begin, out_stride, add, begin, n, me.thread);
            continue;
        }
        put_values(engine, tensor, input, values, EB_GEMM_ROWS, 0, begin, n, me.thread);
        for (uint32_t b = 0; b < engine->chunk.n; b++)
            for (size_t i = 0; i < n; i++)
                out[b * out_stride + begin + i] += values[b * EB_GEMM_ROWS + i];
    }
}

void eb_gate_up(eb_engine *engine, const eb_tensor *gate, const eb_tensor *up, const eb_input inputs[2], part me) {
    const eb_chunk *chunk = &engine->chunk;
    const size_t step = rows_together(engine, gate);
    const range rows = share(me, gate->rows, chunk->n == 1 ? EB_TILE_ROWS : step);
    const int is_silu = engine->model->config.activation == EB_SILU;
    const int at_once = gate->n_groups == 1 && up->n_groups == 1 && !inputs->lo && inputs[0].scale == inputs[1].scale;
    int32_t *gate_dots = engine->dots + me.thread * 2 * engine->dots_size, *up_dots = gate_dots + engine->dots_size;
    float *gates = engine->values + me.thread * 2 * engine->dots_size, *ups = gates + engine->dots_size;
    for (size_t begin = rows.begin; begin < rows.end; begin += step) {
        const size_t n = begin + step < rows.end ? step : rows.end - begin;
        float *gated = chunk->gated + begin;
        if (at_once) {
            products(engine, gate, &inputs[0], 0, gate_dots, begin, n, me.thread);
            products(engine, up, &inputs[1], 0, up_dots, begin, n, me.thread);
            const eb_scaled_dots of_gate = scaled_dots(engine, gate, &inputs[0], 0, gate_dots, begin);
            const eb_scaled_dots of_up = scaled_dots(engine, up, &inputs[1], 0, up_dots, begin);
            engine->kernels.gate_dots(gated, engine->ffn_stride, &of_gate, &of_up, inputs->scale, n, chunk->n, is_silu);
            continue;
        }
        put_values(engine, gate, &inputs[0], gates, EB_GEMM_ROWS, 0, begin, n, me.thread);
        put_values(engine, up, &inputs[1], ups, EB_GEMM_ROWS, 0, begin, n, me.thread);
        for (uint32_t b = 0; b < chunk->n; b++)
            engine->kernels.gate_values(gated + b * engine->ffn_stride, gates + b * EB_GEMM_ROWS,
                                        ups + b * EB_GEMM_ROWS, n, is_silu);
    }
}
