/* vocabulary.h - the tokens that text may consist of, as a trie of their bytes: what begins alike is looked at once. */
#ifndef EB_VOCABULARY_H
#define EB_VOCABULARY_H

#include "tokenizer.h"

/* Nodes stand in preorder: a node's first child, if it has one, is the next. */
typedef struct eb_trie_node {
    uint32_t after;      /* the first node that is not below this one */
    uint32_t tokens;     /* where its tokens begin; they end where those of the next node do */
    uint32_t depth_byte; /* 256 * the number of bytes up to here + the last of them */
} eb_trie_node;

struct eb_vocabulary {
    const eb_tokenizer *tokenizer;
    uint32_t vocab_size; /* of the logits */
    uint32_t n_nodes, deepest, n_stops;
    int32_t *stops;      /* [n_stops] */
    uint32_t *tokens;    /* ids by their bytes */
    eb_trie_node *nodes; /* [n_nodes + 1]; the last is not one */
    uint32_t single[8];  /* set of bytes that are a token by themselves */
};

/* Whether a token is a part of texts: neither special nor one that ends an answer. */
int eb_vocabulary_has(const eb_vocabulary *vocabulary, uint32_t id);

#endif
