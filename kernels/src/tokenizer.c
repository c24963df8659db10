/* tokenizer.c - byte-level BPE over a mapped TOKN section (docs/model-format.md), equal to Hugging Face `tokenizers`.
 *
 * Three steps, as there: names of added tokens are split off, the longest first; what lies between goes through the
 * pre-tokenizer, a regular expression written out by hand; each piece is merged pair by pair, lowest rank first,
 * leftmost among equals, with a heap, so that a piece of n bytes costs n log n however long it is.
 *
 * The section comes from a file and is checked whole at open: afterwards no id, offset or row in it can lead outside.
 * Every merge is checked to give the token that has both its halves' bytes, so the ids of a text always stand for
 * exactly its bytes. Invalid UTF-8: each byte that is not part of a whole valid character counts as one symbol that is
 * neither letter nor number nor white space; no replacement character comes into it. */
#include "tokenizer.h"

#include "mem.h"
#include "status.h"
#include "unicode_classes.inc"

enum { HEADER_SIZE = 64, TOKN_VERSION = 1, PRE_TOKENIZER_LLAMA3 = 1, MAX_VOCAB = 1 << 21, MAX_MERGES = 1 << 24 };
enum { TOKN_IGNORE_MERGES = 1 };
enum { TOKEN_SPECIAL = 1, TOKEN_ADDED = 2, TOKEN_UNUSED = 4, TOKEN_FLAGS = 7 };
enum { CLASS_OTHER = 0, CLASS_LETTER = 1, CLASS_NUMBER = 2, CLASS_SPACE = 3 };

#define NO_ID UINT32_MAX

typedef struct merge {
    uint32_t right, rank, merged;
} merge;

struct eb_tokenizer {
    eb_host host;
    uint32_t vocab_size, n_merges, n_added, hash_mask, hash_bits;
    int ignore_merges;
    const uint32_t *offsets;    /* [vocab_size + 1] of each token in bytes */
    const uint32_t *merge_rows; /* [vocab_size + 1] of each left token in merges */
    const merge *merges;        /* [n_merges] by left, then right */
    const uint32_t *hash;       /* [hash_mask + 1] ids by hash of their bytes, or NO_ID */
    const uint32_t *byte_ids;   /* [256] the token of each byte */
    const uint32_t *added;      /* [n_added] ids by their bytes */
    const uint8_t *flags;       /* [vocab_size] */
    const uint8_t *bytes;
    uint32_t added_first[8]; /* set of bytes that an added token begins with */
};

/* ---- the section ---- */

static size_t token_size(const eb_tokenizer *t, uint32_t id) { return t->offsets[id + 1] - t->offsets[id]; }

static const uint8_t *token_text(const eb_tokenizer *t, uint32_t id) { return t->bytes + t->offsets[id]; }

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

/* Never decreasing, from 0 to `last`. */
static int are_offsets(const uint32_t *offsets, uint32_t count, uint32_t last) {
    if (offsets[0] != 0 || offsets[count] != last)
        return 0;
    for (uint32_t i = 0; i < count; i++)
        if (offsets[i] > offsets[i + 1])
            return 0;
    return 1;
}

static eb_status check_tokens(const eb_tokenizer *t, uint32_t bytes_size, eb_error *error) {
    if (!are_offsets(t->offsets, t->vocab_size, bytes_size)) {
        eb_fail(error, "section TOKN: the tokens' offsets are not in order");
        return EB_BAD_FORMAT;
    }
    for (uint32_t id = 0; id < t->vocab_size; id++)
        if ((t->flags[id] & ~TOKEN_FLAGS) || ((t->flags[id] & TOKEN_UNUSED) != 0) != (token_size(t, id) == 0)) {
            eb_fail(error, "section TOKN: token %u has flags %u and %u bytes", id, t->flags[id],
                    (unsigned)token_size(t, id));
            return EB_BAD_FORMAT;
        }
    for (uint32_t byte = 0; byte < 256; byte++) {
        const uint32_t id = t->byte_ids[byte];
        if (id >= t->vocab_size || token_size(t, id) != 1 || *token_text(t, id) != byte) {
            eb_fail(error, "section TOKN: byte %u has no token of its own", byte);
            return EB_BAD_FORMAT;
        }
    }
    uint32_t empty = 0;
    for (uint32_t slot = 0; slot <= t->hash_mask; slot++) {
        const uint32_t id = t->hash[slot];
        empty += id == NO_ID;
        if (id != NO_ID && (id >= t->vocab_size || (t->flags[id] & TOKEN_SPECIAL))) {
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

static int is_merge(const eb_tokenizer *t, uint32_t left, const merge *m) {
    if (m->right >= t->vocab_size || m->merged >= t->vocab_size || (t->flags[m->merged] & TOKEN_SPECIAL))
        return 0;
    const size_t left_size = token_size(t, left), right_size = token_size(t, m->right);
    return left_size && right_size && token_size(t, m->merged) == left_size + right_size &&
           eb_memcmp(token_text(t, m->merged), token_text(t, left), left_size) == 0 &&
           eb_memcmp(token_text(t, m->merged) + left_size, token_text(t, m->right), right_size) == 0;
}

static eb_status check_merges(const eb_tokenizer *t, eb_error *error) {
    if (!are_offsets(t->merge_rows, t->vocab_size, t->n_merges)) {
        eb_fail(error, "section TOKN: the merges' rows are not in order");
        return EB_BAD_FORMAT;
    }
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
        const int known = id < t->vocab_size && (t->flags[id] & TOKEN_ADDED) && token_size(t, id);
        if (!known || (i && compare_bytes(token_text(t, t->added[i - 1]), token_size(t, t->added[i - 1]),
                                          token_text(t, id), token_size(t, id)) >= 0)) {
            eb_fail(error, "section TOKN: entry %u of the added tokens, %u, is not one or out of order", i, id);
            return EB_BAD_FORMAT;
        }
        const uint8_t first = *token_text(t, id);
        t->added_first[first >> 5] |= 1u << (first & 31);
    }
    return EB_OK;
}

/* Lays the parts out one after the other: their sizes follow from the header's counts, all far below 64 bits. */
static eb_status map_section(eb_tokenizer *t, const uint8_t *section, uint64_t size, eb_error *error) {
    if (size < HEADER_SIZE) {
        eb_fail(error, "section TOKN has %llu bytes, its header alone %u", (unsigned long long)size, HEADER_SIZE);
        return EB_BAD_FORMAT;
    }
    const uint32_t *header = (const uint32_t *)section;
    if (header[0] != TOKN_VERSION || header[2] != PRE_TOKENIZER_LLAMA3 || (header[3] & ~(uint32_t)TOKN_IGNORE_MERGES)) {
        eb_fail(error, "section TOKN: version %u, pre-tokenizer %u, flags %u; this library knows version 1, llama3 (1)",
                header[0], header[2], header[3]);
        return EB_UNSUPPORTED;
    }
    t->vocab_size = header[1];
    t->ignore_merges = (header[3] & TOKN_IGNORE_MERGES) != 0;
    t->n_merges = header[4];
    t->n_added = header[5];
    const uint32_t hash_size = header[6], bytes_size = header[7];
    uint32_t reserved = 0;
    for (int i = 8; i < HEADER_SIZE / 4; i++)
        reserved |= header[i];
    if (t->vocab_size < 256 || t->vocab_size > MAX_VOCAB || t->n_merges > MAX_MERGES || t->n_added > t->vocab_size ||
        hash_size < 2 || hash_size > 4 * MAX_VOCAB || (hash_size & (hash_size - 1)) || reserved) {
        eb_fail(error, "section TOKN: impossible counts: %u tokens, %u merges, %u added, %u hash slots", t->vocab_size,
                t->n_merges, t->n_added, hash_size);
        return EB_BAD_FORMAT;
    }
    t->hash_mask = hash_size - 1;
    while (hash_size >> t->hash_bits > 1)
        t->hash_bits++;

    uint64_t at = HEADER_SIZE;
    t->offsets = (const uint32_t *)(section + at);
    at += 4 * ((uint64_t)t->vocab_size + 1);
    const uint64_t merge_rows = at;
    at += 4 * ((uint64_t)t->vocab_size + 1);
    const uint64_t merges = at;
    at += sizeof(merge) * (uint64_t)t->n_merges;
    const uint64_t hash = at;
    at += 4 * (uint64_t)hash_size;
    const uint64_t byte_ids = at;
    at += 4 * 256;
    const uint64_t added = at;
    at += 4 * (uint64_t)t->n_added;
    const uint64_t flags = at;
    at += t->vocab_size;
    const uint64_t bytes = at;
    at += bytes_size;
    if (at != size) {
        eb_fail(error, "section TOKN: its parts have %llu bytes together, the section %llu", (unsigned long long)at,
                (unsigned long long)size);
        return EB_BAD_FORMAT;
    }
    t->merge_rows = (const uint32_t *)(section + merge_rows);
    t->merges = (const merge *)(section + merges);
    t->hash = (const uint32_t *)(section + hash);
    t->byte_ids = (const uint32_t *)(section + byte_ids);
    t->added = (const uint32_t *)(section + added);
    t->flags = section + flags;
    t->bytes = section + bytes;

    eb_status status = check_tokens(t, bytes_size, error);
    if (status == EB_OK)
        status = check_merges(t, error);
    if (status == EB_OK)
        status = check_added(t, error);
    return status;
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
    status = map_section(t, section, size, error);
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

const eb_host *eb_tokenizer_host(const eb_tokenizer *tokenizer) { return &tokenizer->host; }

const char *eb_token_bytes(const eb_tokenizer *tokenizer, int32_t id, size_t *size, int *is_special) {
    if (!tokenizer || id < 0 || (uint32_t)id >= tokenizer->vocab_size)
        return NULL;
    if (size)
        *size = token_size(tokenizer, (uint32_t)id);
    if (is_special)
        *is_special = (tokenizer->flags[id] & TOKEN_SPECIAL) != 0;
    return (const char *)token_text(tokenizer, (uint32_t)id);
}

/* ---- characters ---- */

int eb_utf8_next(const uint8_t *text, size_t size, uint32_t *code_point) {
    const uint8_t first = text[0];
    if (first < 0x80) {
        *code_point = first;
        return 1;
    }
    if (first < 0xC2 || first > 0xF4)
        return -1;
    const int length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
    /* The second byte's range keeps out overlong forms, surrogates and what is above U+10FFFF. */
    uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
    uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
    uint32_t value = first & (0x7F >> length);
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= size)
            return 0;
        if (text[i] < low || text[i] > high)
            return -i;
        value = value << 6 | (text[i] & 0x3F);
        low = 0x80;
        high = 0xBF;
    }
    *code_point = value;
    return length;
}

typedef struct symbol {
    uint32_t code_point, size; /* size 0: the end of the text */
    int class;
} symbol;

static inline symbol symbol_at(const uint8_t *text, size_t at, size_t size) {
    if (at >= size)
        return (symbol){0, 0, -1};
    uint32_t c = 0;
    const int length = eb_utf8_next(text + at, size - at, &c);
    if (length <= 0)
        return (symbol){UINT32_MAX, 1, CLASS_OTHER};
    const uint8_t four = class_blocks[class_block_of[c >> 8] * 64u + ((c & 255) >> 2)];
    return (symbol){c, (uint32_t)length, four >> (2 * (c & 3)) & 3};
}

static inline int is_newline(symbol s) { return s.code_point == '\r' || s.code_point == '\n'; }

/* ---- the pre-tokenizer ---- */

/* (?i:'s|'t|'re|'ve|'m|'ll|'d) at text[at], an apostrophe: the length, or 0. Besides ASCII only U+017F folds into it.
 */
static size_t contraction(const uint8_t *text, size_t at, size_t size) {
    const uint8_t first = at + 1 < size ? text[at + 1] | 0x20 : 0;
    const uint8_t second = at + 2 < size ? text[at + 2] | 0x20 : 0;
    if (at + 1 < size && text[at + 1] < 0x80 && (first == 's' || first == 't' || first == 'm' || first == 'd'))
        return 2;
    if (at + 2 >= size)
        return 0;
    if (text[at + 1] == 0xC5 && text[at + 2] == 0xBF) /* U+017F, the long s */
        return 3;
    if (text[at + 1] >= 0x80 || text[at + 2] >= 0x80)
        return 0;
    return ((first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l')) ? 3
                                                                                                                   : 0;
}

static size_t skip_class(const uint8_t *text, size_t at, size_t size, int class) {
    symbol s;
    while ((s = symbol_at(text, at, size)).class == class)
        at += s.size;
    return at;
}

/* The end of the piece that begins at `at`: the first alternative that matches there, of
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d) | [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N}{1,3} | ?[^\s\p{L}\p{N}]+[\r\n]* | \s*[\r\n]+ |
 * \s+(?!\S) | \s+ */
static size_t piece_end(const uint8_t *text, size_t at, size_t size) {
    const symbol first = symbol_at(text, at, size);
    if (first.code_point == '\'') {
        const size_t length = contraction(text, at, size);
        if (length)
            return at + length;
    }
    if (first.class == CLASS_LETTER)
        return skip_class(text, at + first.size, size, CLASS_LETTER);
    if (first.class == CLASS_NUMBER) {
        size_t end = at + first.size;
        for (int more = 0; more < 2; more++) {
            const symbol s = symbol_at(text, end, size);
            if (s.class != CLASS_NUMBER)
                break;
            end += s.size;
        }
        return end;
    }
    const symbol second = symbol_at(text, at + first.size, size);
    if (second.class == CLASS_LETTER && !is_newline(first))
        return skip_class(text, at + first.size, size, CLASS_LETTER);
    if (first.class == CLASS_OTHER || (first.code_point == ' ' && second.class == CLASS_OTHER)) {
        size_t end = skip_class(text, at + first.size, size, CLASS_OTHER);
        while (end < size && (text[end] == '\r' || text[end] == '\n'))
            end++;
        return end;
    }
    /* White space: up to its last line break; else all of it at the end of the text; else all but its last character,
     * which goes with what follows; or that last character alone. */
    size_t end = at, last = at, after_newline = at;
    for (symbol s = first; s.class == CLASS_SPACE; s = symbol_at(text, end, size)) {
        last = end;
        end += s.size;
        if (is_newline(s))
            after_newline = end;
    }
    if (after_newline > at)
        return after_newline;
    return end == size || last == at ? end : last;
}

/* ---- merging ---- */

/* What one eb_tokenize() call works with. */
typedef struct run {
    const eb_tokenizer *t;
    int32_t *ids;
    size_t capacity, count;
    void *memory; /* of the host, for long pieces */
    size_t memory_symbols;
} run;

enum { STACK_SYMBOLS = 96 };

/* Symbols of a piece as a list: id, or NO_ID where it was merged into the one before; places of its neighbours. */
typedef struct merging {
    const eb_tokenizer *t;
    uint32_t *ids, *next, *previous;
    uint64_t *heap; /* rank << 32 | place of the left symbol: lowest rank first, then leftmost */
    size_t heap_size;
} merging;

static const merge *find_merge(const eb_tokenizer *t, uint32_t left, uint32_t right) {
    uint32_t low = t->merge_rows[left], high = t->merge_rows[left + 1];
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (t->merges[middle].right < right)
            low = middle + 1;
        else
            high = middle;
    }
    return low < t->merge_rows[left + 1] && t->merges[low].right == right ? &t->merges[low] : NULL;
}

static void heap_push(merging *m, uint64_t entry) {
    size_t at = m->heap_size++;
    while (at && m->heap[(at - 1) / 2] > entry) {
        m->heap[at] = m->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    m->heap[at] = entry;
}

static uint64_t heap_pop(merging *m) {
    const uint64_t top = m->heap[0], entry = m->heap[--m->heap_size];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < m->heap_size; at = child) {
        child += child + 1 < m->heap_size && m->heap[child + 1] < m->heap[child];
        if (m->heap[child] >= entry)
            break;
        m->heap[at] = m->heap[child];
    }
    m->heap[at] = entry;
    return top;
}

static void push_pair(merging *m, uint32_t left) {
    const merge *found = find_merge(m->t, m->ids[left], m->ids[m->next[left]]);
    if (found)
        heap_push(m, (uint64_t)found->rank << 32 | left);
}

static void put_id(run *r, uint32_t id) {
    if (r->count < r->capacity)
        r->ids[r->count] = (int32_t)id;
    r->count++;
}

/* A pair leaves the heap when it is merged; one that has changed since is known by its rank, which is then another. The
 * heap holds at most n - 1 pairs at first and grows by at most one with each of n - 1 merges. */
static void merge_piece(run *r, merging *m, const uint8_t *text, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        m->ids[i] = r->t->byte_ids[text[i]];
        m->next[i] = i + 1;
        m->previous[i] = i - 1;
    }
    m->heap_size = 0;
    for (uint32_t i = 0; i + 1 < n; i++)
        push_pair(m, i);
    while (m->heap_size) {
        const uint64_t top = heap_pop(m);
        const uint32_t left = (uint32_t)top, right = m->next[left];
        if (m->ids[left] == NO_ID || right >= n)
            continue;
        const merge *pair = find_merge(r->t, m->ids[left], m->ids[right]);
        if (!pair || pair->rank != top >> 32)
            continue;
        m->ids[left] = pair->merged;
        m->ids[right] = NO_ID;
        m->next[left] = m->next[right];
        if (m->next[left] < n) {
            m->previous[m->next[left]] = left;
            push_pair(m, left);
        }
        if (left)
            push_pair(m, m->previous[left]);
    }
    for (uint32_t i = 0; i < n; i = m->next[i])
        put_id(r, m->ids[i]);
}

static uint32_t find_token(const eb_tokenizer *t, const uint8_t *text, size_t size) {
    uint32_t slot = hash_slot(t, text, size);
    for (uint32_t tried = 0; tried <= t->hash_mask; tried++) {
        const uint32_t id = t->hash[slot];
        if (id == NO_ID)
            return NO_ID;
        if (token_size(t, id) == size && eb_memcmp(token_text(t, id), text, size) == 0)
            return id;
        slot = (slot + 1) & t->hash_mask;
    }
    return NO_ID;
}

static eb_status encode_piece(run *r, const uint8_t *text, size_t size) {
    if (size == 1) {
        put_id(r, r->t->byte_ids[*text]);
        return EB_OK;
    }
    if (r->t->ignore_merges) {
        const uint32_t whole = find_token(r->t, text, size);
        if (whole != NO_ID) {
            put_id(r, whole);
            return EB_OK;
        }
    }
    uint64_t stack[STACK_SYMBOLS * 2 + STACK_SYMBOLS * 3 / 2];
    void *memory = stack;
    if (size > STACK_SYMBOLS) {
        if (size > r->memory_symbols) {
            if (r->memory)
                r->t->host.free(r->memory);
            r->memory_symbols = 0;
            r->memory = eb_alloc(&r->t->host, size, 2 * sizeof(uint64_t) + 3 * sizeof(uint32_t));
            if (!r->memory)
                return EB_NO_MEMORY;
            r->memory_symbols = size;
        }
        memory = r->memory;
    }
    merging m = {.t = r->t, .heap = memory};
    m.ids = (uint32_t *)(m.heap + 2 * size);
    m.next = m.ids + size;
    m.previous = m.next + size;
    merge_piece(r, &m, text, (uint32_t)size);
    return EB_OK;
}

static eb_status encode_plain(run *r, const uint8_t *text, size_t size) {
    eb_status status = EB_OK;
    for (size_t at = 0, end; at < size && status == EB_OK; at = end) {
        end = piece_end(text, at, size);
        status = encode_piece(r, text + at, end - at);
    }
    return status;
}

/* ---- added tokens ---- */

/* The longest added token at the front of text [size]; special ones only within its first `special` bytes. NO_ID: none.
 * Walks the sorted list as a trie: low to high are the entries that begin with the bytes seen so far. */
static uint32_t find_added(const eb_tokenizer *t, const uint8_t *text, size_t size, size_t special) {
    uint32_t low = 0, high = t->n_added, found = NO_ID;
    for (size_t depth = 0; depth < size && low < high; depth++) {
        for (uint32_t end = high; low < end;) { /* the first entry whose byte is not below the text's */
            const uint32_t middle = low + (end - low) / 2, id = t->added[middle];
            if (token_size(t, id) <= depth || token_text(t, id)[depth] < text[depth])
                low = middle + 1;
            else
                end = middle;
        }
        for (uint32_t start = low; start < high;) { /* and the first whose byte is above it */
            const uint32_t middle = start + (high - start) / 2;
            if (token_text(t, t->added[middle])[depth] <= text[depth])
                start = middle + 1;
            else
                high = middle;
        }
        if (low < high && token_size(t, t->added[low]) == depth + 1 &&
            (!(t->flags[t->added[low]] & TOKEN_SPECIAL) || depth + 1 <= special))
            found = t->added[low];
    }
    return found;
}

eb_status eb_tokenize_ranges(const eb_tokenizer *tokenizer, const char *text, size_t size, const eb_range *special,
                             size_t n_special, int32_t *ids, size_t capacity, size_t *n_ids) {
    if (!tokenizer || !n_ids || (size && !text) || (capacity && !ids) || (n_special && !special))
        return EB_BAD_ARGUMENT;
    *n_ids = 0;
    if (size > INT32_MAX)
        return EB_LIMIT;
    for (size_t i = 0; i < n_special; i++)
        if (special[i].begin > special[i].end || special[i].end > size || (i && special[i].begin < special[i - 1].end))
            return EB_BAD_ARGUMENT;

    const uint8_t *bytes = (const uint8_t *)text;
    run r = {.t = tokenizer, .ids = ids, .capacity = capacity};
    eb_status status = EB_OK;
    size_t start = 0, range = 0;
    for (size_t at = 0; at < size && status == EB_OK;) {
        uint32_t id = NO_ID;
        if (tokenizer->added_first[bytes[at] >> 5] >> (bytes[at] & 31) & 1) {
            while (range < n_special && special[range].end <= at)
                range++;
            const int allowed = range < n_special && special[range].begin <= at;
            id = find_added(tokenizer, bytes + at, size - at, allowed ? special[range].end - at : 0);
        }
        if (id == NO_ID) {
            at++;
            continue;
        }
        status = encode_plain(&r, bytes + start, at - start);
        put_id(&r, id);
        at += token_size(tokenizer, id);
        start = at;
    }
    if (status == EB_OK)
        status = encode_plain(&r, bytes + start, size - start);
    if (r.memory)
        tokenizer->host.free(r.memory);
    *n_ids = status == EB_OK ? r.count : 0;
    return status == EB_OK && r.count > capacity ? EB_LIMIT : status;
}

eb_status eb_tokenize(const eb_tokenizer *tokenizer, const char *text, size_t size, int parse_special, int32_t *ids,
                      size_t capacity, size_t *n_ids) {
    const eb_range all = {0, size};
    return eb_tokenize_ranges(tokenizer, text, size, &all, parse_special ? 1 : 0, ids, capacity, n_ids);
}
