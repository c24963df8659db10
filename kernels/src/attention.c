/* attention.c - attention of a chunk, in items that any threads may do.
 *
 * Work goes in tiles of tokens and in segments of positions. A tile is some tokens of a chunk that follow on each other
 * in one sequence: keys and values are read and widened once for all of its queries of a group. A segment is EB_SEGMENT
 * positions; it gets a softmax of its own, and those of a row are merged in their order. Where segments begin hangs on
 * positions alone, so results hang neither on tiles, chunks and threads nor on which of these two is an item of work:
 *   a tile and its key-value head, segment by segment: prefill, large batches, one thread;
 *   a segment of these: few tokens and a long context, where there would be fewer items than threads. */
#include "arena.h"
#include "engine.h"
#include "mem.h"
#include "ops.h"

enum { SPLIT_TOKENS = 8, ITEMS_PER_THREAD = 8 };

static size_t group_heads(const eb_engine *engine) {
    return engine->model->info.n_heads / engine->model->info.n_kv_heads;
}

void eb_attention_take(eb_engine *engine, struct eb_arena *arena) {
    eb_attention *attention = &engine->attention;
    const eb_model_info *info = &engine->model->info;
    const uint64_t threads = engine->n_threads, stride = engine->head_stride, heads = group_heads(engine);
    attention->tokens_per_tile = 1; /* a power of two, so that no tile reaches over the end of a segment */
    while (attention->tokens_per_tile * 2 * heads <= EB_ATTEND_ROWS)
        attention->tokens_per_tile *= 2;
    attention->tiles = eb_arena_take(arena, engine->batch_len, sizeof *attention->tiles);
    attention->scores = eb_arena_take(arena, threads * EB_ATTEND_ROWS * EB_SEGMENT, sizeof *attention->scores);
    attention->sums = eb_arena_take(arena, threads * 2 * EB_ATTEND_ROWS * stride, sizeof *attention->sums);
    attention->softmax = eb_arena_take(arena, threads * 2 * EB_ATTEND_ROWS, sizeof *attention->softmax);
    attention->q15 = eb_arena_take(arena, threads * EB_ATTEND_ROWS * 2 * stride, sizeof *attention->q15);
    attention->max_segments = (uint32_t)(eb_round_up(engine->ctx_len, EB_SEGMENT) / EB_SEGMENT);
    const int splits = engine->n_threads > 1 && attention->max_segments > 1;
    attention->split_tokens = !splits ? 0 : engine->batch_len < SPLIT_TOKENS ? engine->batch_len : SPLIT_TOKENS;
    const uint64_t parts = (uint64_t)attention->max_segments * info->n_heads * attention->split_tokens;
    attention->part_sums = eb_arena_take(arena, parts * stride, sizeof *attention->part_sums);
    attention->part_softmax = eb_arena_take(arena, parts, sizeof *attention->part_softmax);
}

static uint32_t segments_of(uint32_t position) { return position / EB_SEGMENT + 1; }

void eb_attention_plan(eb_engine *engine) {
    eb_attention *attention = &engine->attention;
    const eb_chunk *chunk = &engine->chunk;
    attention->n_tiles = attention->n_segments = 0;
    for (uint32_t b = 0; b < chunk->n; b++) {
        if (b && chunk->sequence[b] == chunk->sequence[b - 1] && chunk->position[b] % attention->tokens_per_tile)
            attention->tiles[attention->n_tiles - 1].n++;
        else
            attention->tiles[attention->n_tiles++] = (eb_attention_tile){b, 1};
        if (attention->n_segments < segments_of(chunk->position[b]))
            attention->n_segments = segments_of(chunk->position[b]);
    }
    attention->by_segment = chunk->n <= attention->split_tokens && attention->n_segments > 1 &&
                            attention->n_tiles * engine->model->info.n_kv_heads < engine->n_threads * ITEMS_PER_THREAD;
}

size_t eb_attention_items(const eb_engine *engine) {
    const eb_attention *attention = &engine->attention;
    const size_t items = (size_t)attention->n_tiles * engine->model->info.n_kv_heads;
    return attention->by_segment ? items * attention->n_segments : items;
}

/* Where `rows` rows from (token, head of the group) on keep what segment `segment` gave. */
static size_t part_at(const eb_engine *engine, uint32_t segment, uint32_t kv_head, uint32_t token, size_t head) {
    const size_t heads = group_heads(engine);
    return (((size_t)segment * engine->model->info.n_kv_heads + kv_head) * engine->attention.split_tokens + token) *
               heads +
           head;
}

/* What the chunk's token gets from the sums of one of its heads. */
static void put_mixed(eb_engine *engine, uint32_t token, size_t head, const eb_softmax *softmax, const float *sums) {
    const size_t head_dim = engine->model->info.head_dim;
    float *mixed = engine->chunk.mixed + token * engine->mixed_stride + head * head_dim;
    const float inverse = 1.0f / softmax->total;
    for (size_t i = 0; i < head_dim; i++)
        mixed[i] = sums[i] * inverse;
}

/* At most EB_ATTEND_ROWS rows: heads `head` .. of the group, of all tokens of a tile or of its only one. */
typedef struct rows {
    eb_attention_tile tile;
    uint32_t kv_head;
    size_t head, heads;
} rows;

static void attend_segment(eb_engine *engine, const unsigned char *kv_head, const rows *of, uint32_t segment,
                           eb_softmax *softmax, float *sums, unsigned thread) {
    const eb_attention *attention = &engine->attention;
    const size_t stride = engine->head_stride, begin = (size_t)segment * EB_SEGMENT;
    const size_t seen = engine->chunk.position[of->tile.first] + 1 - begin; /* by the first token */
    const size_t q_row = (of->kv_head * (size_t)engine->batch_len + of->tile.first) * group_heads(engine) + of->head;
    const eb_attend a = {
        .kv = engine->kv.layout,
        .groups = kv_head + begin / EB_KV_GROUP * engine->kv.layout.group_bytes,
        .q = engine->chunk.q + q_row * stride,
        .n_rows = of->tile.n * of->heads,
        .rows_per_token = of->heads,
        .count = seen < EB_SEGMENT ? seen : EB_SEGMENT,
        .more = seen < EB_SEGMENT,
        .softmax = softmax,
        .sums = sums,
        .scores = attention->scores + (size_t)thread * EB_ATTEND_ROWS * EB_SEGMENT,
        .q15 = attention->q15 + thread * EB_ATTEND_ROWS * 2 * stride,
    };
    if (engine->kv.type == EB_KV_F16)
        engine->kernels.attend_f16(&a);
    else if (engine->kv.type == EB_KV_I8)
        engine->kernels.attend_i8(&a);
    else
        engine->kernels.attend_f32(&a);
}

/* All segments of the rows, and the result. */
static void attend_all(eb_engine *engine, const unsigned char *kv_head, const rows *of, unsigned thread) {
    const eb_attention *attention = &engine->attention;
    const size_t stride = engine->head_stride, n_rows = of->tile.n * of->heads;
    eb_softmax *softmax = attention->softmax + (size_t)thread * 2 * EB_ATTEND_ROWS, *part = softmax + EB_ATTEND_ROWS;
    float *sums = attention->sums + thread * 2 * EB_ATTEND_ROWS * stride, *part_sums = sums + EB_ATTEND_ROWS * stride;
    attend_segment(engine, kv_head, of, 0, softmax, sums, thread);
    for (uint32_t segment = 1; segment < segments_of(engine->chunk.position[of->tile.first]); segment++) {
        attend_segment(engine, kv_head, of, segment, part, part_sums, thread);
        for (size_t row = 0; row < n_rows; row++)
            engine->kernels.merge_attention(&softmax[row], sums + row * stride, &part[row], part_sums + row * stride,
                                            stride);
    }
    for (size_t row = 0; row < n_rows; row++)
        put_mixed(engine, of->tile.first + (uint32_t)(row / of->heads),
                  of->kv_head * group_heads(engine) + of->head + row % of->heads, &softmax[row], sums + row * stride);
}

void eb_attention_item(eb_engine *engine, uint32_t layer, size_t item, unsigned thread) {
    const eb_attention *attention = &engine->attention;
    const size_t n_kv = engine->model->info.n_kv_heads, heads = group_heads(engine);
    const uint32_t segment = attention->by_segment ? (uint32_t)(item / (attention->n_tiles * n_kv)) : 0;
    const size_t at = item % (attention->n_tiles * n_kv);
    /* The last tile first: it has most to do where a prompt begins. */
    rows of = {.tile = attention->tiles[attention->n_tiles - 1 - at / n_kv], .kv_head = (uint32_t)(at % n_kv)};
    const uint32_t sequence = engine->chunk.sequence[of.tile.first];
    if (segment >= segments_of(engine->chunk.position[of.tile.first]))
        return;
    const unsigned char *kv_head = eb_kv_head(engine, sequence, layer, of.kv_head);
    for (of.head = 0; of.head < heads; of.head += of.heads) {
        of.heads = heads - of.head < EB_ATTEND_ROWS ? heads - of.head : EB_ATTEND_ROWS;
        if (attention->by_segment) {
            const size_t part = part_at(engine, segment, of.kv_head, of.tile.first, of.head);
            attend_segment(engine, kv_head, &of, segment, attention->part_softmax + part,
                           attention->part_sums + part * engine->head_stride, thread);
        } else {
            attend_all(engine, kv_head, &of, thread);
        }
    }
}

void eb_attention_finish(eb_engine *engine, uint32_t b) {
    const eb_attention *attention = &engine->attention;
    const size_t n_heads = engine->model->info.n_heads, heads = group_heads(engine), stride = engine->head_stride;
    if (!attention->by_segment)
        return;
    for (size_t head = 0; head < n_heads; head++) {
        const uint32_t kv_head = (uint32_t)(head / heads);
        const size_t first = part_at(engine, 0, kv_head, b, head % heads);
        eb_softmax softmax = attention->part_softmax[first];
        float *sums = attention->part_sums + first * stride;
        for (uint32_t segment = 1; segment < segments_of(engine->chunk.position[b]); segment++) {
            const size_t part = part_at(engine, segment, kv_head, b, head % heads);
            engine->kernels.merge_attention(&softmax, sums, attention->part_softmax + part,
                                            attention->part_sums + part * stride, stride);
        }
        put_mixed(engine, b, head, &softmax, sums);
    }
}
