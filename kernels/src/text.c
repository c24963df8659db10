/* text.c - tokens in, text out, piece by piece: whole characters only, and nothing of a stop string.
 *
 * `pending` holds the bytes not yet shown. It stays short: no longer than the longest stop string, one character and
 * one token. Which bytes are shown, and where a stop string is found, depends on the bytes alone and not on how they
 * were cut into tokens: the stop string that is complete first wins; of those complete at the same byte, the longest.
 */
#include "mem.h"
#include "status.h"
#include "tokenizer.h"
#include "utf8.h"

enum { MAX_STOPS = 64, MAX_STOP_SIZE = 1024 };

typedef struct stop {
    const uint8_t *bytes;
    size_t size;
} stop;

typedef struct buffer {
    uint8_t *bytes;
    size_t size, capacity;
} buffer;

struct eb_text {
    const eb_tokenizer *tokenizer;
    buffer pending, shown;
    int begun, stopped;
    size_t n_stops;
    stop stops[]; /* followed by their bytes */
};

eb_status eb_text_open(const eb_tokenizer *tokenizer, const char *const *stops, const size_t *stop_sizes,
                       size_t n_stops, eb_text **out, eb_error *error) {
    if (!tokenizer || !out || (n_stops && (!stops || !stop_sizes))) {
        eb_fail(error, "eb_text_open: no tokenizer, no place for the result, or no stop strings");
        return EB_BAD_ARGUMENT;
    }
    *out = NULL;
    if (n_stops > MAX_STOPS) {
        eb_fail(error, "%u stop strings: there can be %u", (unsigned)n_stops, MAX_STOPS);
        return EB_LIMIT;
    }
    size_t bytes = 0;
    for (size_t i = 0; i < n_stops; i++) {
        if (!stops[i] || stop_sizes[i] == 0) {
            eb_fail(error, "stop string %u is empty", (unsigned)i);
            return EB_BAD_ARGUMENT;
        }
        if (stop_sizes[i] > MAX_STOP_SIZE) {
            eb_fail(error, "stop string %u has %llu bytes: it can have %u", (unsigned)i,
                    (unsigned long long)stop_sizes[i], MAX_STOP_SIZE);
            return EB_LIMIT;
        }
        bytes += stop_sizes[i];
    }
    eb_text *text = eb_alloc(&tokenizer->host, 1, sizeof *text + n_stops * sizeof(stop) + bytes);
    if (!text) {
        eb_fail(error, "no memory for a text stream");
        return EB_NO_MEMORY;
    }
    eb_memset(text, 0, sizeof *text);
    text->tokenizer = tokenizer;
    text->n_stops = n_stops;
    uint8_t *at = (uint8_t *)(text->stops + n_stops);
    for (size_t i = 0; i < n_stops; i++) {
        eb_memcpy(at, stops[i], stop_sizes[i]);
        text->stops[i] = (stop){at, stop_sizes[i]};
        at += stop_sizes[i];
    }
    *out = text;
    return EB_OK;
}

void eb_text_close(eb_text *text) {
    if (!text)
        return;
    const eb_host *host = &text->tokenizer->host;
    if (text->pending.bytes)
        host->free(text->pending.bytes);
    if (text->shown.bytes)
        host->free(text->shown.bytes);
    host->free(text);
}

/* Room for `more` bytes behind the buffer's own. */
static eb_status reserve(const eb_text *text, buffer *b, size_t more) {
    if (more <= b->capacity - b->size)
        return EB_OK;
    if (more > SIZE_MAX / 4 || b->size > SIZE_MAX / 4)
        return EB_NO_MEMORY;
    const eb_host *host = &text->tokenizer->host;
    const size_t capacity = 2 * (b->size + more) + 64;
    uint8_t *bytes = eb_alloc(host, capacity, 1);
    if (!bytes)
        return EB_NO_MEMORY;
    if (b->bytes) {
        eb_memcpy(bytes, b->bytes, b->size);
        host->free(b->bytes);
    }
    b->bytes = bytes;
    b->capacity = capacity;
    return EB_OK;
}

/* Where in pending the first complete stop string begins, or SIZE_MAX. */
static size_t find_stop(const eb_text *text) {
    const buffer *p = &text->pending;
    for (size_t end = 1; end <= p->size; end++) {
        size_t longest = 0;
        for (size_t i = 0; i < text->n_stops; i++) {
            const stop *s = &text->stops[i];
            if (s->size <= end && s->size > longest && eb_memcmp(p->bytes + end - s->size, s->bytes, s->size) == 0)
                longest = s->size;
        }
        if (longest)
            return end - longest;
    }
    return SIZE_MAX;
}

/* How many of the last bytes of pending may be the beginning of a stop string. */
static size_t stop_prefix(const eb_text *text) {
    const buffer *p = &text->pending;
    size_t longest = 0;
    for (size_t i = 0; i < text->n_stops; i++) {
        const stop *s = &text->stops[i];
        size_t size = s->size - 1 < p->size ? s->size - 1 : p->size;
        while (size > longest && eb_memcmp(p->bytes + p->size - size, s->bytes, size) != 0)
            size--;
        longest = size > longest ? size : longest;
    }
    return longest;
}

/* Moves whole characters from the first `limit` bytes of pending to shown, U+FFFD for those that cannot become one.
 * With `all`, no more bytes follow these: a character cut short by the limit is one that never came. */
static eb_status show(eb_text *text, size_t limit, int all) {
    buffer *p = &text->pending;
    const eb_status status = reserve(text, &text->shown, 3 * limit);
    if (status != EB_OK)
        return status;
    size_t at = 0;
    while (at < limit) {
        uint32_t code_point;
        const size_t size = (all ? limit : p->size) - at;
        int length = eb_utf8_next(p->bytes + at, size, &code_point);
        if (length == 0 && all)
            length = -(int)size; /* at most 3 bytes: the whole rest is one maximal subpart */
        const size_t taken = (size_t)(length < 0 ? -length : length);
        if (taken == 0 || taken > limit - at)
            break;
        if (length < 0)
            eb_memcpy(text->shown.bytes + text->shown.size, "\xEF\xBF\xBD", 3);
        else
            eb_memcpy(text->shown.bytes + text->shown.size, p->bytes + at, taken);
        text->shown.size += length < 0 ? 3 : taken;
        at += taken;
    }
    p->size -= at;
    if (at && p->size)
        eb_memmove(p->bytes, p->bytes + at, p->size);
    return EB_OK;
}

static void give(const eb_text *text, const char **piece, size_t *size) {
    *piece = text->shown.size ? (const char *)text->shown.bytes : "";
    *size = text->shown.size;
}

eb_status eb_text_push(eb_text *text, int32_t token, const char **piece, size_t *size, int *stopped) {
    if (!text || !piece || !size || !stopped)
        return EB_BAD_ARGUMENT;
    text->shown.size = 0;
    give(text, piece, size);
    *stopped = text->stopped;
    size_t token_size = 0;
    int special = 0;
    const char *bytes = eb_token_bytes(text->tokenizer, token, &token_size, &special);
    if (!bytes)
        return EB_BAD_ARGUMENT;
    if (text->stopped || special || token_size == 0)
        return EB_OK;
    if (!text->begun && *bytes == ' ' && text->tokenizer->strip_leading_space) {
        bytes++;
        token_size--;
    }
    text->begun = 1;
    if (!token_size)
        return EB_OK;
    eb_status status = reserve(text, &text->pending, token_size);
    if (status != EB_OK)
        return status;
    eb_memcpy(text->pending.bytes + text->pending.size, bytes, token_size);
    text->pending.size += token_size;

    const size_t stop_at = find_stop(text);
    if (stop_at != SIZE_MAX) {
        status = show(text, stop_at, 1);
        text->pending.size = 0;
        text->stopped = 1;
    } else {
        status = show(text, text->pending.size - stop_prefix(text), 0);
    }
    give(text, piece, size);
    *stopped = text->stopped;
    return status;
}

eb_status eb_text_finish(eb_text *text, const char **piece, size_t *size) {
    if (!text || !piece || !size)
        return EB_BAD_ARGUMENT;
    text->shown.size = 0;
    const eb_status status = show(text, text->pending.size, 1);
    give(text, piece, size);
    return status;
}
