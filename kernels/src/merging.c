/* merging.c - byte-pair encoding: pair by pair, the lowest rank first, the leftmost among equals, with a heap, so that n
 * symbols cost n log n however many they are. */
#include "merging.h"

#include "status.h"
#include "tokenizer.h"
#include "utf8.h"

enum { STACK_SYMBOLS = 96, STACK_WORDS = STACK_SYMBOLS * 2 + STACK_SYMBOLS * 3 / 2, SPACE_MARK = 0x2581 };

/* Symbols of a piece as a list: id, or EB_NO_ID where it was merged into the one before; places of its neighbours. */
typedef struct merging {
    const eb_tokenizer *t;
    uint32_t *ids, *next, *previous;
    uint64_t *heap; /* rank << 32 | place of the left symbol: lowest rank first, then leftmost */
    size_t heap_size;
} merging;

static const eb_merge *find_merge(const eb_tokenizer *t, uint32_t left, uint32_t right) {
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
    const eb_merge *found = find_merge(m->t, m->ids[left], m->ids[m->next[left]]);
    if (found)
        heap_push(m, (uint64_t)found->rank << 32 | left);
}

void eb_put_id(eb_tokenizing *e, uint32_t id) {
    if (e->count < e->capacity)
        e->ids[e->count] = (int32_t)id;
    e->count++;
}

/* Merges the first n symbols of m->ids and puts what is left.
 *
 * A pair leaves the heap when it is merged; one that has changed since is known by its rank, which is then another, or by
 * giving the same as it would have. The heap holds at most n - 1 pairs at first and grows by at most one with each of
 * n - 1 merges. */
static void merge_symbols(eb_tokenizing *e, merging *m, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        m->next[i] = i + 1;
        m->previous[i] = i - 1;
    }
    m->heap_size = 0;
    for (uint32_t i = 0; i + 1 < n; i++)
        push_pair(m, i);
    while (m->heap_size) {
        const uint64_t top = heap_pop(m);
        const uint32_t left = (uint32_t)top, right = m->next[left];
        if (m->ids[left] == EB_NO_ID || right >= n)
            continue;
        const eb_merge *pair = find_merge(m->t, m->ids[left], m->ids[right]);
        if (!pair || pair->rank != top >> 32)
            continue;
        m->ids[left] = pair->merged;
        m->ids[right] = EB_NO_ID;
        m->next[left] = m->next[right];
        if (m->next[left] < n) {
            m->previous[m->next[left]] = left;
            push_pair(m, left);
        }
        if (left)
            push_pair(m, m->previous[left]);
    }
    for (uint32_t i = 0; i < n; i = m->next[i])
        eb_put_id(e, m->ids[i]);
}

/* Lays a merging of `size` symbols out in `stack`, or in memory of the host. */
static eb_status make_room(eb_tokenizing *e, uint64_t *stack, size_t size, merging *m) {
    void *memory = stack;
    if (size > STACK_SYMBOLS) {
        if (size > e->memory_symbols) {
            if (e->memory)
                e->tokenizer->host.free(e->memory);
            e->memory_symbols = 0;
            e->memory = eb_alloc(&e->tokenizer->host, size, 2 * sizeof(uint64_t) + 3 * sizeof(uint32_t));
            if (!e->memory)
                return EB_NO_MEMORY;
            e->memory_symbols = size;
        }
        memory = e->memory;
    }
    *m = (merging){.t = e->tokenizer, .heap = memory};
    m->ids = (uint32_t *)(m->heap + 2 * size);
    m->next = m->ids + size;
    m->previous = m->next + size;
    return EB_OK;
}

eb_status eb_encode_piece(eb_tokenizing *e, const uint8_t *text, size_t size) {
    const eb_tokenizer *t = e->tokenizer;
    const uint32_t whole = t->ignore_merges ? eb_find_token(t, text, size) : EB_NO_ID;
    if (whole != EB_NO_ID) {
        eb_put_id(e, whole);
        return EB_OK;
    }
    uint64_t stack[STACK_WORDS];
    merging m;
    const eb_status status = make_room(e, stack, size, &m);
    if (status != EB_OK)
        return status;
    uint32_t n = 0;
    for (size_t i = 0; i < size; i++)
        if (t->byte_ids[text[i]] != EB_NO_ID)
            m.ids[n++] = t->byte_ids[text[i]];
    merge_symbols(e, &m, n);
    return EB_OK;
}

/* The symbols of the character at the front of text [size]: its token, or those of its bytes. Gives its size. */
static size_t put_character(const eb_tokenizer *t, const uint8_t *text, size_t size, uint32_t *ids, uint32_t *n) {
    uint32_t code_point = 0;
    const int length = eb_utf8_next(text, size, &code_point);
    if (length <= 0) {
        ids[(*n)++] = t->byte_ids[*text];
        return 1;
    }
    const uint8_t space = ' ';
    const int is_space = code_point == SPACE_MARK;
    const uint32_t id = eb_find_token(t, is_space ? &space : text, is_space ? 1 : (size_t)length);
    if (id != EB_NO_ID)
        ids[(*n)++] = id;
    else
        for (int i = 0; i < length; i++)
            ids[(*n)++] = t->byte_ids[text[i]];
    return (size_t)length;
}

eb_status eb_encode_characters(eb_tokenizing *e, const uint8_t *text, size_t size, int space_prefix) {
    uint64_t stack[STACK_WORDS];
    merging m;
    const eb_status status = make_room(e, stack, size + 1, &m);
    if (status != EB_OK)
        return status;
    uint32_t n = 0;
    if (space_prefix)
        put_character(e->tokenizer, (const uint8_t *)" ", 1, m.ids, &n);
    for (size_t at = 0; at < size;)
        at += put_character(e->tokenizer, text + at, size - at, m.ids, &n);
    merge_symbols(e, &m, n);
    return EB_OK;
}
