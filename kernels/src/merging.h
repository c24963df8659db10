/* merging.h - the tokens of a piece of text. */
#ifndef EB_MERGING_H
#define EB_MERGING_H

#include "edgebit.h"

/* What one eb_tokenize() call works with. */
typedef struct eb_tokenizing {
    const eb_tokenizer *tokenizer;
    int32_t *ids;
    size_t capacity, count; /* how many there are even when they do not fit */
    void *memory;           /* of the host, for long pieces; the caller frees it */
    size_t memory_symbols;
} eb_tokenizing;

void eb_put_id(eb_tokenizing *encoding, uint32_t id);

/* Of EB_KIND_BYTE_LEVEL: text [size], size > 0, begins as bytes; those without a token are left out. */
eb_status eb_encode_piece(eb_tokenizing *encoding, const uint8_t *text, size_t size);

/* Of EB_KIND_BYTE_FALLBACK: text [size] begins as characters, U+2581 as a space; those without a token as bytes. With
 * `space_prefix`, a space goes before it. */
eb_status eb_encode_characters(eb_tokenizing *encoding, const uint8_t *text, size_t size, int space_prefix);

#endif
