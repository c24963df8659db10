/* tokenizer.h - the tokenizer from inside: a checked TOKN section (docs/model-format.md), used in place. */
#ifndef EB_TOKENIZER_H
#define EB_TOKENIZER_H

#include "edgebit.h"

#define EB_NO_ID UINT32_MAX

/* Numbers of section TOKN. */
enum { EB_KIND_BYTE_LEVEL = 0, EB_KIND_BYTE_FALLBACK = 1, EB_KINDS };
enum { EB_NORMALIZER_NONE = 0, EB_NORMALIZER_NFC = 1, EB_NORMALIZERS };
enum {
    EB_SPACE_PREFIX_NONE = 0,
    EB_SPACE_PREFIX_SEGMENT = 1,
    EB_SPACE_PREFIX_UNSPACED_SEGMENT = 2,
    EB_SPACE_PREFIX_UNSPACED_TEXT = 3,
    EB_SPACE_PREFIXES
};
enum { EB_TOKEN_SPECIAL = 1, EB_TOKEN_ADDED = 2, EB_TOKEN_UNUSED = 4, EB_TOKEN_NORMALIZED = 8 };

typedef struct eb_merge {
    uint32_t right, rank, merged;
} eb_merge;

struct eb_tokenizer {
    eb_host host;
    uint32_t version, kind, pre_tokenizer, normalizer, space_prefix;
    int ignore_merges, strip_leading_space;
    uint32_t vocab_size, n_merges, n_added, n_normalized, hash_mask, hash_bits;
    const uint32_t *offsets;    /* [vocab_size + 1] of each token in bytes */
    const uint32_t *merge_rows; /* [vocab_size + 1] of each left token in merges */
    const eb_merge *merges;     /* [n_merges] by left, then right */
    const uint32_t *hash;       /* [hash_mask + 1] ids by hash of their bytes, or EB_NO_ID */
    const uint32_t *byte_ids;   /* [256] the token of each byte, or EB_NO_ID: it is left out */
    const uint32_t *added;      /* [n_added] ids by their bytes */
    const uint8_t *flags;       /* [vocab_size] */
    const uint8_t *bytes;
    uint32_t added_first[8]; /* set of bytes that an added token begins with */
};

static inline size_t eb_token_size(const eb_tokenizer *t, uint32_t id) { return t->offsets[id + 1] - t->offsets[id]; }

static inline const uint8_t *eb_token_text(const eb_tokenizer *t, uint32_t id) { return t->bytes + t->offsets[id]; }

/* The token of which text [size] is the bytes, of those that text can become; EB_NO_ID: none. */
uint32_t eb_find_token(const eb_tokenizer *t, const uint8_t *text, size_t size);

#endif
