/* pre_tokenizer.h - text cut into the pieces that merging stays within. */
#ifndef EB_PRE_TOKENIZER_H
#define EB_PRE_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

/* Numbers of section TOKN. */
enum {
    EB_PRE_TOKENIZER_NONE = 0,
    EB_PRE_TOKENIZER_LLAMA3 = 1,
    EB_PRE_TOKENIZER_GPT2 = 2,
    EB_PRE_TOKENIZER_QWEN2 = 3,
    EB_PRE_TOKENIZER_FALCON = 4,
    EB_PRE_TOKENIZERS
};

/* A walk along text [size]. Begin with the first three set and the rest 0. */
typedef struct eb_pieces {
    uint32_t pre_tokenizer;
    const uint8_t *text;
    size_t size;
    size_t at;                /* where the next piece begins */
    size_t run_end, word_end; /* of falcon: of the steps that the piece lies in */
} eb_pieces;

/* The size of the next piece, which begins at the old pieces->at; the text must not be at its end. */
size_t eb_next_piece(eb_pieces *pieces);

#endif
