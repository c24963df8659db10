/* engine_layer.c - the forward pass: embedding, decoder layers, head.
 *
 * A layer is a row of jobs for the thread pool. A job's parts split either the tokens (norms, quantisation),
 * the rows of a weight matrix, or the pairs of token and head (attention); each number is computed by one thread from
 * the numbers before it, in one order, so results hang neither on the split nor on what else is in the chunk. */
#include "engine.h"
#include "mem.h"
#include "ops.h"

/* Weights go in tiles of about this many bytes, so that a tile is still in the first-level cache for the next token. */
enum { TILE_BYTES = 16384, TILE_ROWS_STEP = 8 };

/* What a job is called for: which part of how many, and whose scratch memory it may use. */
typedef struct part {
    unsigned number, of, thread;
} part;

typedef struct job {
    eb_engine *engine;
    const eb_layer *layer;
    uint32_t layer_index;
    void (*work)(struct job *task, part me);
    unsigned n_parts;
} job;

typedef struct range {
    size_t begin, end;
} range;

/* The part's share of n items, in steps. */
static range share(part me, size_t n, size_t step) {
    const size_t n_steps = (n + step - 1) / step;
    const size_t begin = n_steps * me.number / me.of * step;
    const size_t end = n_steps * (me.number + 1) / me.of * step;
    return (range){begin < n ? begin : n, end < n ? end : n};
}

static size_t tile_rows(const eb_tensor *tensor) {
    const size_t rows = (size_t)(TILE_BYTES / tensor->row_bytes) / TILE_ROWS_STEP * TILE_ROWS_STEP;
    return rows < TILE_ROWS_STEP ? TILE_ROWS_STEP : rows > EB_TILE_ROWS_MAX ? EB_TILE_ROWS_MAX : rows;
}

/* dot products of rows begin .. end-1 of a t2 tensor with the quantised token `b` */
static void gemv(const eb_engine *engine, const eb_tensor *tensor, int32_t *dots, uint32_t b, size_t begin,
                 size_t end) {
    const eb_chunk *chunk = &engine->chunk;
    const uint8_t *rows = (const uint8_t *)tensor->values + begin * tensor->row_bytes;
    engine->kernels.gemv_t2_i8(dots, rows, chunk->x + b * engine->widest_stride, chunk->x_sum[b], end - begin,
                               tensor->row_bytes * 4);
}

/* out[b][row] (+)= BitLinear(token b)[row] for this thread's rows of `tensor` */
static void linear(eb_engine *engine, const eb_tensor *tensor, float *out, size_t out_stride, int add, part me) {
    const eb_chunk *chunk = &engine->chunk;
    const range rows = share(me, tensor->rows, TILE_ROWS_STEP);
    const size_t step = tile_rows(tensor);
    int32_t *dots = engine->dots + me.thread * 2 * engine->tile_size;
    for (size_t begin = rows.begin; begin < rows.end; begin += step) {
        const size_t end = begin + step < rows.end ? begin + step : rows.end;
        for (uint32_t b = 0; b < chunk->n; b++) {
            gemv(engine, tensor, dots, b, begin, end);
            eb_scale_dots(out + b * out_stride + begin, dots, chunk->x_scale[b],
                          tensor->scales + (tensor->by_row ? begin : 0), (int)tensor->by_row, end - begin, add);
        }
    }
}

static void quantise(eb_engine *engine, uint32_t b, const float *x, size_t n) {
    eb_chunk *chunk = &engine->chunk;
    eb_quantise_i8(chunk->x + b * engine->widest_stride, &chunk->x_scale[b], &chunk->x_sum[b], x, n);
}

/* ---- the jobs of a layer, in their order ---- */

static void norm_hidden(job *task, unsigned place, part me) {
    eb_engine *engine = task->engine;
    const range tokens = share(me, engine->chunk.n, 1);
    for (size_t b = tokens.begin; b < tokens.end; b++) {
        float *normed = engine->chunk.normed + b * engine->widest_stride;
        eb_rmsnorm(normed, engine->chunk.hidden + b * engine->hidden_stride, task->layer->tensor[place].values,
                   engine->model->info.hidden_size, engine->model->config.rms_norm_eps);
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

static size_t kv_offset(const eb_engine *engine, uint32_t sequence, uint32_t layer, uint32_t kv_head) {
    const eb_model_info *info = &engine->model->info;
    return (((size_t)sequence * info->n_layers + layer) * info->n_kv_heads + kv_head) * (size_t)engine->kv_head_size;
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
    const size_t half = info->head_dim / 2, stride = engine->head_stride;
    const size_t n_heads = info->n_heads, n_kv = info->n_kv_heads, row = (n_heads + 2 * n_kv) * info->head_dim;
    /* Items are the query heads and then the key-value heads of each token. */
    const range items = share(me, chunk->n * (n_heads + n_kv), 1);
    for (size_t item = items.begin; item < items.end; item++) {
        const size_t b = item / (n_heads + n_kv), h = item % (n_heads + n_kv);
        const float *from = chunk->qkv + b * row + h * info->head_dim;
        const float *cosines = chunk->cosines + b * half, *sines = chunk->sines + b * half;
        if (h < n_heads) {
            float *q = chunk->q + (b * n_heads + h) * stride;
            eb_rope_rotate(q, from, cosines, sines, half);
            zero_rest(q, info->head_dim, stride);
            continue;
        }
        const size_t at = kv_offset(engine, chunk->sequence[b], task->layer_index, (uint32_t)(h - n_heads)) +
                          chunk->position[b] * stride;
        eb_rope_rotate(engine->keys + at, from, cosines, sines, half);
        zero_rest(engine->keys + at, info->head_dim, stride);
        eb_memcpy(engine->values + at, from + n_kv * info->head_dim, info->head_dim * sizeof(float));
        zero_rest(engine->values + at, info->head_dim, stride);
    }
}

static void attention_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_model_info *info = &engine->model->info;
    const eb_chunk *chunk = &engine->chunk;
    const size_t n_heads = info->n_heads, group = n_heads / info->n_kv_heads, stride = engine->head_stride;
    float *scores = engine->scores + me.thread * engine->scores_size;
    /* Items are the heads of each token; those of one group go together, as far as they are this thread's. */
    const range items = share(me, chunk->n * n_heads, 1);
    for (size_t item = items.begin; item < items.end;) {
        const size_t b = item / n_heads, h = item % n_heads;
        const size_t group_end = item + group - h % group;
        const size_t end = group_end < items.end ? group_end : items.end;
        const size_t at = kv_offset(engine, chunk->sequence[b], task->layer_index, (uint32_t)(h / group));
        eb_attention(chunk->mixed + b * engine->mixed_stride + h * info->head_dim, chunk->q + item * stride,
                     engine->keys + at, engine->values + at, scores, end - item, chunk->position[b] + 1, info->head_dim,
                     stride);
        item = end;
    }
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
            eb_rmsnorm(normed, x, weight->values, n, engine->model->config.rms_norm_eps);
            x = normed;
        }
        quantise(engine, (uint32_t)b, x, n);
    }
}

static void attn_sub_norm_job(job *task, part me) {
    const eb_model_info *info = &task->engine->model->info;
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
    const range rows = share(me, gate->rows, TILE_ROWS_STEP);
    const size_t step = tile_rows(gate);
    int32_t *dots = engine->dots + me.thread * 2 * engine->tile_size;
    float gate_values[EB_TILE_ROWS_MAX], up_values[EB_TILE_ROWS_MAX];
    for (size_t begin = rows.begin; begin < rows.end; begin += step) {
        const size_t end = begin + step < rows.end ? begin + step : rows.end, n = end - begin;
        for (uint32_t b = 0; b < chunk->n; b++) {
            gemv(engine, gate, dots, b, begin, end);
            gemv(engine, up, dots + engine->tile_size, b, begin, end);
            eb_scale_dots(gate_values, dots, chunk->x_scale[b], gate->scales + (gate->by_row ? begin : 0),
                          (int)gate->by_row, n, 0);
            eb_scale_dots(up_values, dots + engine->tile_size, chunk->x_scale[b], up->scales + (up->by_row ? begin : 0),
                          (int)up->by_row, n, 0);
            float *gated = chunk->gated + b * engine->ffn_stride + begin;
            if (engine->model->config.activation == EB_RELU2)
                eb_gate_relu2(gated, gate_values, up_values, n);
            else
                eb_gate_silu(gated, gate_values, up_values, n);
        }
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

/* A job that reads fewer bytes of weights than this, over all tokens, is done sooner by one thread than the others can
 * be told of it (some microseconds). Larger ones go in more parts than there are threads, since no two cores are
 * equally fast at a given moment. */
enum { PARALLEL_BYTES = 16384, PARTS_PER_THREAD = 4 };

static void do_part(void *context, unsigned number, unsigned thread) {
    job *task = context;
    task->work(task, (part){number, task->n_parts, thread});
}

static void run(job *task, void (*work)(job *task, part me), int parallel) {
    task->work = work;
    task->n_parts = parallel && task->engine->n_threads > 1 ? task->engine->n_threads * PARTS_PER_THREAD : 1;
    eb_threadpool_run(task->engine->pool, do_part, task, task->n_parts);
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
    return positions * engine->model->info.n_heads * engine->head_stride * sizeof(float) >= PARALLEL_BYTES;
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

/* ---- embedding, positions, head ---- */

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

void eb_prepare_rope(eb_engine *engine) {
    const size_t half = engine->model->info.head_dim / 2;
    for (uint32_t b = 0; b < engine->chunk.n; b++)
        eb_rope_angles(engine->chunk.cosines + b * half, engine->chunk.sines + b * half,
                       engine->model->tensor[EB_ROPE_INV_FREQ].values, engine->chunk.position[b], half);
}

static void final_norm_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_wanted *wanted = &engine->wanted;
    const size_t n = engine->model->info.hidden_size, stride = engine->hidden_stride;
    const range tokens = share(me, wanted->n, 1);
    for (size_t i = tokens.begin; i < tokens.end; i++) {
        float *normed = engine->chunk.normed + i * engine->widest_stride;
        eb_rmsnorm(normed, engine->chunk.hidden + wanted->token[i] * stride,
                   engine->model->tensor[EB_FINAL_NORM].values, n, engine->model->config.rms_norm_eps);
        eb_quantise_i15(wanted->q + i * stride, wanted->hi + i * stride, wanted->lo + i * stride, &wanted->scale[i],
                        normed, n);
    }
}

static void head_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_wanted *wanted = &engine->wanted;
    const eb_tensor *head = &engine->model->tensor[EB_HEAD];
    const size_t stride = engine->hidden_stride, vocab = engine->model->info.vocab_size;
    const range rows = share(me, vocab, TILE_ROWS_STEP);
    const size_t step = tile_rows(head);
    int64_t *dots = engine->dots64 + me.thread * engine->tile_size;
    for (size_t begin = rows.begin; begin < rows.end; begin += step) {
        const size_t end = begin + step < rows.end ? begin + step : rows.end;
        for (uint32_t i = 0; i < wanted->n; i++) {
            const eb_i15 x = {wanted->q + i * stride, wanted->hi + i * stride, wanted->lo + i * stride};
            engine->kernels.gemv_i8_i15(dots, (const int8_t *)head->values + begin * head->row_bytes, &x, end - begin,
                                        head->row_bytes);
            float *logits = engine->logits + (size_t)(wanted->first_row + i) * vocab;
            for (size_t row = begin; row < end; row++)
                logits[row] = (float)dots[row - begin] * (head->scales[row] * wanted->scale[i]);
        }
    }
}

void eb_run_head(eb_engine *engine) {
    const eb_tensor *head = &engine->model->tensor[EB_HEAD];
    job task = {.engine = engine};
    run(&task, final_norm_job, engine->wanted.n > 1);
    run(&task, head_job, head->row_bytes * head->rows * engine->wanted.n >= PARALLEL_BYTES);
}
