/* engine.c - sequences and batches: opening, eb_eval(), cancelling, figures. */
#include "engine.h"
#include "arena.h"
#include "cpu.h"
#include "crc32.h"
#include "float_mode.h"
#include "mem.h"
#include "ops.h"
#include "status.h"

typedef unsigned long long ull; /* for %llu */

enum { MAX_BATCH_LEN = 4096, MAX_SEQUENCES = 4096, MAX_LOGITS_ROWS = 4096 };

#define FAIL(status, ...)                                                                                              \
    do {                                                                                                               \
        eb_fail(&engine->error, __VA_ARGS__);                                                                          \
        return status;                                                                                                 \
    } while (0)

/* ---- opening and closing ---- */

static uint32_t or_default(uint32_t value, uint32_t otherwise) { return value ? value : otherwise; }

static eb_status set_options(eb_engine *engine, const eb_engine_options *options) {
    static const eb_engine_options defaults = {.size = sizeof(eb_engine_options)};
    if (!options)
        options = &defaults;
    if (options->size != sizeof(eb_engine_options))
        FAIL(EB_BAD_ARGUMENT, "the engine's options have %u bytes, this library wants %u", options->size,
             (unsigned)sizeof(eb_engine_options));
    const uint32_t context_max = engine->model->info.context_max;
    engine->ctx_len = or_default(options->ctx_len, context_max);
    engine->n_sequences = or_default(options->n_sequences, 1);
    engine->n_threads = engine->threads_max = or_default(options->n_threads, 1);
    engine->batch_len = or_default(options->batch_len, 128);
    engine->logits_rows = or_default(options->logits_rows, engine->n_sequences);
    engine->kv.type = (eb_kv_type)or_default(options->kv_type, EB_KV_F16);
    if (engine->ctx_len > context_max)
        FAIL(EB_BAD_ARGUMENT, "a context of %u tokens is longer than the model was made for, %u", engine->ctx_len,
             context_max);
    if (engine->n_sequences > MAX_SEQUENCES)
        FAIL(EB_BAD_ARGUMENT, "%u sequences; there can be %d", engine->n_sequences, MAX_SEQUENCES);
    if (engine->n_threads > EB_MAX_THREADS)
        FAIL(EB_BAD_ARGUMENT, "%u threads; there can be %d", engine->n_threads, EB_MAX_THREADS);
    if (engine->batch_len > MAX_BATCH_LEN)
        FAIL(EB_BAD_ARGUMENT, "batch_len is %u; it can be at most %d", engine->batch_len, MAX_BATCH_LEN);
    if (engine->logits_rows > MAX_LOGITS_ROWS)
        FAIL(EB_BAD_ARGUMENT, "%u rows of logits; there can be %d", engine->logits_rows, MAX_LOGITS_ROWS);
    if (options->kv_type > EB_KV_F32)
        FAIL(EB_BAD_ARGUMENT, "kv_type is %u; it can be 1 (f16), 2 (int8) or 3 (f32)", options->kv_type);
    return EB_OK;
}

/* The most groups of columns that a projection has. */
static uint32_t most_groups(const eb_model *model) {
    uint32_t most = 1;
    for (uint32_t layer = 0; layer < model->info.n_layers; layer++)
        for (unsigned place = 0; place < EB_N_LAYER_TENSORS; place++)
            if (model->layers[layer].tensor[place].n_groups > most)
                most = model->layers[layer].tensor[place].n_groups;
    return most;
}

static void set_sizes(eb_engine *engine) {
    const eb_model_info *info = &engine->model->info;
    engine->hidden_stride = eb_round_up(info->hidden_size, 64);
    engine->mixed_stride = eb_round_up((size_t)info->n_heads * info->head_dim, 64);
    engine->ffn_stride = eb_round_up(info->ffn_size, 64);
    engine->widest_stride = engine->hidden_stride;
    if (engine->widest_stride < engine->mixed_stride)
        engine->widest_stride = engine->mixed_stride;
    if (engine->widest_stride < engine->ffn_stride)
        engine->widest_stride = engine->ffn_stride;
    engine->head_stride = eb_round_up(info->head_dim, 16);
    eb_kv_cache_plan(&engine->kv, engine->kv.type, info->head_dim, engine->ctx_len);
    engine->dots_size = (size_t)engine->batch_len * EB_GEMM_ROWS;
    if (engine->dots_size < EB_GEMV_ROWS)
        engine->dots_size = EB_GEMV_ROWS;
    engine->head_k = engine->model->tensor[EB_HEAD].k;
    engine->max_groups = most_groups(engine->model);
}

/* Of engine->values: none where dots become what they stand for at once. */
static size_t values_size(const eb_engine *engine) {
    const eb_config *config = &engine->model->config;
    const int at_once =
        engine->max_groups == 1 && config->quantisation == EB_INT8 && !(config->norms & EB_PROJECTION_NORM);
    return at_once ? 0 : engine->dots_size;
}

/* Every buffer but the KV cache; called twice, see arena.h. */
static void take_buffers(eb_engine *engine, eb_arena *arena) {
    const eb_model_info *info = &engine->model->info;
    const uint64_t b = engine->batch_len, threads = engine->n_threads;
    const uint64_t head_dim = info->head_dim, n_heads = info->n_heads, n_kv = info->n_kv_heads;
    eb_chunk *chunk = &engine->chunk;
    chunk->sequence = eb_arena_take(arena, b, sizeof *chunk->sequence);
    chunk->position = eb_arena_take(arena, b, sizeof *chunk->position);
    chunk->cosines = eb_arena_take(arena, b * head_dim / 2, sizeof *chunk->cosines);
    chunk->sines = eb_arena_take(arena, b * head_dim / 2, sizeof *chunk->sines);
    chunk->hidden = eb_arena_take(arena, b * engine->hidden_stride, sizeof *chunk->hidden);
    chunk->normed = eb_arena_take(arena, b * engine->widest_stride, sizeof *chunk->normed);
    chunk->qkv = eb_arena_take(arena, b * (n_heads + 2 * n_kv) * head_dim, sizeof *chunk->qkv);
    chunk->q = eb_arena_take(arena, b * n_heads * engine->head_stride, sizeof *chunk->q);
    chunk->mixed = eb_arena_take(arena, b * engine->mixed_stride, sizeof *chunk->mixed);
    chunk->gated = eb_arena_take(arena, b * engine->ffn_stride, sizeof *chunk->gated);
    eb_inputs_take(engine, arena);
    eb_wanted *wanted = &engine->wanted;
    wanted->token = eb_arena_take(arena, b, sizeof *wanted->token);
    wanted->hi = eb_arena_take(arena, b * engine->head_k, sizeof *wanted->hi);
    wanted->lo = eb_arena_take(arena, b * engine->head_k, sizeof *wanted->lo);
    wanted->scale = eb_arena_take(arena, b, sizeof *wanted->scale);
    wanted->sum = eb_arena_take(arena, b, sizeof *wanted->sum);
    wanted->length = eb_arena_take(arena, b, sizeof *wanted->length);
    wanted->least = eb_arena_take(arena, EB_BEST_TOKENS, sizeof *wanted->least);
    engine->length = eb_arena_take(arena, engine->n_sequences, sizeof *engine->length);
    engine->next = eb_arena_take(arena, engine->n_sequences, sizeof *engine->next);
    eb_attention_take(engine, arena);
    engine->dots = eb_arena_take(arena, threads * 2 * engine->dots_size, sizeof *engine->dots);
    engine->values = eb_arena_take(arena, threads * 2 * values_size(engine), sizeof *engine->values);
    engine->codes = eb_arena_take(arena, threads * EB_GEMM_ROWS * engine->widest_stride, sizeof *engine->codes);
    engine->dots64 = eb_arena_take(arena, threads * EB_HEAD_ROWS, sizeof *engine->dots64);
    const uint64_t best_tokens = engine->logits_rows < EB_BEST_TOKENS ? engine->logits_rows : EB_BEST_TOKENS;
    engine->high_dots = eb_arena_take(arena, best_tokens * info->vocab_size, sizeof *engine->high_dots);
    engine->best = eb_arena_take(arena, EB_BEST_TOKENS * EB_MAX_BEST, sizeof *engine->best);
    engine->logits = eb_arena_take(arena, (uint64_t)engine->logits_rows * info->vocab_size, sizeof *engine->logits);
}

static eb_status take_memory(eb_engine *engine) {
    const eb_model_info *info = &engine->model->info;
    eb_arena arena = {0};
    take_buffers(engine, &arena);
    engine->arena_bytes = arena.used;
    arena = (eb_arena){.base = eb_arena_block(&engine->host, engine->arena_bytes, &engine->arena_block)};
    if (!arena.base)
        FAIL(EB_NO_MEMORY, "no memory for the engine's buffers: %llu MiB", (ull)(engine->arena_bytes >> 20));
    take_buffers(engine, &arena);
    /* What is filled up with zeros at the end of a row and never written again: attention's result and the gate's. */
    eb_memset(engine->chunk.mixed, 0, engine->batch_len * engine->mixed_stride * sizeof *engine->chunk.mixed);
    eb_memset(engine->chunk.gated, 0, engine->batch_len * engine->ffn_stride * sizeof *engine->chunk.gated);
    eb_memset(engine->length, 0, engine->n_sequences * sizeof *engine->length);

    /* The KV cache is not touched here: the host gives pages as the sequences grow into them. */
    eb_arena kv = {0};
    const uint64_t n_kv_heads = (uint64_t)engine->n_sequences * info->n_layers * info->n_kv_heads; /* at most 2^32 */
    eb_arena_take(&kv, n_kv_heads, engine->kv.head_bytes);
    engine->kv_bytes = kv.used;
    engine->kv.base = eb_arena_block(&engine->host, engine->kv_bytes, &engine->kv_block);
    if (!engine->kv.base)
        FAIL(EB_NO_MEMORY, "no memory for a KV cache of %u x %u tokens: %llu MiB", engine->n_sequences, engine->ctx_len,
             (ull)(engine->kv_bytes >> 20));
    return EB_OK;
}

static eb_status prepare(eb_engine *engine, const eb_engine_options *options) {
    eb_isa isa = {0};
    eb_status status = eb_isa_choose(&engine->host, &isa, &engine->error);
    if (status)
        return status;
    engine->isa = isa.name;
    engine->kernels = eb_dispatch(isa.features);
    if ((status = set_options(engine, options)))
        return status;
    set_sizes(engine);
    if ((status = take_memory(engine)))
        return status;
    engine->pool = eb_threadpool_open(&engine->host, engine->n_threads, &engine->error);
    return engine->pool ? EB_OK : EB_NO_MEMORY;
}

eb_status eb_engine_open(const eb_model *model, const eb_engine_options *options, eb_engine **out, eb_error *error) {
    if (!model || !out) {
        eb_fail(error, "eb_engine_open: model or out is null");
        return EB_BAD_ARGUMENT;
    }
    *out = NULL;
    eb_engine *engine = eb_alloc(&model->host, 1, sizeof(eb_engine));
    if (!engine) {
        eb_fail(error, "no memory for an engine");
        return EB_NO_MEMORY;
    }
    eb_memset(engine, 0, sizeof *engine);
    engine->host = model->host;
    engine->model = model;
    const eb_status status = prepare(engine, options);
    if (status) {
        if (error)
            *error = engine->error;
        eb_engine_close(engine);
        return status;
    }
    *out = engine;
    return EB_OK;
}

void eb_engine_close(eb_engine *engine) {
    if (!engine)
        return;
    eb_threadpool_close(engine->pool);
    if (engine->kv_block)
        engine->host.free(engine->kv_block);
    if (engine->arena_block)
        engine->host.free(engine->arena_block);
    engine->host.free(engine);
}

const char *eb_engine_error(const eb_engine *engine) { return engine ? engine->error.text : "the engine is null"; }

const char *eb_engine_isa(const eb_engine *engine) { return engine ? engine->isa : NULL; }

eb_status eb_engine_set_threads(eb_engine *engine, uint32_t n_threads) {
    if (!engine)
        return EB_BAD_ARGUMENT;
    if (!n_threads || n_threads > engine->threads_max)
        FAIL(EB_BAD_ARGUMENT, "%u threads: the engine was opened with %u, it can run on 1 to that many", n_threads,
             engine->threads_max);
    engine->n_threads = n_threads;
    eb_threadpool_resize(engine->pool, n_threads);
    return EB_OK;
}

/* ---- evaluation ---- */

static uint64_t now_ns(const eb_engine *engine) {
    int64_t time[2] = {0};
    engine->host.clock_gettime(engine->host.clock_monotonic, time);
    return (uint64_t)time[0] * 1000000000u + (uint64_t)time[1];
}

static uint32_t sequence_of(const eb_batch *batch, uint32_t i) { return batch->sequences ? batch->sequences[i] : 0; }

static int is_wanted(const eb_batch *batch, uint32_t i) {
    return batch->want_logits ? batch->want_logits[i] != 0 : i + 1 == batch->n_tokens;
}

static void restart_lengths(eb_engine *engine) {
    for (uint32_t s = 0; s < engine->n_sequences; s++)
        engine->next[s] = engine->length[s];
}

/* Checks the whole batch before anything is computed. *n_wanted: tokens wanted; *is_prefill: some sequence gets more than
 * one token. */
static eb_status check_batch(eb_engine *engine, const eb_batch *batch, uint32_t *n_wanted, int *is_prefill) {
    if (!batch || !batch->n_tokens || !batch->tokens)
        FAIL(EB_BAD_ARGUMENT, "the batch has no tokens");
    restart_lengths(engine);
    *is_prefill = 0;
    *n_wanted = 0;
    for (uint32_t i = 0; i < batch->n_tokens; i++) {
        const int32_t token = batch->tokens[i];
        const uint32_t sequence = sequence_of(batch, i);
        if (token < 0 || (uint32_t)token >= engine->model->info.vocab_size)
            FAIL(EB_BAD_ARGUMENT, "token %d (number %u of the batch) is outside the vocabulary of %u", token, i,
                 engine->model->info.vocab_size);
        if (sequence >= engine->n_sequences)
            FAIL(EB_BAD_ARGUMENT, "sequence %u (of token %u of the batch) is not there: the engine has %u", sequence, i,
                 engine->n_sequences);
        if (engine->next[sequence] >= engine->ctx_len)
            FAIL(EB_LIMIT,
                 "the context is full: sequence %u has %u tokens, the batch brings more, and there is room for %u",
                 sequence, engine->length[sequence], engine->ctx_len);
        engine->next[sequence]++;
        *is_prefill |= engine->next[sequence] > engine->length[sequence] + 1;
        *n_wanted += (uint32_t)is_wanted(batch, i);
    }
    return EB_OK;
}

static int is_cancelled(const eb_engine *engine) { return __atomic_load_n(&engine->cancelled, __ATOMIC_RELAXED) != 0; }

/* The sum of the chunk's last token's hidden state, for golden probes. */
static uint32_t hidden_sum(const eb_engine *engine) {
    const eb_chunk *chunk = &engine->chunk;
    return eb_crc32(0, chunk->hidden + (chunk->n - 1) * engine->hidden_stride,
                    engine->model->info.hidden_size * sizeof(float));
}

/* Runs the layers over the chunk, whose hidden states, sequences and positions are set. */
static eb_status run_chunk(eb_engine *engine) {
    eb_prepare_positions(engine);
    for (uint32_t layer = 0; layer < engine->model->info.n_layers; layer++) {
        if (is_cancelled(engine))
            return EB_CANCELLED;
        if (engine->trace)
            engine->trace[layer] = hidden_sum(engine);
        eb_run_layer(engine, layer);
    }
    if (engine->trace)
        engine->trace[engine->model->info.n_layers] = hidden_sum(engine);
    return EB_OK;
}

static eb_status eval_chunk(eb_engine *engine, const eb_batch *batch, uint32_t begin) {
    eb_chunk *chunk = &engine->chunk;
    eb_wanted *wanted = &engine->wanted;
    const uint32_t left = batch->n_tokens - begin;
    chunk->n = left < engine->batch_len ? left : engine->batch_len;
    wanted->n = 0;
    wanted->n_best = batch->n_best > EB_MAX_BEST ? 0 : batch->n_best;
    wanted->first_row = engine->n_logits;
    for (uint32_t b = 0; b < chunk->n; b++) {
        chunk->sequence[b] = sequence_of(batch, begin + b);
        chunk->position[b] = engine->next[chunk->sequence[b]]++;
        if (is_wanted(batch, begin + b))
            wanted->token[wanted->n++] = b;
    }
    eb_embed(engine, batch->tokens + begin);
    const eb_status status = run_chunk(engine);
    if (status)
        return status;
    if (wanted->n)
        eb_run_head(engine);
    engine->n_logits += wanted->n;
    return EB_OK;
}

/* states: where the final hidden states of the wanted tokens go, or NULL for their logits. */
static eb_status eval(eb_engine *engine, const eb_batch *batch, float *states) {
    const uint64_t started = now_ns(engine);
    uint32_t n_wanted = 0;
    int is_prefill = 0;
    engine->n_logits = 0;
    eb_status status = check_batch(engine, batch, &n_wanted, &is_prefill);
    if (status)
        return status;
    if (!states && n_wanted > engine->logits_rows)
        FAIL(EB_LIMIT, "logits of %u tokens are wanted, and the engine has %u rows", n_wanted, engine->logits_rows);
    engine->wanted.states = states;
    restart_lengths(engine);
    for (uint32_t begin = 0; begin < batch->n_tokens && !status; begin += engine->chunk.n)
        status = eval_chunk(engine, batch, begin);
    if (status == EB_CANCELLED) {
        engine->n_logits = 0;
        eb_cancel_reset(engine);
        FAIL(EB_CANCELLED, "cancelled");
    }
    if (states)
        engine->n_logits = 0;
    for (uint32_t s = 0; s < engine->n_sequences; s++)
        engine->length[s] = engine->next[s];
    const uint64_t took = now_ns(engine) - started;
    if (is_prefill) {
        engine->stats.prefill_tokens += batch->n_tokens;
        engine->stats.prefill_ns += took;
    } else {
        engine->stats.decode_tokens += batch->n_tokens;
        engine->stats.decode_ns += took;
    }
    return EB_OK;
}

eb_status eb_eval(eb_engine *engine, const eb_batch *batch) {
    if (!engine)
        return EB_BAD_ARGUMENT;
    const eb_float_mode before = eb_float_mode_enter();
    const eb_status status = eval(engine, batch, NULL);
    eb_float_mode_leave(before);
    return status;
}

eb_status eb_eval_states(eb_engine *engine, const eb_batch *batch, float *states) {
    if (!engine)
        return EB_BAD_ARGUMENT;
    if (!states)
        FAIL(EB_BAD_ARGUMENT, "eb_eval_states: states is null");
    const eb_float_mode before = eb_float_mode_enter();
    const eb_status status = eval(engine, batch, states);
    eb_float_mode_leave(before);
    return status;
}

static eb_status eval_layer(eb_engine *engine, uint32_t layer, uint32_t sequence, float *hidden, uint32_t n_tokens) {
    const eb_model_info *info = &engine->model->info;
    if (!hidden || layer >= info->n_layers || sequence >= engine->n_sequences)
        FAIL(EB_BAD_ARGUMENT, "eb_eval_layer: layer %u or sequence %u is not there, or hidden is null", layer,
             sequence);
    if (engine->length[sequence])
        FAIL(EB_BAD_ARGUMENT, "eb_eval_layer: sequence %u is not empty", sequence);
    if (n_tokens > engine->ctx_len)
        FAIL(EB_LIMIT, "eb_eval_layer: %u tokens do not fit the context of %u", n_tokens, engine->ctx_len);
    eb_chunk *chunk = &engine->chunk;
    for (uint32_t begin = 0; begin < n_tokens; begin += chunk->n) {
        chunk->n = n_tokens - begin < engine->batch_len ? n_tokens - begin : engine->batch_len;
        for (uint32_t b = 0; b < chunk->n; b++) {
            float *row = chunk->hidden + b * engine->hidden_stride;
            chunk->sequence[b] = sequence;
            chunk->position[b] = begin + b;
            eb_memset(row, 0, engine->hidden_stride * sizeof *row);
            eb_memcpy(row, hidden + (size_t)(begin + b) * info->hidden_size, info->hidden_size * sizeof *row);
        }
        eb_prepare_positions(engine);
        eb_run_layer(engine, layer);
        for (uint32_t b = 0; b < chunk->n; b++)
            eb_memcpy(hidden + (size_t)(begin + b) * info->hidden_size, chunk->hidden + b * engine->hidden_stride,
                      info->hidden_size * sizeof(float));
    }
    return EB_OK;
}

eb_status eb_eval_layer(eb_engine *engine, uint32_t layer, uint32_t sequence, float *hidden, uint32_t n_tokens) {
    if (!engine)
        return EB_BAD_ARGUMENT;
    const eb_float_mode before = eb_float_mode_enter();
    const eb_status status = eval_layer(engine, layer, sequence, hidden, n_tokens);
    eb_float_mode_leave(before);
    return status;
}

/* ---- state and figures ---- */

const float *eb_logits(const eb_engine *engine, uint32_t row) {
    if (!engine || row >= engine->n_logits)
        return NULL;
    return engine->logits + (size_t)row * engine->model->info.vocab_size;
}

uint32_t eb_sequence_length(const eb_engine *engine, uint32_t sequence) {
    return engine && sequence < engine->n_sequences ? engine->length[sequence] : 0;
}

eb_status eb_sequence_truncate(eb_engine *engine, uint32_t sequence, uint32_t length) {
    if (!engine)
        return EB_BAD_ARGUMENT;
    if (sequence >= engine->n_sequences)
        FAIL(EB_BAD_ARGUMENT, "sequence %u is not there: the engine has %u", sequence, engine->n_sequences);
    if (length > engine->length[sequence])
        FAIL(EB_BAD_ARGUMENT, "sequence %u has %u tokens and cannot be cut to %u", sequence, engine->length[sequence],
             length);
    engine->length[sequence] = length;
    return EB_OK;
}

void eb_cancel(eb_engine *engine) {
    if (engine)
        __atomic_store_n(&engine->cancelled, 1, __ATOMIC_RELAXED);
}

void eb_cancel_reset(eb_engine *engine) {
    if (engine)
        __atomic_store_n(&engine->cancelled, 0, __ATOMIC_RELAXED);
}

void eb_engine_stats(const eb_engine *engine, eb_stats *out) {
    if (!engine || !out)
        return;
    *out = engine->stats;
    out->weight_bytes = engine->model->info.weight_bytes;
    out->kv_bytes = engine->kv_bytes;
    out->arena_bytes = engine->arena_bytes;
    out->n_threads = engine->n_threads;
}

void eb_engine_stats_reset(eb_engine *engine) {
    if (engine)
        engine->stats = (eb_stats){0};
}
