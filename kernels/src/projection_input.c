/* projection_input.c - what projections read: quantised once for all that read the same, or once for each where the model
 * has a norm for each. */
#include "arena.h"
#include "engine.h"

static int has_own_norms(const eb_engine *engine) { return (engine->model->config.norms & EB_PROJECTION_NORM) != 0; }

/* Whether sums are more than quantise_i8() gives: of groups, which may differ among those that read the same, or of two
 * planes. */
static int has_own_sums(const eb_engine *engine) {
    return engine->max_groups > 1 || engine->model->config.quantisation == EB_INT15;
}

void eb_inputs_take(eb_engine *engine, struct eb_arena *arena) {
    const uint64_t b = engine->batch_len, stride = engine->widest_stride;
    const int is_i15 = engine->model->config.quantisation == EB_INT15, own_norms = has_own_norms(engine);
    eb_chunk *chunk = &engine->chunk;
    chunk->renormed = eb_arena_take(arena, own_norms ? b * stride : 0, sizeof *chunk->renormed);
    for (unsigned i = 0; i < EB_MAX_READERS; i++) {
        eb_input *input = &chunk->input[i];
        *input = chunk->input[0];
        if (!i || own_norms) {
            input->x = eb_arena_take(arena, b * stride, sizeof *input->x);
            input->lo = is_i15 ? eb_arena_take(arena, b * stride, sizeof *input->lo) : NULL;
            input->scale = eb_arena_take(arena, b, sizeof *input->scale);
        }
        if (!i || own_norms || has_own_sums(engine)) {
            input->sum = eb_arena_take(arena, engine->max_groups * b, sizeof *input->sum);
            input->lo_sum = is_i15 ? eb_arena_take(arena, engine->max_groups * b, sizeof *input->lo_sum) : NULL;
        }
    }
}

static void quantise(eb_engine *engine, const eb_input *input, uint32_t b, const float *x, size_t n) {
    const size_t at = b * engine->widest_stride;
    if (input->lo)
        engine->kernels.quantise_i15(input->x + at, input->lo + at, &input->scale[b], x, n);
    else
        engine->kernels.quantise_i8(input->x + at, &input->scale[b], &input->sum[b], x, n);
}

static int32_t sum_of(const int8_t *x, size_t n) {
    int32_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

static void put_sums(const eb_engine *engine, const eb_input *input, const eb_tensor *projection, uint32_t b) {
    const size_t at = b * engine->widest_stride, k = projection->k;
    for (uint32_t g = 0; g < projection->n_groups; g++) {
        input->sum[g * engine->batch_len + b] = sum_of(input->x + at + g * k, k);
        if (input->lo)
            input->lo_sum[g * engine->batch_len + b] = sum_of(input->lo + at + g * k, k);
    }
}

void eb_put_inputs(eb_engine *engine, const eb_layer *layer, const eb_reader *readers, unsigned n_readers, uint32_t b,
                   const float *x, size_t n) {
    const int own_norms = has_own_norms(engine), own_sums = has_own_sums(engine);
    for (unsigned i = 0; i < n_readers; i++) {
        const eb_input *input = &engine->chunk.input[i];
        if (own_norms) {
            float *renormed = engine->chunk.renormed + b * engine->widest_stride;
            engine->kernels.rmsnorm(renormed, x, layer->tensor[readers[i].norm].values, n,
                                    engine->model->config.projection_norm_eps);
            quantise(engine, input, b, renormed, n);
        } else if (!i) {
            quantise(engine, input, b, x, n);
        }
        if (own_sums)
            put_sums(engine, input, &layer->tensor[readers[i].projection], b);
    }
}
