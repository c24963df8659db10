/* tokenizer.c - text to token ids, equal to Hugging Face `tokenizers` on all that it takes, and defined on any bytes.
 *
 * As there: names of added tokens are split off, the longest first; each segment between them is normalized; names of
 * added tokens that are to be found in normalized text are split off; the pre-tokenizer cuts what is left into pieces;
 * and each piece is merged. */
#include "tokenizer.h"

#include "mem.h"
#include "merging.h"
#include "pre_tokenizer.h"
#include "unicode_nfc.h"

/* The longest added token at the front of text [size], of those with the flag NORMALIZED or of those without; special
 * ones only within its first `special` bytes. EB_NO_ID: none. Walks the sorted list as a trie: low to high are the
 * entries that begin with the bytes seen so far. */
static uint32_t find_added(const eb_tokenizer *t, const uint8_t *text, size_t size, size_t special,
                           uint8_t normalized) {
    uint32_t low = 0, high = t->n_added, found = EB_NO_ID;
    for (size_t depth = 0; depth < size && low < high; depth++) {
        for (uint32_t end = high; low < end;) { /* the first entry whose byte is not below the text's */
            const uint32_t middle = low + (end - low) / 2, id = t->added[middle];
            if (eb_token_size(t, id) <= depth || eb_token_text(t, id)[depth] < text[depth])
                low = middle + 1;
            else
                end = middle;
        }
        for (uint32_t start = low; start < high;) { /* and the first whose byte is above it */
            const uint32_t middle = start + (high - start) / 2;
            if (eb_token_text(t, t->added[middle])[depth] <= text[depth])
                start = middle + 1;
            else
                high = middle;
        }
        if (low == high || eb_token_size(t, t->added[low]) != depth + 1)
            continue;
        const uint8_t flags = t->flags[t->added[low]];
        if ((flags & EB_TOKEN_NORMALIZED) == normalized && (!(flags & EB_TOKEN_SPECIAL) || depth + 1 <= special))
            found = t->added[low];
    }
    return found;
}

static int may_be_added(const eb_tokenizer *t, uint8_t first) { return t->added_first[first >> 5] >> (first & 31) & 1; }

static eb_status encode_pieces(eb_tokenizing *e, const uint8_t *text, size_t size) {
    eb_pieces pieces = {.pre_tokenizer = e->tokenizer->pre_tokenizer, .text = text, .size = size};
    eb_status status = EB_OK;
    while (pieces.at < size && status == EB_OK) {
        const uint8_t *piece = text + pieces.at;
        status = eb_encode_piece(e, piece, eb_next_piece(&pieces));
    }
    return status;
}

/* Normalized text: what added tokens are recognised in only now goes out of it first. */
static eb_status encode_normalized(eb_tokenizing *e, const uint8_t *text, size_t size) {
    const eb_tokenizer *t = e->tokenizer;
    eb_status status = EB_OK;
    size_t start = 0;
    for (size_t at = 0; t->n_normalized && at < size && status == EB_OK;) {
        const uint32_t id =
            may_be_added(t, text[at]) ? find_added(t, text + at, size - at, 0, EB_TOKEN_NORMALIZED) : EB_NO_ID;
        if (id == EB_NO_ID) {
            at++;
            continue;
        }
        status = encode_pieces(e, text + start, at - start);
        eb_put_id(e, id);
        at += eb_token_size(t, id);
        start = at;
    }
    return status == EB_OK ? encode_pieces(e, text + start, size - start) : status;
}

static int wants_space(const eb_tokenizer *t, const uint8_t *text, size_t size, int is_first) {
    const int spaced = *text == ' ' || (size >= 3 && eb_memcmp(text, "\xE2\x96\x81", 3) == 0); /* U+2581 */
    switch (t->space_prefix) {
    case EB_SPACE_PREFIX_SEGMENT:
        return 1;
    case EB_SPACE_PREFIX_UNSPACED_SEGMENT:
        return !spaced;
    case EB_SPACE_PREFIX_UNSPACED_TEXT:
        return !spaced && is_first;
    default:
        return 0;
    }
}

/* What stands between two added tokens; `is_first` at the front of the whole text. */
static eb_status encode_segment(eb_tokenizing *e, const uint8_t *text, size_t size, int is_first) {
    const eb_tokenizer *t = e->tokenizer;
    if (!size)
        return EB_OK;
    if (t->kind == EB_KIND_BYTE_FALLBACK)
        return eb_encode_characters(e, text, size, wants_space(t, text, size, is_first));
    if (t->normalizer == EB_NORMALIZER_NONE || eb_is_nfc(text, size))
        return encode_normalized(e, text, size);
    uint8_t *normal = NULL;
    size_t normal_size = 0;
    eb_status status = eb_to_nfc(&t->host, text, size, &normal, &normal_size);
    if (status != EB_OK)
        return status;
    status = encode_normalized(e, normal, normal_size);
    t->host.free(normal);
    return status;
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
    eb_tokenizing e = {.tokenizer = tokenizer, .ids = ids, .capacity = capacity};
    eb_status status = EB_OK;
    size_t start = 0, range = 0;
    for (size_t at = 0; at < size && status == EB_OK;) {
        uint32_t id = EB_NO_ID;
        if (may_be_added(tokenizer, bytes[at])) {
            while (range < n_special && special[range].end <= at)
                range++;
            const int allowed = range < n_special && special[range].begin <= at;
            id = find_added(tokenizer, bytes + at, size - at, allowed ? special[range].end - at : 0, 0);
        }
        if (id == EB_NO_ID) {
            at++;
            continue;
        }
        status = encode_segment(&e, bytes + start, at - start, start == 0);
        eb_put_id(&e, id);
        at += eb_token_size(tokenizer, id);
        start = at;
    }
    if (status == EB_OK)
        status = encode_segment(&e, bytes + start, size - start, start == 0);
    if (e.memory)
        tokenizer->host.free(e.memory);
    *n_ids = status == EB_OK ? e.count : 0;
    return status == EB_OK && e.count > capacity ? EB_LIMIT : status;
}

eb_status eb_tokenize(const eb_tokenizer *tokenizer, const char *text, size_t size, int parse_special, int32_t *ids,
                      size_t capacity, size_t *n_ids) {
    const eb_range all = {0, size};
    return eb_tokenize_ranges(tokenizer, text, size, &all, parse_special ? 1 : 0, ids, capacity, n_ids);
}
