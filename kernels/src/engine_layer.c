/* engine_layer.c - the forward pass: embedding and decoder layers. A layer is a row of jobs (job.h). */
#include "job.h"
#include "mem.h"
#include "ops.h"
#include "products.h"

/* ---- the jobs of a layer, in their order ---- */

static const eb_reader attention_readers[] = {
    {EB_Q_PROJ, EB_Q_PROJ_NORM}, {EB_K_PROJ, EB_K_PROJ_NORM}, {EB_V_PROJ, EB_V_PROJ_NORM}};
static const eb_reader o_reader = {EB_O_PROJ, EB_O_PROJ_NORM};
static const eb_reader ffn_readers[] = {{EB_GATE_PROJ, EB_GATE_PROJ_NORM}, {EB_UP_PROJ, EB_UP_PROJ_NORM}};
static const eb_reader down_reader = {EB_DOWN_PROJ, EB_DOWN_PROJ_NORM};

static void norm_hidden(job *task, unsigned place, const eb_reader *readers, unsigned n_readers, part me) {
    eb_engine *engine = task->engine;
    const range tokens = share(me, engine->chunk.n, 1);
    for (size_t b = tokens.begin; b < tokens.end; b++) {
        float *normed = engine->chunk.normed + b * engine->widest_stride;
        engine->kernels.rmsnorm(normed, engine->chunk.hidden + b * engine->hidden_stride,
                                task->layer->tensor[place].values, engine->model->info.hidden_size,
                                engine->model->config.rms_norm_eps);
        eb_put_inputs(engine, task->layer, readers, n_readers, (uint32_t)b, normed, engine->model->info.hidden_size);
    }
}

static void input_norm_job(job *task, part me) { norm_hidden(task, EB_INPUT_NORM, attention_readers, 3, me); }

static void qkv_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_model_info *info = &engine->model->info;
    const size_t q = (size_t)info->n_heads * info->head_dim, kv = (size_t)info->n_kv_heads * info->head_dim;
    float *const outs[] = {engine->chunk.qkv, engine->chunk.qkv + q, engine->chunk.qkv + q + kv};
    for (unsigned i = 0; i < 3; i++)
        eb_linear(engine, &task->layer->tensor[attention_readers[i].projection], &engine->chunk.input[i], outs[i],
                  q + 2 * kv, 0, me);
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

/* A head of queries or keys rotated, after its norm where the model has one: y [head_dim]. */
static void rotate_head(const job *task, float *y, const float *x, unsigned norm, size_t b) {
    eb_engine *engine = task->engine;
    const eb_chunk *chunk = &engine->chunk;
    const size_t head_dim = engine->model->info.head_dim, half = head_dim / 2;
    const float *weight = task->layer->tensor[norm].values;
    float normed[EB_MAX_HEAD_DIM];
    if (weight) {
        eb_memcpy(normed, x, head_dim * sizeof *x);
        zero_rest(normed, head_dim, eb_round_up(head_dim, 64));
        engine->kernels.rmsnorm(normed, normed, weight, head_dim, engine->model->config.rms_norm_eps);
        x = normed;
    }
    engine->kernels.rope_rotate(y, x, chunk->cosines + b * half, chunk->sines + b * half, half);
}

/* Rotates queries and keys, and puts keys and values into the cache. */
static void rope_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const eb_model_info *info = &engine->model->info;
    const eb_chunk *chunk = &engine->chunk;
    const size_t head_dim = info->head_dim, stride = engine->head_stride;
    const size_t n_heads = info->n_heads, n_kv = info->n_kv_heads, group = n_heads / n_kv;
    const float q_scale = 1.0f / __builtin_sqrtf((float)head_dim);
    float key[EB_MAX_HEAD_DIM], value[EB_MAX_HEAD_DIM];
    /* Items are the query heads and then the key-value heads of each token. */
    const range items = share(me, chunk->n * (n_heads + n_kv), 1);
    for (size_t item = items.begin; item < items.end; item++) {
        const size_t b = item / (n_heads + n_kv), h = item % (n_heads + n_kv);
        const float *from = chunk->qkv + b * (n_heads + 2 * n_kv) * head_dim + h * head_dim;
        if (h < n_heads) {
            float *q = chunk->q + ((h / group * engine->batch_len + b) * group + h % group) * stride;
            rotate_head(task, q, from, EB_Q_NORM, b);
            for (size_t i = 0; i < head_dim; i++)
                q[i] *= q_scale;
            zero_rest(q, head_dim, stride);
            continue;
        }
        rotate_head(task, key, from, EB_K_NORM, b);
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
static void sub_norm(const job *task, unsigned place, const eb_reader *reader, const float *from, size_t from_stride,
                     size_t n, part me) {
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
        eb_put_inputs(engine, task->layer, reader, 1, (uint32_t)b, x, n);
    }
}

static void attn_sub_norm_job(job *task, part me) {
    const eb_model_info *info = &task->engine->model->info;
    const range tokens = share(me, task->engine->chunk.n, 1);
    for (size_t b = tokens.begin; b < tokens.end; b++)
        eb_attention_finish(task->engine, (uint32_t)b);
    sub_norm(task, EB_ATTN_SUB_NORM_WEIGHT, &o_reader, task->engine->chunk.mixed, task->engine->mixed_stride,
             (size_t)info->n_heads * info->head_dim, me);
}

static void o_job(job *task, part me) {
    eb_engine *engine = task->engine;
    eb_linear(engine, &task->layer->tensor[EB_O_PROJ], engine->chunk.input, engine->chunk.hidden, engine->hidden_stride,
              1, me);
}

static void post_attention_norm_job(job *task, part me) {
    norm_hidden(task, EB_POST_ATTENTION_NORM, ffn_readers, 2, me);
}

static void gate_up_job(job *task, part me) {
    const eb_tensor *tensor = task->layer->tensor;
    eb_gate_up(task->engine, &tensor[EB_GATE_PROJ], &tensor[EB_UP_PROJ], task->engine->chunk.input, me);
}

static void ffn_sub_norm_job(job *task, part me) {
    sub_norm(task, EB_FFN_SUB_NORM_WEIGHT, &down_reader, task->engine->chunk.gated, task->engine->ffn_stride,
             task->engine->model->info.ffn_size, me);
}

static void down_job(job *task, part me) {
    eb_engine *engine = task->engine;
    eb_linear(engine, &task->layer->tensor[EB_DOWN_PROJ], engine->chunk.input, engine->chunk.hidden,
              engine->hidden_stride, 1, me);
}

/* ---- the same with adapters ---- */

static void gate_job(job *task, part me) {
    const eb_tensor *tensor = task->layer->tensor;
    eb_engine *engine = task->engine;
    eb_linear(engine, &tensor[EB_GATE_PROJ], &engine->chunk.input[0], engine->adapting.gate,
              engine->model->info.ffn_size, 0, me);
}

static void up_job(job *task, part me) {
    const eb_tensor *tensor = task->layer->tensor;
    eb_engine *engine = task->engine;
    eb_linear(engine, &tensor[EB_UP_PROJ], &engine->chunk.input[1], engine->adapting.up, engine->model->info.ffn_size,
              0, me);
}

static void activation_job(job *task, part me) {
    eb_engine *engine = task->engine;
    const size_t n = engine->model->info.ffn_size;
    const range tokens = share(me, engine->chunk.n, 1);
    for (size_t b = tokens.begin; b < tokens.end; b++)
        engine->kernels.gate_values(engine->chunk.gated + b * engine->ffn_stride, engine->adapting.gate + b * n,
                                    engine->adapting.up + b * n, n, engine->model->config.activation == EB_SILU);
}

static void add_to_qkv(eb_engine *engine, uint32_t layer) {
    const eb_model_info *info = &engine->model->info;
    const size_t q = (size_t)info->n_heads * info->head_dim, kv = (size_t)info->n_kv_heads * info->head_dim;
    const eb_chunk *chunk = &engine->chunk;
    const size_t from = engine->widest_stride, to = q + 2 * kv;
    const eb_side_path paths[] = {{EB_Q_PROJ, chunk->normed, chunk->qkv, from, to},
                                  {EB_K_PROJ, chunk->normed, chunk->qkv + q, from, to},
                                  {EB_V_PROJ, chunk->normed, chunk->qkv + q + kv, from, to}};
    eb_add_side_paths(engine, layer, paths, 3);
}

/* o_proj and down_proj read what their sub-norm gave or, where there is none, `from`, and add to the hidden state. */
static void add_to_hidden(eb_engine *engine, uint32_t layer, unsigned projection, unsigned sub_norm_place,
                          const float *from, size_t stride) {
    const int has_norm = engine->model->layers[layer].tensor[sub_norm_place].values != NULL;
    const eb_side_path path = {projection, has_norm ? engine->chunk.normed : from, engine->chunk.hidden,
                               has_norm ? engine->widest_stride : stride, engine->hidden_stride};
    eb_add_side_paths(engine, layer, &path, 1);
}

static void add_to_gate_up(eb_engine *engine, uint32_t layer) {
    const size_t n = engine->model->info.ffn_size;
    const eb_side_path paths[] = {{EB_GATE_PROJ, engine->chunk.normed, engine->adapting.gate, engine->widest_stride, n},
                                  {EB_UP_PROJ, engine->chunk.normed, engine->adapting.up, engine->widest_stride, n}};
    eb_add_side_paths(engine, layer, paths, 2);
}

static int is_large(const eb_engine *engine, const eb_tensor *tensor) {
    return tensor->row_bytes * tensor->n_groups * tensor->rows * engine->chunk.n >= PARALLEL_BYTES;
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
    if (engine->adapting.any)
        add_to_qkv(engine, layer);
    run(&task, rope_job, several);
    run(&task, attention_job, is_long(engine));
    run(&task, attn_sub_norm_job, several);
    run(&task, o_job, is_large(engine, &tensor[EB_O_PROJ]));
    if (engine->adapting.any)
        add_to_hidden(engine, layer, EB_O_PROJ, EB_ATTN_SUB_NORM_WEIGHT, engine->chunk.mixed, engine->mixed_stride);
    run(&task, post_attention_norm_job, several);
    if (engine->adapting.any && eb_adapts(engine, layer, ffn_readers, 2)) {
        run(&task, gate_job, is_large(engine, &tensor[EB_GATE_PROJ]));
        run(&task, up_job, is_large(engine, &tensor[EB_UP_PROJ]));
        add_to_gate_up(engine, layer);
        run(&task, activation_job, several);
    } else {
        run(&task, gate_up_job, is_large(engine, &tensor[EB_GATE_PROJ]));
    }
    run(&task, ffn_sub_norm_job, several);
    run(&task, down_job, is_large(engine, &tensor[EB_DOWN_PROJ]));
    if (engine->adapting.any)
        add_to_hidden(engine, layer, EB_DOWN_PROJ, EB_FFN_SUB_NORM_WEIGHT, engine->chunk.gated, engine->ffn_stride);
}

/* ---- embedding, positions ---- */

static float float_of_f16(uint16_t bits) {
    const uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
    uint32_t all = (bits & 0x8000u) << 16 | (exponent + 112) << 23 | fraction << 13;
    float x;
    if (!exponent) /* fraction * 2^-24, exactly */
        return (bits & 0x8000u ? -0x1p-24f : 0x1p-24f) * (float)fraction;
    if (exponent == 31) /* of a damaged file */
        all |= 0x7f800000u;
    eb_memcpy(&x, &all, sizeof x);
    return x;
}

static float float_of_bf16(uint16_t bits) {
    const uint32_t all = (uint32_t)bits << 16;
    float x;
    eb_memcpy(&x, &all, sizeof x);
    return x;
}

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
            for (size_t i = 0; i < n; i++)
                hidden[i] = float_of_bf16(eb_load_u16(row + 2 * i));
        else if (table->encoding == EB_F16)
            for (size_t i = 0; i < n; i++)
                hidden[i] = float_of_f16(eb_load_u16(row + 2 * i));
        else
            for (size_t i = 0; i < n; i++)
                hidden[i] = (float)(int8_t)row[i] * table->scales[token];
        zero_rest(hidden, n, engine->hidden_stride);
    }
}

void eb_prepare_positions(eb_engine *engine) {
    const size_t half = engine->model->info.head_dim / 2;
    const float factor = engine->model->config.rope_factor;
    for (uint32_t b = 0; b < engine->chunk.n; b++) {
        float *cosines = engine->chunk.cosines + b * half, *sines = engine->chunk.sines + b * half;
        eb_rope_angles(cosines, sines, engine->model->tensor[EB_ROPE_INV_FREQ].values, engine->chunk.position[b], half);
        if (factor != 1)
            for (size_t i = 0; i < half; i++) {
                cosines[i] *= factor;
                sines[i] *= factor;
            }
    }
    eb_attention_plan(engine);
}
