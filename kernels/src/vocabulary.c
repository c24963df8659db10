/* vocabulary.c - makes the trie of a tokenizer's tokens: they are sorted by their bytes and laid down one by one. */
#include "vocabulary.h"

#include "mem.h"
#include "status.h"

enum { MAX_VOCAB = 1 << 21, MAX_STOPS = 64, LONGEST = 1 << 16 };

int eb_vocabulary_has(const eb_vocabulary *vocabulary, uint32_t id) {
    const eb_tokenizer *t = vocabulary->tokenizer;
    if (id >= vocabulary->vocab_size || id >= t->vocab_size || !eb_token_size(t, id) ||
        (t->flags[id] & (EB_TOKEN_SPECIAL | EB_TOKEN_UNUSED)))
        return 0;
    for (uint32_t i = 0; i < vocabulary->n_stops; i++)
        if (vocabulary->stops[i] == (int32_t)id)
            return 0;
    return 1;
}

/* ---- sorting ---- */

static int is_before(const eb_tokenizer *t, uint32_t a, uint32_t b) {
    const size_t a_size = eb_token_size(t, a), b_size = eb_token_size(t, b);
    const int order = eb_memcmp(eb_token_text(t, a), eb_token_text(t, b), a_size < b_size ? a_size : b_size);
    return order ? order < 0 : a_size != b_size ? a_size < b_size : a < b;
}

/* Merges ids[begin .. middle) and ids[middle .. end), each in order, by way of `room`. */
static void merge(const eb_tokenizer *t, uint32_t *ids, uint32_t *room, size_t begin, size_t middle, size_t end) {
    size_t left = begin, right = middle;
    for (size_t at = begin; at < end; at++) {
        const int take_left = right == end || (left < middle && !is_before(t, ids[right], ids[left]));
        room[at] = take_left ? ids[left++] : ids[right++];
    }
    eb_memcpy(ids + begin, room + begin, (end - begin) * sizeof *ids);
}

static void sort(const eb_tokenizer *t, uint32_t *ids, uint32_t *room, size_t n) {
    for (size_t width = 1; width < n; width *= 2)
        for (size_t begin = 0; begin + width < n; begin += 2 * width) {
            const size_t middle = begin + width;
            merge(t, ids, room, begin, middle, n - middle < width ? n : middle + width);
        }
}

/* ---- the trie ---- */

static size_t shared_length(const eb_tokenizer *t, uint32_t a, uint32_t b) {
    const size_t a_size = eb_token_size(t, a), b_size = eb_token_size(t, b);
    const uint8_t *x = eb_token_text(t, a), *y = eb_token_text(t, b);
    size_t n = 0;
    while (n < a_size && n < b_size && x[n] == y[n])
        n++;
    return n;
}

static uint64_t count_nodes(eb_vocabulary *v, const eb_tokenizer *t, size_t n_tokens) {
    uint64_t n_nodes = 0;
    for (size_t i = 0; i < n_tokens; i++) {
        const size_t size = eb_token_size(t, v->tokens[i]);
        n_nodes += size - (i ? shared_length(t, v->tokens[i - 1], v->tokens[i]) : 0);
        v->deepest = size > v->deepest ? (uint32_t)size : v->deepest;
    }
    return n_nodes;
}

/* path [deepest]: room for the nodes that the token in hand goes through. */
static void lay_nodes(eb_vocabulary *v, const eb_tokenizer *t, uint32_t n_tokens, uint32_t *path) {
    uint32_t n = 0;
    size_t depth = 0;
    for (uint32_t i = 0; i < n_tokens; i++) {
        const uint32_t id = v->tokens[i];
        const size_t size = eb_token_size(t, id), shared = i ? shared_length(t, v->tokens[i - 1], id) : 0;
        const uint8_t *bytes = eb_token_text(t, id);
        while (depth > shared)
            v->nodes[path[--depth]].after = n;
        for (; depth < size; depth++) {
            path[depth] = n;
            v->nodes[n++] = (eb_trie_node){.tokens = i, .depth_byte = (uint32_t)(depth + 1) << 8 | bytes[depth]};
        }
        if (size == 1)
            v->single[*bytes >> 5] |= 1u << (*bytes & 31);
    }
    while (depth)
        v->nodes[path[--depth]].after = n;
    v->nodes[n] = (eb_trie_node){.after = n, .tokens = n_tokens};
    v->n_nodes = n;
}

static eb_status build(eb_vocabulary *v, eb_error *error) {
    const eb_tokenizer *t = v->tokenizer;
    const eb_host *host = &t->host;
    const uint32_t n_ids = t->vocab_size < v->vocab_size ? t->vocab_size : v->vocab_size;
    v->tokens = eb_alloc(host, n_ids, sizeof *v->tokens);
    uint32_t *room = eb_alloc(host, n_ids, sizeof *room);
    uint32_t n = 0;
    if (v->tokens && room) {
        for (uint32_t id = 0; id < n_ids; id++)
            if (eb_vocabulary_has(v, id))
                v->tokens[n++] = id;
        sort(t, v->tokens, room, n);
    }
    if (room)
        host->free(room);
    if (!v->tokens || !room)
        EB_FAIL(error, EB_NO_MEMORY, "no memory for a trie of %u tokens", n_ids);
    const uint64_t n_nodes = count_nodes(v, t, n);
    if (n_nodes >= UINT32_MAX || v->deepest > LONGEST)
        EB_FAIL(error, EB_LIMIT, "the tokens have too many bytes for a trie: %llu", (ull)n_nodes);
    v->nodes = eb_alloc(host, (size_t)n_nodes + 1, sizeof *v->nodes);
    uint32_t *path = eb_alloc(host, v->deepest, sizeof *path);
    if (v->nodes && path)
        lay_nodes(v, t, n, path);
    if (path)
        host->free(path);
    if (!v->nodes || !path)
        EB_FAIL(error, EB_NO_MEMORY, "no memory for a trie of %llu nodes", (ull)n_nodes);
    return EB_OK;
}

eb_status eb_vocabulary_open(const eb_tokenizer *tokenizer, uint32_t vocab_size, const int32_t *stop_tokens,
                             uint32_t n_stop_tokens, eb_vocabulary **out, eb_error *error) {
    if (!tokenizer || !out || (n_stop_tokens && !stop_tokens))
        EB_FAIL(error, EB_BAD_ARGUMENT, "eb_vocabulary_open: a null pointer");
    *out = NULL;
    if (!vocab_size || vocab_size > MAX_VOCAB || n_stop_tokens > MAX_STOPS)
        EB_FAIL(error, EB_BAD_ARGUMENT, "eb_vocabulary_open: vocab_size %u or n_stop_tokens %u is out of range",
                vocab_size, n_stop_tokens);
    const eb_host *host = &tokenizer->host;
    eb_vocabulary *v = eb_alloc(host, 1, sizeof *v + n_stop_tokens * sizeof *v->stops);
    if (!v)
        EB_FAIL(error, EB_NO_MEMORY, "no memory for a vocabulary");
    eb_memset(v, 0, sizeof *v);
    v->tokenizer = tokenizer;
    v->vocab_size = vocab_size;
    v->stops = (int32_t *)(void *)(v + 1);
    for (uint32_t i = 0; i < n_stop_tokens; i++)
        if (stop_tokens[i] >= 0 && (uint32_t)stop_tokens[i] < vocab_size)
            v->stops[v->n_stops++] = stop_tokens[i];
    const eb_status status = build(v, error);
    if (status != EB_OK) {
        eb_vocabulary_close(v);
        return status;
    }
    *out = v;
    return EB_OK;
}

void eb_vocabulary_close(eb_vocabulary *vocabulary) {
    if (!vocabulary)
        return;
    const eb_host *host = &vocabulary->tokenizer->host;
    if (vocabulary->tokens)
        host->free(vocabulary->tokens);
    if (vocabulary->nodes)
        host->free(vocabulary->nodes);
    host->free(vocabulary);
}
