/* tokenizer_section.c - section TOKN (docs/model-format.md), which comes from a file and is checked whole at open:
 * afterwards no id, offset or row in it can lead outside. Every merge is checked to give the token that has both its
 * halves' bytes, so the ids of a text always stand for exactly its bytes, once normalized. */
#include "mem.h"
#include "pre_tokenizer.h"
#include "status.h"
#include "tokenizer.h"

enum {
    HEADER_SIZE = 64,
    HEADER_WORDS = HEADER_SIZE / 4,
    MAX_VOCAB = 1 << 21,
    MAX_MERGES = 1 << 24,
    MAX_TOKEN_SIZE = 1 << 16
};
enum { TOKN_IGNORE_MERGES = 1, TOKN_STRIP_LEADING_SPACE = 2 };

/* The bytes as one big-endian number modulo 2^31 - 1, spread by Fibonacci's constant; the slot is its upper bits. */
static uint32_t hash_slot(const eb_tokenizer *t, const uint8_t *text, size_t size) {
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        value = value << 8 | text[i];
        value = (value & 0x7FFFFFFF) + (value >> 31);
    }
    while (value >= 0x7FFFFFFF)
        value -= 0x7FFFFFFF;
    return ((uint32_t)value * 0x9E3779B1u) >> (32 - t->hash_bits);
}

uint32_t eb_find_token(const eb_tokenizer *t, const uint8_t *text, size_t size) {
    uint32_t slot = hash_slot(t, text, size);
    for (uint32_t tried = 0; tried <= t->hash_mask; tried++) {
        const uint32_t id = t->hash[slot];
        if (id == EB_NO_ID)
            return EB_NO_ID;
        if (eb_token_size(t, id) == size && eb_memcmp(eb_token_text(t, id), text, size) == 0)
            return id;
        slot = (slot + 1) & t->hash_mask;
    }
    return EB_NO_ID;
}

/* Never decreasing, from 0 to `last`. */
static int are_offsets(const uint32_t *offsets, uint32_t count, uint32_t last) {
    if (offsets[0] != 0 || offsets[count] != last)
        return 0;
    for (uint32_t i = 0; i < count; i++)
        if (offsets[i] > offsets[i + 1])
            return 0;
    return 1;
}

static eb_status check_tokens(const eb_tokenizer *t, eb_error *error) {
    const uint8_t plain = EB_TOKEN_SPECIAL | EB_TOKEN_ADDED | EB_TOKEN_UNUSED;
    const uint8_t flags = t->normalizer == EB_NORMALIZER_NONE ? plain : plain | EB_TOKEN_NORMALIZED;
    for (uint32_t id = 0; id < t->vocab_size; id++) {
        if (eb_token_size(t, id) > MAX_TOKEN_SIZE) {
            eb_fail(error, "section TOKN: token %u has %u bytes; %u are the most", id, (unsigned)eb_token_size(t, id),
                    (unsigned)MAX_TOKEN_SIZE);
            return EB_BAD_FORMAT;
        }
        if ((t->flags[id] & ~flags) || ((t->flags[id] & EB_TOKEN_UNUSED) != 0) != (eb_token_size(t, id) == 0)) {
            eb_fail(error, "section TOKN: token %u has flags %u and %u bytes", id, t->flags[id],
                    (unsigned)eb_token_size(t, id));
            return EB_BAD_FORMAT;
        }
    }
    return EB_OK;
}

static eb_status check_byte_tokens(const eb_tokenizer *t, eb_error *error) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        const uint32_t id = t->byte_ids[byte];
        if (id == EB_NO_ID && t->version == 2 && t->kind == EB_KIND_BYTE_LEVEL)
            continue;
        if (id >= t->vocab_size || eb_token_size(t, id) != 1 || *eb_token_text(t, id) != byte) {
            eb_fail(error, "section TOKN: byte %u has no token of its own", byte);
            return EB_BAD_FORMAT;
        }
    }
    return EB_OK;
}

static eb_status check_hash(const eb_tokenizer *t, eb_error *error) {
    uint32_t empty = 0;
    for (uint32_t slot = 0; slot <= t->hash_mask; slot++) {
        const uint32_t id = t->hash[slot];
        empty += id == EB_NO_ID;
        if (id != EB_NO_ID && (id >= t->vocab_size || (t->flags[id] & EB_TOKEN_SPECIAL))) {
            eb_fail(error, "section TOKN: hash slot %u names token %u of %u, or a special one", slot, id,
                    t->vocab_size);
            return EB_BAD_FORMAT;
        }
    }
    if (empty <= t->hash_mask / 4) {
        eb_fail(error, "section TOKN: the hash table is too full: %u of %u slots are empty", empty, t->hash_mask + 1);
        return EB_BAD_FORMAT;
    }
    return EB_OK;
}

static int is_merge(const eb_tokenizer *t, uint32_t left, const eb_merge *m) {
    if (m->right >= t->vocab_size || m->merged >= t->vocab_size || (t->flags[m->merged] & EB_TOKEN_SPECIAL))
        return 0;
    const size_t left_size = eb_token_size(t, left), right_size = eb_token_size(t, m->right);
    return left_size && right_size && eb_token_size(t, m->merged) == left_size + right_size &&
           eb_memcmp(eb_token_text(t, m->merged), eb_token_text(t, left), left_size) == 0 &&
           eb_memcmp(eb_token_text(t, m->merged) + left_size, eb_token_text(t, m->right), right_size) == 0;
}

static eb_status check_merges(const eb_tokenizer *t, eb_error *error) {
    for (uint32_t left = 0; left < t->vocab_size; left++)
        for (uint32_t i = t->merge_rows[left]; i < t->merge_rows[left + 1]; i++) {
            const int in_order = i == t->merge_rows[left] || t->merges[i - 1].right < t->merges[i].right;
            if (!in_order || !is_merge(t, left, &t->merges[i])) {
                eb_fail(error,
                        "section TOKN: merge %u of token %u is out of order or gives another text or a special token",
                        i, left);
                return EB_BAD_FORMAT;
            }
        }
    return EB_OK;
}

static int compare_bytes(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size) {
    const int order = eb_memcmp(a, b, a_size < b_size ? a_size : b_size);
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static eb_status check_added(eb_tokenizer *t, eb_error *error) {
    for (uint32_t i = 0; i < t->n_added; i++) {
        const uint32_t id = t->added[i];
        const int known = id < t->vocab_size && (t->flags[id] & EB_TOKEN_ADDED) && eb_token_size(t, id);
        if (!known || (i && compare_bytes(eb_token_text(t, t->added[i - 1]), eb_token_size(t, t->added[i - 1]),
                                          eb_token_text(t, id), eb_token_size(t, id)) >= 0)) {
            eb_fail(error, "section TOKN: entry %u of the added tokens, %u, is not one or out of order", i, id);
            return EB_BAD_FORMAT;
        }
        const int is_normalized = (t->flags[id] & EB_TOKEN_NORMALIZED) != 0;
        if (is_normalized && (t->flags[id] & EB_TOKEN_SPECIAL)) {
            eb_fail(error, "section TOKN: added token %u is special and normalized", id);
            return EB_BAD_FORMAT;
        }
        t->n_normalized += is_normalized;
        const uint8_t first = *eb_token_text(t, id);
        t->added_first[first >> 5] |= 1u << (first & 31);
    }
    return EB_OK;
}

/* What version 1 and version 2 say of the kind: in a version 1 it is byte-level and llama3. */
static eb_status read_kind(eb_tokenizer *t, const uint32_t *header, eb_error *error) {
    const uint32_t version = header[0], pre_tokenizer = header[2], flags = header[3];
    const uint32_t known = version == 1 ? TOKN_IGNORE_MERGES : TOKN_IGNORE_MERGES | TOKN_STRIP_LEADING_SPACE;
    const int is_known =
        version == 1 ? pre_tokenizer == EB_PRE_TOKENIZER_LLAMA3 : version == 2 && pre_tokenizer < EB_PRE_TOKENIZERS;
    if (!is_known || (flags & ~known)) {
        eb_fail(error,
                "section TOKN: version %u, pre-tokenizer %u, flags %u; this library knows version 1 with 1, and 2 "
                "with up to %u",
                version, pre_tokenizer, flags, EB_PRE_TOKENIZERS - 1);
        return EB_UNSUPPORTED;
    }
    t->version = version;
    t->pre_tokenizer = pre_tokenizer;
    t->ignore_merges = (flags & TOKN_IGNORE_MERGES) != 0;
    t->strip_leading_space = (flags & TOKN_STRIP_LEADING_SPACE) != 0;
    uint32_t reserved = 0;
    for (int i = version == 1 ? 8 : 11; i < HEADER_WORDS; i++)
        reserved |= header[i];
    if (version == 2) {
        t->kind = header[8];
        t->normalizer = header[9];
        t->space_prefix = header[10];
    }
    const int fits = t->kind == EB_KIND_BYTE_LEVEL ? !t->space_prefix && !t->strip_leading_space
                                                   : !t->pre_tokenizer && !t->normalizer && !t->ignore_merges;
    if (reserved || t->kind >= EB_KINDS || t->normalizer >= EB_NORMALIZERS || t->space_prefix >= EB_SPACE_PREFIXES ||
        !fits) {
        eb_fail(error,
                "section TOKN: kind %u with pre-tokenizer %u, normalizer %u, space prefix %u and flags %u is not "
                "one that this library knows",
                t->kind, pre_tokenizer, t->normalizer, t->space_prefix, flags);
        return EB_UNSUPPORTED;
    }
    return EB_OK;
}

static eb_status read_counts(eb_tokenizer *t, const uint32_t *header, eb_error *error) {
    t->vocab_size = header[1];
    t->n_merges = header[4];
    t->n_added = header[5];
    const uint32_t hash_size = header[6];
    if (t->vocab_size < 256 || t->vocab_size > MAX_VOCAB || t->n_merges > MAX_MERGES || t->n_added > t->vocab_size ||
        hash_size < 2 || hash_size > 4 * MAX_VOCAB || (hash_size & (hash_size - 1))) {
        eb_fail(error, "section TOKN: impossible counts: %u tokens, %u merges, %u added, %u hash slots", t->vocab_size,
                t->n_merges, t->n_added, hash_size);
        return EB_BAD_FORMAT;
    }
    t->hash_mask = hash_size - 1;
    while (hash_size >> t->hash_bits > 1)
        t->hash_bits++;
    return EB_OK;
}

/* Lays the parts out one after the other: their sizes follow from the header's counts, all far below 64 bits. */
static eb_status place_parts(eb_tokenizer *t, const uint8_t *section, uint64_t size, uint32_t bytes_size,
                             eb_error *error) {
    uint64_t at = HEADER_SIZE;
    t->offsets = (const uint32_t *)(section + at);
    at += 4 * ((uint64_t)t->vocab_size + 1);
    const uint64_t merge_rows = at;
    at += 4 * ((uint64_t)t->vocab_size + 1);
    const uint64_t merges = at;
    at += sizeof(eb_merge) * (uint64_t)t->n_merges;
    const uint64_t hash = at;
    at += 4 * ((uint64_t)t->hash_mask + 1);
    const uint64_t byte_ids = at;
    at += 4 * 256;
    const uint64_t added = at;
    at += 4 * (uint64_t)t->n_added;
    const uint64_t flags = at;
    at += t->vocab_size;
    const uint64_t bytes = at;
    at += bytes_size;
    if (at != size) {
        eb_fail(error, "section TOKN: its parts have %llu bytes together, the section %llu", (ull)at, (ull)size);
        return EB_BAD_FORMAT;
    }
    t->merge_rows = (const uint32_t *)(section + merge_rows);
    t->merges = (const eb_merge *)(section + merges);
    t->hash = (const uint32_t *)(section + hash);
    t->byte_ids = (const uint32_t *)(section + byte_ids);
    t->added = (const uint32_t *)(section + added);
    t->flags = section + flags;
    t->bytes = section + bytes;
    if (!are_offsets(t->offsets, t->vocab_size, bytes_size)) {
        eb_fail(error, "section TOKN: the tokens' offsets are not in order");
        return EB_BAD_FORMAT;
    }
    if (!are_offsets(t->merge_rows, t->vocab_size, t->n_merges)) {
        eb_fail(error, "section TOKN: the merges' rows are not in order");
        return EB_BAD_FORMAT;
    }
    return EB_OK;
}

static eb_status read_section(eb_tokenizer *t, const uint8_t *section, uint64_t size, eb_error *error) {
    if (size < HEADER_SIZE) {
        eb_fail(error, "section TOKN has %llu bytes, its header alone %u", (ull)size, HEADER_SIZE);
        return EB_BAD_FORMAT;
    }
    const uint32_t *header = (const uint32_t *)section;
    eb_status status;
    if ((status = read_kind(t, header, error)) || (status = read_counts(t, header, error)) ||
        (status = place_parts(t, section, size, header[7], error)) || (status = check_tokens(t, error)) ||
        (status = check_byte_tokens(t, error)) || (status = check_hash(t, error)) ||
        (status = check_merges(t, error)) || (status = check_added(t, error)))
        return status;
    return EB_OK;
}

eb_status eb_tokenizer_open(const eb_host *host, const void *section, uint64_t size, eb_tokenizer **out,
                            eb_error *error) {
    if (!out || !section || ((uintptr_t)section & 3)) {
        eb_fail(error, "eb_tokenizer_open: %s", !out ? "no place for the result" : "no section, or not aligned to 4");
        return EB_BAD_ARGUMENT;
    }
    *out = NULL;
    eb_status status = eb_host_check(host, error);
    if (status != EB_OK)
        return status;
    eb_tokenizer *t = eb_alloc(host, 1, sizeof *t);
    if (!t) {
        eb_fail(error, "no memory for the tokenizer");
        return EB_NO_MEMORY;
    }
    eb_memset(t, 0, sizeof *t);
    t->host = *host;
    status = read_section(t, section, size, error);
    if (status != EB_OK) {
        host->free(t);
        return status;
    }
    *out = t;
    return EB_OK;
}

void eb_tokenizer_close(eb_tokenizer *tokenizer) {
    if (tokenizer)
        tokenizer->host.free(tokenizer);
}

uint32_t eb_tokenizer_vocab_size(const eb_tokenizer *tokenizer) { return tokenizer ? tokenizer->vocab_size : 0; }

int eb_tokenizer_strips_space(const eb_tokenizer *tokenizer) { return tokenizer && tokenizer->strip_leading_space; }

const char *eb_token_bytes(const eb_tokenizer *tokenizer, int32_t id, size_t *size, int *is_special) {
    if (!tokenizer || id < 0 || (uint32_t)id >= tokenizer->vocab_size)
        return NULL;
    if (size)
        *size = eb_token_size(tokenizer, (uint32_t)id);
    if (is_special)
        *is_special = (tokenizer->flags[id] & EB_TOKEN_SPECIAL) != 0;
    return (const char *)eb_token_text(tokenizer, (uint32_t)id);
}
