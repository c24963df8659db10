/* sequence.c - what the KV cache holds of a sequence: copied to another, saved as bytes, and loaded again.
 *
 * A state is a header of 64 bytes, little-endian, and the pieces of all layers and key-value heads:
 *   0 magic   8 version   12 KV type   16 fingerprint of the model   24 begin, end: tokens
 *   32 size of all   40 CRC-32 of the pieces   44 fingerprint of the adapter, or zero   52 zero   60 CRC-32 of bytes 0 to 59
 * It is of version 2 where there is an adapter, which version 1 did not know of.
 * The version changes when the bits that a token's keys and values have change (FLOAT_RESULTS of check_engine.c), or
 * how they lie. */
#include "crc32.h"
#include "engine.h"
#include "mem.h"
#include "status.h"

enum { STATE_VERSION = 1, STATE_VERSION_WITH_ADAPTER = 2, STATE_HEADER = 64 };

static const unsigned char magic[8] = {'E', 'B', 'K', 'V', '\r', '\n', 0x1a, '\n'};

#define FAIL(status, ...) EB_FAIL(&engine->error, status, __VA_ARGS__)

/* ---- pieces: of each layer and key-value head, the groups of positions (kv_cache.h) that hold what is wanted ---- */

static size_t n_pieces(const eb_engine *engine) {
    return (size_t)engine->model->info.n_layers * engine->model->info.n_kv_heads;
}

/* Piece `piece` of the sequence, from the group that holds position `begin` on. */
static unsigned char *piece_at(const eb_engine *engine, uint32_t sequence, size_t piece, uint32_t begin) {
    return eb_kv_head(engine, sequence, 0, 0) + piece * engine->kv.head_bytes +
           begin / EB_KV_GROUP * engine->kv.layout.group_bytes;
}

/* Its bytes up to position end - 1. What the first group has before `begin` is of the same text. */
static size_t piece_size(const eb_engine *engine, uint32_t begin, uint32_t end) {
    return (((size_t)end + EB_KV_GROUP - 1) / EB_KV_GROUP - begin / EB_KV_GROUP) * engine->kv.layout.group_bytes;
}

/* ---- the interface ---- */

static int is_there(const eb_engine *engine, uint32_t sequence) { return sequence < engine->n_sequences; }

eb_status eb_sequence_copy(eb_engine *engine, uint32_t from, uint32_t to, uint32_t length) {
    if (!engine)
        return EB_BAD_ARGUMENT;
    if (!is_there(engine, from) || !is_there(engine, to) || from == to)
        FAIL(EB_BAD_ARGUMENT, "sequence %u cannot be copied to %u: they must be two of the engine's %u", from, to,
             engine->n_sequences);
    if (length > engine->length[from])
        FAIL(EB_BAD_ARGUMENT, "sequence %u has %u tokens: %u cannot be copied", from, engine->length[from], length);
    for (size_t piece = 0; piece < n_pieces(engine); piece++)
        eb_memcpy(piece_at(engine, to, piece, 0), piece_at(engine, from, piece, 0), piece_size(engine, 0, length));
    engine->length[to] = length;
    engine->adapting.of_sequence[to] = engine->adapting.of_sequence[from];
    return EB_OK;
}

/* Bytes of a state. That of tokens which a damaged header names can be more than a size_t of 32 bits holds. */
static uint64_t state_size(const eb_engine *engine, uint32_t begin, uint32_t end) {
    const uint64_t groups = ((uint64_t)end + EB_KV_GROUP - 1) / EB_KV_GROUP - begin / EB_KV_GROUP;
    return STATE_HEADER + n_pieces(engine) * groups * engine->kv.layout.group_bytes;
}

eb_status eb_sequence_save(eb_engine *engine, uint32_t sequence, uint32_t begin, uint32_t end, void *state,
                           size_t capacity, size_t *size) {
    if (!engine)
        return EB_BAD_ARGUMENT;
    if (!size || (!state && capacity))
        FAIL(EB_BAD_ARGUMENT, "eb_sequence_save: state or size is null");
    if (!is_there(engine, sequence))
        FAIL(EB_BAD_ARGUMENT, "sequence %u is not there: the engine has %u", sequence, engine->n_sequences);
    if (begin >= end || end > engine->length[sequence])
        FAIL(EB_BAD_ARGUMENT, "sequence %u has %u tokens: %u to %u cannot be saved", sequence, engine->length[sequence],
             begin, end);
    *size = (size_t)state_size(engine, begin, end); /* no more than the KV cache and a header */
    if (capacity < *size)
        FAIL(EB_LIMIT, "the state of %u tokens has %llu bytes, there is room for %llu", end - begin, (ull)*size,
             (ull)capacity);
    unsigned char *head = state, *pieces = head + STATE_HEADER;
    const size_t step = piece_size(engine, begin, end);
    for (size_t piece = 0; piece < n_pieces(engine); piece++) {
        unsigned char *to = pieces + piece * step;
        eb_memcpy(to, piece_at(engine, sequence, piece, begin), step);
        if (end % EB_KV_GROUP) /* what another text has left there is nobody's business */
            eb_kv_clear(&engine->kv, to + step - engine->kv.layout.group_bytes, end % EB_KV_GROUP);
    }
    eb_memset(head, 0, STATE_HEADER);
    eb_memcpy(head, magic, sizeof magic);
    const uint64_t adapter = eb_adapter_fingerprint(engine->adapting.of_sequence[sequence]);
    eb_store_u32(head + 8, adapter ? STATE_VERSION_WITH_ADAPTER : STATE_VERSION);
    eb_store_u32(head + 12, engine->kv.type);
    eb_store_u64(head + 16, eb_model_fingerprint(engine->model));
    eb_store_u32(head + 24, begin);
    eb_store_u32(head + 28, end);
    eb_store_u64(head + 32, *size);
    eb_store_u32(head + 40, eb_crc32(0, pieces, *size - STATE_HEADER));
    eb_store_u64(head + 44, adapter);
    eb_store_u32(head + 60, eb_crc32(0, head, 60));
    return EB_OK;
}

/* Checks all of a state before anything of it is used. */
static eb_status check_state(eb_engine *engine, uint32_t sequence, const unsigned char *head, size_t size) {
    const uint64_t adapter = eb_adapter_fingerprint(engine->adapting.of_sequence[sequence]);
    if (size < STATE_HEADER || eb_memcmp(head, magic, sizeof magic))
        FAIL(EB_BAD_FORMAT, "not the state of a sequence");
    if (eb_crc32(0, head, 60) != eb_load_u32(head + 60))
        FAIL(EB_BAD_FORMAT, "the state's header has a wrong sum: it is damaged");
    const uint32_t version = eb_load_u32(head + 8);
    if (version != STATE_VERSION && version != STATE_VERSION_WITH_ADAPTER)
        FAIL(EB_UNSUPPORTED, "the state is of version %u, this library knows version %d", version, STATE_VERSION);
    if (eb_load_u64(head + 16) != eb_model_fingerprint(engine->model))
        FAIL(EB_UNSUPPORTED, "the state is of another model");
    if (eb_load_u64(head + 44) != adapter || (version == STATE_VERSION_WITH_ADAPTER) != (adapter != 0))
        FAIL(EB_UNSUPPORTED, "the state was computed with another adapter than sequence %u has", sequence);
    if (eb_load_u32(head + 12) != (uint32_t)engine->kv.type)
        FAIL(EB_UNSUPPORTED, "the state is of KV type %u, the engine has %d", eb_load_u32(head + 12),
             (int)engine->kv.type);
    const uint32_t begin = eb_load_u32(head + 24), end = eb_load_u32(head + 28);
    if (begin >= end || end > engine->model->info.context_max)
        FAIL(EB_BAD_FORMAT, "the state has tokens %u to %u, which cannot be", begin, end);
    if (eb_load_u64(head + 32) != size || size != state_size(engine, begin, end))
        FAIL(EB_BAD_FORMAT, "the state has %llu bytes, %llu are wanted: it is cut short", (ull)size,
             (ull)state_size(engine, begin, end));
    if (eb_crc32(0, head + STATE_HEADER, size - STATE_HEADER) != eb_load_u32(head + 40))
        FAIL(EB_BAD_FORMAT, "the state has a wrong sum: it is damaged");
    return EB_OK;
}

eb_status eb_sequence_load(eb_engine *engine, uint32_t sequence, uint32_t n_tokens, const void *state, size_t size) {
    if (!engine)
        return EB_BAD_ARGUMENT;
    if (!state || !is_there(engine, sequence))
        FAIL(EB_BAD_ARGUMENT, "eb_sequence_load: state is null, or sequence %u is not one of the engine's %u", sequence,
             engine->n_sequences);
    const unsigned char *head = state;
    const eb_status status = check_state(engine, sequence, head, size);
    if (status)
        return status;
    const uint32_t begin = eb_load_u32(head + 24), end = eb_load_u32(head + 28), length = engine->length[sequence];
    if (begin != length)
        FAIL(EB_BAD_ARGUMENT, "the state begins with token %u, sequence %u has %u tokens", begin, sequence, length);
    if (!n_tokens || n_tokens > end - begin)
        FAIL(EB_BAD_ARGUMENT, "%u tokens are wanted of a state that has %u", n_tokens, end - begin);
    if (n_tokens > engine->ctx_len - length)
        FAIL(EB_LIMIT, "the context is full: sequence %u has %u tokens, %u more do not fit into %u", sequence, length,
             n_tokens, engine->ctx_len);
    const size_t step = piece_size(engine, begin, end);
    for (size_t piece = 0; piece < n_pieces(engine); piece++)
        eb_memcpy(piece_at(engine, sequence, piece, begin), head + STATE_HEADER + piece * step,
                  piece_size(engine, begin, begin + n_tokens));
    engine->length[sequence] = begin + n_tokens;
    return EB_OK;
}
