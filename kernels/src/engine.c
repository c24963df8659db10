/* engine.c - opening, sequences, cancelling, figures. */
#include "engine.h"
#include "arena.h"
#include "cpu.h"
#include "mem.h"
#include "ops.h"
#include "status.h"

enum { MAX_BATCH_LEN = 4096, MAX_SEQUENCES = 4096, MAX_LOGITS_ROWS = 4096 };

#define FAIL(status, ...) EB_FAIL(&engine->error, status, __VA_ARGS__)

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
    engine->adapting.of_sequence = eb_arena_take(arena, engine->n_sequences, sizeof *engine->adapting.of_sequence);
    engine->adapting.of_token = eb_arena_take(arena, b, sizeof *engine->adapting.of_token);
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
    eb_memset(engine->adapting.of_sequence, 0, engine->n_sequences * sizeof *engine->adapting.of_sequence);

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
    if (engine->adapting.block)
        engine->host.free(engine->adapting.block);
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
    out->arena_bytes = engine->arena_bytes + engine->adapting.bytes;
    out->n_threads = engine->n_threads;
}

void eb_engine_stats_reset(eb_engine *engine) {
    if (engine)
        engine->stats = (eb_stats){0};
}
