/* engine_layer.c - the forward pass: embedding and decoder layers. A layer is a row of jobs (job.h). */
#include "job.h"
#include "mem.h"
#include "ops.h"

/* ---- products with ternary weights ---- */

static const uint8_t *group_at(const eb_tensor *tensor, size_t row) {
    return (const uint8_t *)tensor->values + row / EB_TILE_ROWS * tensor->group_bytes;
}

/* Dot products of `rows` rows, a multiple of 4, from `begin` on, with token `b` and the next ones, `n` in all, at most 4:
 * [n][dots_stride]. */
static void gemv(const eb_engine *engine, const eb_tensor *tensor, int32_t *dots, size_t dots_stride, size_t begin,
                 size_t rows, uint32_t b, size_t n) {
    const eb_chunk *chunk = &engine->chunk;
    const eb_ukernels *kernels = &engine->kernels;
    const int is_t1 = tensor->encoding == EB_T1;
    const size_t x_stride = engine->widest_stride;
    const uint8_t *w = group_at(tensor, begin);
    const int8_t *x = chunk->x + b * x_stride;
    eb_gemv4_t2_i8_fn *four = is_t1 ? kernels->gemv4_t1_i8 : kernels->gemv4_t2_i8;
    if (n > 1 && four) {
        four(&(eb_gemv4_operands){dots, w, x, chunk->x_sum + b, dots_stride, x_stride, rows, tensor->k}, n);
        return;
    }
    eb_gemv_t2_i8_fn *one = is_t1 ? kernels->gemv_t1_i8 : kernels->gemv_t2_i8;
    for (size_t t = 0; t < n; t++)
        one(dots + t * dots_stride, w, x + t * x_stride, chunk->x_sum[b + t], rows, tensor->k);
}

/* The same with all tokens of the chunk, from codes that are unpacked once. */
static void gemm(const eb_engine *engine, const eb_tensor *tensor, int32_t *dots, size_t begin, size_t rows,
                 unsigned thread) {
    const eb_chunk *chunk = &engine->chunk;
    uint8_t *codes = engine->codes + (size_t)thread * EB_GEMM_ROWS * engine->widest_stride;
    eb_unpack_t2_fn *unpack = tensor->encoding == EB_T1 ? engine->kernels.unpack_t1 : engine->kernels.unpack_t2;
    unpack(codes, group_at(tensor, begin), rows, tensor->k);
    engine->kernels.gemm_c8_i8(dots, EB_GEMM_ROWS, codes, chunk->x, engine->widest_stride, chunk->x_sum, rows,
                               tensor->k, chunk->n);
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

/* Dot products of n rows from `begin` on with every token of the chunk, [chunk.n][EB_GEMM_ROWS]; n is at most
 * rows_together(). */
static void products(const eb_engine *engine, const eb_tensor *tensor, int32_t *dots, size_t begin, size_t n,
                     unsigned thread) {
    const uint32_t n_tokens = engine->chunk.n;
    const size_t rows = eb_round_up(n, EB_TILE_ROWS);
    if (n_tokens > EB_FEW_TOKENS) {
        gemm(engine, tensor, dots, begin, rows, thread);
        return;
    }
    for (uint32_t b = 0; b < n_tokens; b += 4)
        gemv(engine, tensor, dots + b * EB_GEMM_ROWS, EB_GEMM_ROWS, begin, rows, b,
             n_tokens - b < 4 ? n_tokens - b : 4);
}

/* What products() gave for the rows from `begin` on. */
static eb_scaled_dots scaled_dots(const eb_tensor *tensor, const int32_t *dots, size_t begin) {
    return (eb_scaled_dots){dots, EB_GEMM_ROWS, tensor->scales + (tensor->by_row ? begin : 0), (int)tensor->by_row};
}

/* out[b][row] (+)= BitLinear(token b)[row] for this part's rows of `tensor` */
static void linear(eb_engine *engine, const eb_tensor *tensor, float *out, size_t out_stride, int add, part me) {
    const eb_chunk *chunk = &engine->chunk;
    const size_t step = rows_together(engine, tensor);
    const range rows = share(me, tensor->rows, chunk->n == 1 ? EB_TILE_ROWS : step);
    int32_t *dots = engine->dots + me.thread * 2 * engine->dots_size;
    for (size_t begin = rows.begin; begin < rows.end; begin += step) {
        const size_t n = begin + step < rows.end ? step : rows.end - begin;
        products(engine, tensor, dots, begin, n, me.thread);
        const eb_scaled_dots of = scaled_dots(tensor, dots, begin);
        engine->kernels.scale_dots(out + begin, out_stride, &of, chunk->x_scale, n, chunk->n, add);
    }
}

static void quantise(eb_engine *engine, uint32_t b, const float *x, size_t n) {
    eb_chunk *chunk = &engine->chunk;
    engine->kernels.quantise_i8(chunk->x + b * engine->widest_stride, &chunk->x_scale[b], &chunk->x_sum[b], x, n);
}

/* ---- the jobs of a layer, in their order ---- */

static void norm_hidden(job *task, unsigned place, part me) {
    eb_engine *engine = task->engine;
    const range tokens = share(me, engine->chunk.n, 1);
    for (size_t b = tokens.begin; b < tokens.end; b++) {
        float *normed = engine->chunk.normed + b * engine->widest_stride;
        engine->kernels.rmsnorm(normed, engine->chunk.hidden + b * engine->hidden_stride,
                                task->layer->tensor[place].values, engine->model->info.hidden_size,
                                engine->model->config.rms_norm_eps);
        quantise(engine, (uint32_t)b, normed, engine->model->info.hidden_size);
    }
}

static void input_norm_job(job *task, part me) { norm_hidden(task, EB_INPUT_NORM, me); }

static void qkv_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_model_info *info = &engine->model->info;
    const size_t q = (size_t)info->n_heads * info->head_dim, kv = (size_t)info->n_kv_heads * info->head_dim;
    linear(engine, &task->layer->tensor[EB_Q_PROJ], engine->chunk.qkv, q + 2 * kv, 0, me);
    linear(engine, &task->layer->tensor[EB_K_PROJ], engine->chunk.qkv + q, q + 2 * kv, 0, me);
    linear(engine, &task->layer->tensor[EB_V_PROJ], engine->chunk.qkv + q + kv, q + 2 * kv, 0, me);
}

unsigned char *eb_kv_head(const eb_engine *engine, uint32_t sequence, uint32_t layer, uint32_t kv_head) {
    const eb_model_info *info = &engine->model->info;
    const size_t head = ((size_t)sequence * info->n_layers + layer) * info->n_kv_heads + kv_head;
    return engine->kv.base + head * engine->kv.head_bytes;
}

static void zero_rest(float *row, size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        row[i] = 0;
}

/* Rotates queries and keys, and puts keys and values into the cache. */
static void rope_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_model_info *info = &engine->model->info;
    const eb_chunk *chunk = &engine->chunk;
    const size_t head_dim = info->head_dim, half = head_dim / 2, stride = engine->head_stride;
    const size_t n_heads = info->n_heads, n_kv = info->n_kv_heads, group = n_heads / n_kv;
    const float q_scale = 1.0f / __builtin_sqrtf((float)head_dim);
    float key[EB_MAX_HEAD_DIM], value[EB_MAX_HEAD_DIM];
    /* Items are the query heads and then the key-value heads of each token. */
    const range items = share(me, chunk->n * (n_heads + n_kv), 1);
    for (size_t item = items.begin; item < items.end; item++) {
        const size_t b = item / (n_heads + n_kv), h = item % (n_heads + n_kv);
        const float *from = chunk->qkv + b * (n_heads + 2 * n_kv) * head_dim + h * head_dim;
        const float *cosines = chunk->cosines + b * half, *sines = chunk->sines + b * half;
        if (h < n_heads) {
            float *q = chunk->q + ((h / group * engine->batch_len + b) * group + h % group) * stride;
            engine->kernels.rope_rotate(q, from, cosines, sines, half);
            for (size_t i = 0; i < head_dim; i++)
                q[i] *= q_scale;
            zero_rest(q, head_dim, stride);
            continue;
        }
        engine->kernels.rope_rotate(key, from, cosines, sines, half);
        zero_rest(key, head_dim, stride);
        eb_memcpy(value, from + n_kv * head_dim, head_dim * sizeof *value);
        zero_rest(value, head_dim, stride);
        eb_kv_store(&engine->kv, &engine->kernels,
                    eb_kv_head(engine, chunk->sequence[b], task->layer_index, (uint32_t)(h - n_heads)),
                    chunk->position[b], key, value);
    }
}

static void attention_job(job *task, part me) {
    const range items = share(me, eb_attention_items(task->engine), 1);
    for (size_t item = items.begin; item < items.end; item++)
        eb_attention_item(task->engine, task->layer_index, item, me.thread);
}

/* The sub-norm, where there is one, and quantisation of `from`, before o_proj and down_proj. */
static void sub_norm(const job *task, unsigned place, const float *from, size_t from_stride, size_t n, part me) {
    eb_engine *engine = task->engine;
    const eb_tensor *weight = &task->layer->tensor[place];
    const range tokens = share(me, engine->chunk.n, 1);
    for (size_t b = tokens.begin; b < tokens.end; b++) {
        const float *x = from + b * from_stride;
        if (weight->values) {
            float *normed = engine->chunk.normed + b * engine->widest_stride;
            engine->kernels.rmsnorm(normed, x, weight->values, n, engine->model->config.rms_norm_eps);
            x = normed;
        }
        quantise(engine, (uint32_t)b, x, n);
    }
}

static void attn_sub_norm_job(job *task, part me) {
    const eb_model_info *info = &task->engine->model->info;
    const range tokens = share(me, task->engine->chunk.n, 1);
    for (size_t b = tokens.begin; b < tokens.end; b++)
        eb_attention_finish(task->engine, (uint32_t)b);
    sub_norm(task, EB_ATTN_SUB_NORM_WEIGHT, task->engine->chunk.mixed, task->engine->mixed_stride,
             (size_t)info->n_heads * info->head_dim, me);
}

static void o_job(job *task, part me) {
    eb_engine *engine = task->engine;
    linear(engine, &task->layer->tensor[EB_O_PROJ], engine->chunk.hidden, engine->hidden_stride, 1, me);
}

static void post_attention_norm_job(job *task, part me) { norm_hidden(task, EB_POST_ATTENTION_NORM, me); }

/* gate_proj and up_proj, row by row together, and their product. */
static void gate_up_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_chunk *chunk = &engine->chunk;
    const eb_tensor *gate = &task->layer->tensor[EB_GATE_PROJ], *up = &task->layer->tensor[EB_UP_PROJ];
    const size_t step = rows_together(engine, gate);
    const range rows = share(me, gate->rows, chunk->n == 1 ? EB_TILE_ROWS : step);
    int32_t *gate_dots = engine->dots + me.thread * 2 * engine->dots_size, *up_dots = gate_dots + engine->dots_size;
    for (size_t begin = rows.begin; begin < rows.end; begin += step) {
        const size_t n = begin + step < rows.end ? step : rows.end - begin;
        products(engine, gate, gate_dots, begin, n, me.thread);
        products(engine, up, up_dots, begin, n, me.thread);
        const eb_scaled_dots of_gate = scaled_dots(gate, gate_dots, begin), of_up = scaled_dots(up, up_dots, begin);
        engine->kernels.gate_dots(chunk->gated + begin, engine->ffn_stride, &of_gate, &of_up, chunk->x_scale, n,
                                  chunk->n, engine->model->config.activation == EB_SILU);
    }
}

static void ffn_sub_norm_job(job *task, part me) {
    sub_norm(task, EB_FFN_SUB_NORM_WEIGHT, task->engine->chunk.gated, task->engine->ffn_stride,
             task->engine->model->info.ffn_size, me);
}

static void down_job(job *task, part me) {
    eb_engine *engine = task->engine;
    linear(engine, &task->layer->tensor[EB_DOWN_PROJ], engine->chunk.hidden, engine->hidden_stride, 1, me);
}

static int is_large(const eb_engine *engine, const eb_tensor *tensor) {
    return tensor->row_bytes * tensor->rows * engine->chunk.n >= PARALLEL_BYTES;
}

/* Whether attention has enough to read. */
static int is_long(const eb_engine *engine) {
    const eb_chunk *chunk = &engine->chunk;
    uint64_t positions = 0;
    for (uint32_t b = 0; b < chunk->n; b++)
        positions += chunk->position[b] + 1;
    return positions / EB_KV_GROUP * engine->model->info.n_kv_heads * engine->kv.layout.group_bytes >= PARALLEL_BYTES;
}

void eb_run_layer(eb_engine *engine, uint32_t layer) {
    const eb_tensor *tensor = engine->model->layers[layer].tensor;
    job task = {.engine = engine, .layer = &engine->model->layers[layer], .layer_index = layer};
    const int several = engine->chunk.n > 1; /* one token's norm is one thread's work */
    run(&task, input_norm_job, several);
    run(&task, qkv_job, is_large(engine, &tensor[EB_Q_PROJ]));
    run(&task, rope_job, several);
    run(&task, attention_job, is_long(engine));
    run(&task, attn_sub_norm_job, several);
    run(&task, o_job, is_large(engine, &tensor[EB_O_PROJ]));
    run(&task, post_attention_norm_job, several);
    run(&task, gate_up_job, is_large(engine, &tensor[EB_GATE_PROJ]));
    run(&task, ffn_sub_norm_job, several);
    run(&task, down_job, is_large(engine, &tensor[EB_DOWN_PROJ]));
}

/* ---- embedding, positions ---- */

void eb_embed(eb_engine *engine, const int32_t *tokens) {
    const eb_tensor *table = &engine->model->tensor[EB_TOKEN_EMBEDDING];
    const size_t n = engine->model->info.hidden_size;
    for (uint32_t b = 0; b < engine->chunk.n; b++) {
        float *hidden = engine->chunk.hidden + b * engine->hidden_stride;
        const size_t token = (size_t)tokens[b];
        const unsigned char *row = (const unsigned char *)table->values + token * table->row_bytes;
        if (table->encoding == EB_F32)
            eb_memcpy(hidden, row, n * sizeof(float));
        else if (table->encoding == EB_BF16)
            for (size_t i = 0; i < n; i++) {
                const uint32_t bits = (uint32_t)eb_load_u16(row + 2 * i) << 16;
                eb_memcpy(hidden + i, &bits, sizeof bits);
            }
        else
            for (size_t i = 0; i < n; i++)
                hidden[i] = (float)(int8_t)row[i] * table->scales[token];
        zero_rest(hidden, n, engine->hidden_stride);
    }
}

void eb_prepare_positions(eb_engine *engine) {
    const size_t half = engine->model->info.head_dim / 2;
    for (uint32_t b = 0; b < engine->chunk.n; b++)
        eb_rope_angles(engine->chunk.cosines + b * half, engine->chunk.sines + b * half,
                       engine->model->tensor[EB_ROPE_INV_FREQ].values, engine->chunk.position[b], half);
    eb_attention_plan(engine);
}
