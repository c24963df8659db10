/* sequence.c - what the KV cache holds of a sequence: copied to another, saved as bytes, and loaded again.
 *
 * A state is a header of 64 bytes, little-endian, and the pieces of all layers and key-value heads:
 *   0 magic   8 version   12 KV type   16 fingerprint of the model   24 begin, end: tokens
 *   32 size of all   40 CRC-32 of the pieces   44 zero   60 CRC-32 of bytes 0 to 59
 * The version changes when the bits that a token's keys and values have change (FLOAT_RESULTS of check_engine.c), or
 * how they lie. */
#include "crc32.h"
#include "engine.h"
#include "mem.h"
#include "status.h"

typedef unsigned long long ull; /* for %llu */

enum { STATE_VERSION = 1, STATE_HEADER = 64, STATE_KV_TYPE = 3 };

static const unsigned char magic[8] = {'E', 'B', 'K', 'V', '\r', '\n', 0x1a, '\n'};

#define FAIL(status, ...)                                                                                              \
    do {                                                                                                               \
        eb_fail(&engine->error, __VA_ARGS__);                                                                          \
        return status;                                                                                                 \
    } while (0)

/* ---- pieces: where the cache holds what ---- */

enum { PIECES = 2 }; /* of a head: keys, values */

/* Memory that holds piece `piece` of positions begin .. end - 1 of a head. */
static unsigned char *piece_at(const eb_engine *engine, uint32_t sequence, uint32_t layer, uint32_t kv_head, int piece,
                               uint32_t begin) {
    const eb_model_info *info = &engine->model->info;
    const size_t head = ((size_t)sequence * info->n_layers + layer) * info->n_kv_heads + kv_head;
    float *base = piece ? engine->values : engine->keys;
    return (unsigned char *)(base + head * engine->kv_head_size + begin * engine->head_stride);
}

static size_t piece_size(const eb_engine *engine, uint32_t begin, uint32_t end) {
    return (size_t)(end - begin) * engine->head_stride * sizeof(float);
}

typedef enum direction { OUT_OF_CACHE, INTO_CACHE } direction;

/* Copies positions begin .. end - 1 of all layers and heads between the cache and `bytes`, where the pieces of as many
 * positions as the state has lie `step` bytes apart. */
static void copy_pieces(const eb_engine *engine, uint32_t sequence, uint32_t begin, uint32_t end, unsigned char *bytes,
                        size_t step, direction way) {
    const eb_model_info *info = &engine->model->info;
    const size_t size = piece_size(engine, begin, end);
    for (uint32_t layer = 0; layer < info->n_layers; layer++)
        for (uint32_t kv_head = 0; kv_head < info->n_kv_heads; kv_head++)
            for (int piece = 0; piece < PIECES; piece++, bytes += step) {
                unsigned char *at = piece_at(engine, sequence, layer, kv_head, piece, begin);
                if (way == INTO_CACHE)
                    eb_memcpy(at, bytes, size);
                else
                    eb_memcpy(bytes, at, size);
            }
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
    const eb_model_info *info = &engine->model->info;
    const size_t size = piece_size(engine, 0, length);
    for (uint32_t layer = 0; layer < info->n_layers; layer++)
        for (uint32_t kv_head = 0; kv_head < info->n_kv_heads; kv_head++)
            for (int piece = 0; piece < PIECES; piece++)
                eb_memcpy(piece_at(engine, to, layer, kv_head, piece, 0),
                          piece_at(engine, from, layer, kv_head, piece, 0), size);
    engine->length[to] = length;
    return EB_OK;
}

/* Bytes of a state; at most those of the KV cache and a header, so they fit in a size_t. */
static size_t state_size(const eb_engine *engine, uint32_t begin, uint32_t end) {
    const eb_model_info *info = &engine->model->info;
    return STATE_HEADER + (size_t)info->n_layers * info->n_kv_heads * PIECES * piece_size(engine, begin, end);
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
    *size = state_size(engine, begin, end);
    if (capacity < *size)
        FAIL(EB_LIMIT, "the state of %u tokens has %llu bytes, there is room for %llu", end - begin, (ull)*size,
             (ull)capacity);
    unsigned char *head = state, *pieces = head + STATE_HEADER;
    copy_pieces(engine, sequence, begin, end, pieces, piece_size(engine, begin, end), OUT_OF_CACHE);
    eb_memset(head, 0, STATE_HEADER);
    eb_memcpy(head, magic, sizeof magic);
    eb_store_u32(head + 8, STATE_VERSION);
    eb_store_u32(head + 12, STATE_KV_TYPE);
    eb_store_u64(head + 16, eb_model_fingerprint(engine->model));
    eb_store_u32(head + 24, begin);
    eb_store_u32(head + 28, end);
    eb_store_u64(head + 32, *size);
    eb_store_u32(head + 40, eb_crc32(0, pieces, *size - STATE_HEADER));
    eb_store_u32(head + 60, eb_crc32(0, head, 60));
    return EB_OK;
}

/* Checks all of a state before anything of it is used. */
static eb_status check_state(eb_engine *engine, const unsigned char *head, size_t size) {
    if (size < STATE_HEADER || eb_memcmp(head, magic, sizeof magic))
        FAIL(EB_BAD_FORMAT, "not the state of a sequence");
    if (eb_crc32(0, head, 60) != eb_load_u32(head + 60))
        FAIL(EB_BAD_FORMAT, "the state's header has a wrong sum: it is damaged");
    if (eb_load_u32(head + 8) != STATE_VERSION)
        FAIL(EB_UNSUPPORTED, "the state is of version %u, this library knows version %d", eb_load_u32(head + 8),
             STATE_VERSION);
    if (eb_load_u64(head + 16) != eb_model_fingerprint(engine->model))
        FAIL(EB_UNSUPPORTED, "the state is of another model");
    if (eb_load_u32(head + 12) != STATE_KV_TYPE)
        FAIL(EB_UNSUPPORTED, "the state is of KV type %u, the engine has %d", eb_load_u32(head + 12), STATE_KV_TYPE);
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
    const eb_status status = check_state(engine, head, size);
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
    /* Only read from: the direction says so. */
    copy_pieces(engine, sequence, begin, begin + n_tokens, (unsigned char *)(uintptr_t)(head + STATE_HEADER),
                piece_size(engine, begin, end), INTO_CACHE);
    engine->length[sequence] = begin + n_tokens;
    return EB_OK;
}
