/* low_rank.c - the side paths of adapters: y += scale * B (A x), beside the products with ternary weights.
 *
 * x is what a projection reads before it is quantised, and before the norm of its own that it has in some models: what LoRA
 * trains on. Of one token, each number of A x and of y is one sum in one order, so results hang on nothing else. */
#include "arena.h"
#include "job.h"
#include "mem.h"
#include "ops.h"
#include "status.h"

enum { RANKS = 4, ROWS = 256 }; /* of A, of B that one item of a job computes for a token; multiples of 16 of B */

#define FAIL(status, ...) EB_FAIL(&engine->error, status, __VA_ARGS__)

/* ---- which adapter ---- */

static void take_buffers(eb_engine *engine, uint32_t rank, int has_gate, eb_arena *arena) {
    eb_adapting *adapting = &engine->adapting;
    const uint64_t b = engine->batch_len, gates = has_gate ? b * engine->model->info.ffn_size : 0;
    adapting->inner = eb_arena_take(arena, b * EB_MAX_READERS * rank, sizeof *adapting->inner);
    adapting->gate = eb_arena_take(arena, gates, sizeof *adapting->gate);
    adapting->up = eb_arena_take(arena, gates, sizeof *adapting->up);
}

/* Room for what the adapter needs, where there is not enough yet. */
static eb_status make_room(eb_engine *engine, const eb_adapter *adapter) {
    eb_adapting *adapting = &engine->adapting;
    const int had_gate = adapting->has_gate, has_gate = had_gate || adapter->has_gate;
    const uint32_t rank = adapting->rank > adapter->widest_rank ? adapting->rank : adapter->widest_rank;
    if (adapting->block && rank == adapting->rank && has_gate == had_gate)
        return EB_OK;
    const eb_adapting before = *adapting;
    eb_arena arena = {0};
    take_buffers(engine, rank, has_gate, &arena);
    const uint64_t bytes = arena.used;
    arena = (eb_arena){.base = eb_arena_block(&engine->host, bytes, &adapting->block)};
    if (!arena.base) {
        *adapting = before;
        FAIL(EB_NO_MEMORY, "no memory for the buffers of adapter %s: %llu KiB", adapter->name, (ull)(bytes >> 10));
    }
    take_buffers(engine, rank, has_gate, &arena);
    if (before.block)
        engine->host.free(before.block);
    adapting->rank = rank;
    adapting->has_gate = has_gate;
    adapting->bytes = bytes;
    return EB_OK;
}

eb_status eb_sequence_set_adapter(eb_engine *engine, uint32_t sequence, const eb_adapter *adapter) {
    if (!engine)
        return EB_BAD_ARGUMENT;
    if (sequence >= engine->n_sequences)
        FAIL(EB_BAD_ARGUMENT, "sequence %u is not there: the engine has %u", sequence, engine->n_sequences);
    if (engine->length[sequence])
        FAIL(EB_BAD_ARGUMENT, "sequence %u has %u tokens: an adapter is set while it is empty", sequence,
             engine->length[sequence]);
    if (adapter && adapter->model != engine->model)
        FAIL(EB_BAD_ARGUMENT, "adapter %s was opened for another model than the engine's", adapter->name);
    const eb_status status = adapter ? make_room(engine, adapter) : EB_OK;
    if (!status)
        engine->adapting.of_sequence[sequence] = adapter;
    return status;
}

void eb_adapt_chunk(eb_engine *engine) {
    eb_adapting *adapting = &engine->adapting;
    adapting->any = 0;
    for (uint32_t b = 0; b < engine->chunk.n; b++) {
        adapting->of_token[b] = adapting->of_sequence[engine->chunk.sequence[b]];
        adapting->any |= adapting->of_token[b] != NULL;
    }
}

int eb_adapts(const eb_engine *engine, uint32_t layer, const eb_reader *readers, unsigned n_readers) {
    for (uint32_t b = 0; b < engine->chunk.n; b++)
        for (unsigned i = 0; i < n_readers; i++)
            if (eb_adapter_pair(engine->adapting.of_token[b], layer, readers[i].projection))
                return 1;
    return 0;
}

/* ---- the work ---- */

/* A job with the paths that it is about. */
typedef struct path_job {
    job task;
    const eb_side_path *paths;
    unsigned n_paths;
} path_job;

enum side { OF_A, OF_B };

/* A block of rows of A or of B, of the pair that one item's token has for its path. */
typedef struct item {
    const eb_low_rank *pair;
    const eb_side_path *path;
    float *inner;
    size_t b, begin, n; /* n: rows; 0 where the token has no such pair, or it has no rows here */
    const unsigned char *values;
    const float *scales; /* NULL with EB_F16 */
} item;

/* Items go by path, then by block of rows, then by token: tokens share what they read of a pair. */
static item find_item(const path_job *of, size_t number, size_t n_blocks, enum side side) {
    const eb_engine *engine = of->task.engine;
    const size_t n_tokens = engine->chunk.n, p = number / (n_blocks * n_tokens), b = number % n_tokens;
    const size_t step = side == OF_A ? RANKS : ROWS, begin = number / n_tokens % n_blocks * step;
    const eb_side_path *path = &of->paths[p];
    const eb_low_rank *pair = eb_adapter_pair(engine->adapting.of_token[b], of->task.layer_index, path->projection);
    const size_t rows = !pair ? 0 : side == OF_A ? pair->rank : pair->rows;
    if (begin >= rows)
        return (item){0};
    const int is_i8 = pair->encoding == EB_I8;
    const size_t stride = side == OF_A ? eb_round_up(pair->columns, 16) : pair->rank;
    const unsigned char *values = side == OF_A ? pair->a : pair->b;
    return (item){.pair = pair,
                  .path = path,
                  .inner = engine->adapting.inner + (b * EB_MAX_READERS + p) * engine->adapting.rank,
                  .b = b,
                  .begin = begin,
                  .n = rows - begin < step ? rows - begin : step,
                  .values = values + begin * stride * (is_i8 ? 1 : 2),
                  .scales = is_i8 ? (side == OF_A ? pair->a_scales : pair->b_scales) + begin : NULL};
}

static size_t rank_blocks(const eb_engine *engine) { return (engine->adapting.rank + RANKS - 1) / RANKS; }

static size_t row_blocks(const path_job *of) {
    size_t most = 0;
    for (unsigned i = 0; i < of->n_paths; i++) {
        const uint32_t rows = of->task.layer->tensor[of->paths[i].projection].rows;
        most = rows > most ? rows : most;
    }
    return (most + ROWS - 1) / ROWS;
}

static void a_job(job *task, part me) {
    const path_job *of = (const path_job *)task;
    const eb_engine *engine = task->engine;
    const size_t n_blocks = rank_blocks(engine);
    const range items = share(me, of->n_paths * n_blocks * engine->chunk.n, 1);
    for (size_t number = items.begin; number < items.end; number++) {
        const item it = find_item(of, number, n_blocks, OF_A);
        if (it.n)
            (it.scales ? engine->kernels.lora_a_i8
                       : engine->kernels.lora_a_f16)(it.inner + it.begin, it.values, it.scales,
                                                     it.path->x + it.b * it.path->x_stride, it.n, it.pair->columns);
    }
}

static void b_job(job *task, part me) {
    const path_job *of = (const path_job *)task;
    const eb_engine *engine = task->engine;
    const size_t n_blocks = row_blocks(of);
    const range items = share(me, of->n_paths * n_blocks * engine->chunk.n, 1);
    for (size_t number = items.begin; number < items.end; number++) {
        const item it = find_item(of, number, n_blocks, OF_B);
        if (it.n)
            (it.scales ? engine->kernels.lora_b_i8
                       : engine->kernels.lora_b_f16)(it.path->y + it.b * it.path->y_stride + it.begin, it.values,
                                                     it.scales, it.pair->scale, it.inner, it.n, it.pair->rank);
    }
}

/* Bytes of A, or of B, that all tokens read together. */
static void count_bytes(const path_job *of, uint64_t *of_a, uint64_t *of_b) {
    const eb_engine *engine = of->task.engine;
    for (uint32_t b = 0; b < engine->chunk.n; b++)
        for (unsigned i = 0; i < of->n_paths; i++) {
            const eb_low_rank *pair =
                eb_adapter_pair(engine->adapting.of_token[b], of->task.layer_index, of->paths[i].projection);
            const uint64_t size = !pair ? 0 : pair->encoding == EB_I8 ? pair->rank : 2 * (uint64_t)pair->rank;
            *of_a += pair ? size * pair->columns : 0;
            *of_b += pair ? size * pair->rows : 0;
        }
}

void eb_add_side_paths(eb_engine *engine, uint32_t layer, const eb_side_path *paths, unsigned n_paths) {
    path_job of = {.task = {.engine = engine, .layer = &engine->model->layers[layer], .layer_index = layer},
                   .paths = paths,
                   .n_paths = n_paths};
    uint64_t a_bytes = 0, b_bytes = 0;
    count_bytes(&of, &a_bytes, &b_bytes);
    if (!a_bytes)
        return;
    run(&of.task, a_job, a_bytes >= PARALLEL_BYTES);
    run(&of.task, b_job, b_bytes >= PARALLEL_BYTES);
}
