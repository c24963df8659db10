/* engine_eval.c - batches: eb_eval(), eb_eval_states() and eb_eval_layer(), chunk by chunk. */
#include "crc32.h"
#include "engine.h"
#include "float_mode.h"
#include "mem.h"
#include "status.h"

#define FAIL(status, ...) EB_FAIL(&engine->error, status, __VA_ARGS__)

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
    wanted->allowed = batch->allowed ? batch->allowed + engine->n_logits : NULL;
    for (uint32_t b = 0; b < chunk->n; b++) {
        chunk->sequence[b] = sequence_of(batch, begin + b);
        chunk->position[b] = engine->next[chunk->sequence[b]]++;
        if (is_wanted(batch, begin + b))
            wanted->token[wanted->n++] = b;
    }
    eb_adapt_chunk(engine);
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
        eb_adapt_chunk(engine);
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
