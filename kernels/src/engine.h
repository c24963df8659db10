/* engine.h - the inside of an engine, shared by engine.c (sequences), engine_eval.c (batches), engine_layer.c and its
 * parts (the forward pass), and probe.c. */
#ifndef EB_ENGINE_H
#define EB_ENGINE_H

#include "adapter.h"
#include "dispatch.h"
#include "kv_cache.h"
#include "model_file.h"
#include "threadpool.h"

enum {
    EB_GEMV_ROWS = 256,     /* rows of a weight matrix that a thread computes together for one token */
    EB_GEMM_ROWS = 16,      /* the same for several */
    EB_FEW_TOKENS = 8,      /* up to so many are computed from packed weights, more from unpacked ones */
    EB_SOME_TOKENS = 32,    /* up to so many, codes are kept in the first-level cache */
    EB_CODES_BYTES = 28672, /* of unpacked weights that stay in a first-level cache beside what streams through it */
    EB_HEAD_ROWS = 64,      /* rows of the head that a thread computes together */
    EB_BEST_TOKENS = 16,    /* tokens whose best logits are looked for together */
    EB_MAX_BEST = 1024,     /* best logits of a token that can be wanted; more are all of them */
    EB_MAX_READERS = 3      /* projections that read the same vector: q, k and v */
};

/* What a projection reads, quantised: int8, or 15 bits in two planes (ukernel.h: eb_i15). */
typedef struct eb_input {
    int8_t *x, *lo; /* [batch_len][widest_stride]; lo: the low plane, or NULL */
    float *scale;   /* [batch_len] */
    int32_t *sum,
        *lo_sum; /* [the projection's n_groups][batch_len] the sums of x and of lo over each group's columns */
} eb_input;

/* Tokens that go through the layers together, and every buffer they need. Rows of floats are filled up with zeros to a
 * multiple of 64; `n` is the number of tokens. */
typedef struct eb_chunk {
    uint32_t n;
    uint32_t *sequence, *position; /* [batch_len] of each token */
    float *cosines, *sines;        /* [batch_len][head_dim / 2] */
    float *hidden;                 /* [batch_len][hidden_stride] the residual stream */
    float *normed;                 /* [batch_len][widest_stride] what is about to be quantised */
    float *qkv;                    /* [batch_len][(n_heads + 2 * n_kv_heads) * head_dim] */
    float *q;                      /* [n_kv_heads][batch_len][n_heads / n_kv_heads][head_stride] rotated, scaled */
    float *mixed;                  /* [batch_len][mixed_stride] attention's result; */
    float *gated;                  /* [batch_len][ffn_stride] act(gate) * up */
    float *renormed; /* [batch_len][widest_stride] after a projection's own norm, in models that have it */
    eb_input input[EB_MAX_READERS]; /* of the projections that come next: one, or some that read the same */
} eb_chunk;

/* Tokens of the chunk that attention takes together: of one sequence, at positions that follow on each other. */
typedef struct eb_attention_tile {
    uint32_t first, n;
} eb_attention_tile;

/* How the chunk's attention is done, and its buffers (attention.c). */
typedef struct eb_attention {
    uint32_t tokens_per_tile;
    uint32_t n_tiles, n_segments; /* most segments that a tile has */
    int by_segment;               /* items are segments; else the segments of a tile are one item */
    eb_attention_tile *tiles;     /* [batch_len] */
    /* scratch, [n_threads] each */
    float *scores;       /* [EB_ATTEND_ROWS][EB_SEGMENT] */
    float *sums;         /* [2][EB_ATTEND_ROWS][head_stride] */
    eb_softmax *softmax; /* [2][EB_ATTEND_ROWS] */
    int16_t *q15;        /* [EB_ATTEND_ROWS][2 * head_stride] */
    /* by segment: what each gave, [max_segments][n_kv_heads][split_tokens][n_heads / n_kv_heads] */
    uint32_t split_tokens, max_segments;
    float *part_sums; /* [head_stride] of each */
    eb_softmax *part_softmax;
} eb_attention;

/* The tokens of a chunk whose logits are wanted, and their hidden states quantised to 15 bits. */
typedef struct eb_wanted {
    uint32_t n, first_row;          /* row of the logits, or of `states`, that the first of them gets */
    float *states;                  /* of the whole batch, [tokens wanted][hidden_size], in place of logits; or NULL */
    uint32_t n_best;                /* 0: all logits; else as many best ones, the others may become -infinity */
    const uint32_t *const *allowed; /* [n] sets of rows of the head, or NULL: all; or NULL */
    uint32_t pass_first, pass_n;    /* those whose best logits are being looked for */
    uint32_t *token;                /* [batch_len] index in the chunk */
    int8_t *hi, *lo;                /* [batch_len][head_k] */
    float *scale;                   /* [batch_len] */
    int64_t *sum;                   /* [batch_len] of q */
    double *length;                 /* [batch_len] Euclidean, of q, or a little more */
    float *least;                   /* [EB_BEST_TOKENS] a logit that the n_best highest are not below */
} eb_wanted;

/* Which tokens go through an adapter, and its buffers, which are taken when the first one is set (low_rank.c). */
typedef struct eb_adapting {
    const eb_adapter **of_sequence; /* [n_sequences] or NULL */
    const eb_adapter **of_token;    /* [batch_len] of the chunk */
    int any;                        /* token of the chunk has one */
    int has_gate;                   /* there is room for gate and up */
    uint32_t rank;                  /* that there is room for */
    float *inner;                   /* [batch_len][EB_MAX_READERS][rank] A x */
    float *gate, *up;               /* [batch_len][ffn_size] before the activation */
    void *block;
    uint64_t bytes;
} eb_adapting;

struct eb_engine {
    eb_host host;
    const eb_model *model;
    eb_ukernels kernels;
    const char *isa;
    eb_error error;
    eb_threadpool *pool;
    uint32_t ctx_len, n_sequences, n_threads, threads_max, batch_len, logits_rows; /* n_threads: of threads_max */
    /* sizes in elements */
    size_t hidden_stride, mixed_stride, ffn_stride, widest_stride, head_stride, dots_size;
    size_t head_k;       /* hidden_size filled up as the head's rows are */
    uint32_t max_groups; /* that a projection has */
    uint64_t kv_bytes, arena_bytes;
    void *kv_block, *arena_block;
    eb_kv_cache kv;
    uint32_t *length; /* [n_sequences] */
    uint32_t *next;   /* [n_sequences] lengths while a batch is computed */
    eb_chunk chunk;
    eb_attention attention;
    eb_wanted wanted;
    eb_adapting adapting;
    int32_t *dots;      /* [n_threads][2][dots_size] */
    float *values;      /* the same; where dots are more than one product's */
    uint8_t *codes;     /* [n_threads][EB_GEMM_ROWS][widest_stride] unpacked weights */
    int64_t *dots64;    /* [n_threads][EB_HEAD_ROWS] */
    int64_t *high_dots; /* [EB_BEST_TOKENS or fewer][vocab_size] */
    uint32_t *best;     /* [EB_BEST_TOKENS][EB_MAX_BEST] */
    float *logits;      /* [logits_rows][vocab_size] */
    uint32_t n_logits;
    uint32_t cancelled; /* atomic */
    uint32_t *trace;    /* probe.c: [n_layers + 1] sums of a batch's last token, or NULL */
    eb_stats stats;
};

/* Puts the embeddings of `tokens` [chunk.n] into chunk.hidden. */
void eb_embed(eb_engine *engine, const int32_t *tokens);

/* cos and sin for the positions of the chunk, and the tiles of its attention. */
void eb_prepare_positions(eb_engine *engine);

/* The head's memory in the KV cache. */
unsigned char *eb_kv_head(const eb_engine *engine, uint32_t sequence, uint32_t layer, uint32_t kv_head);

/* Runs decoder layer `layer` on chunk.hidden, in place; its keys and values go into the cache at the tokens' positions.
 */
void eb_run_layer(eb_engine *engine, uint32_t layer);

/* Computes the logits of the wanted tokens, or their final hidden states, from chunk.hidden. */
void eb_run_head(eb_engine *engine);

/* ---- projection_input.c ---- */

struct eb_arena;

/* Takes the buffers of chunk.input; engine->max_groups is set. */
void eb_inputs_take(eb_engine *engine, struct eb_arena *arena);

/* A projection of a layer, and the norm of its own that its input goes through in models that have it: places. */
typedef struct eb_reader {
    unsigned projection, norm;
} eb_reader;

/* Quantises x [n], of token `b` of the chunk, for the projections that read it: into chunk.input[0 .. n_readers-1]. */
void eb_put_inputs(eb_engine *engine, const eb_layer *layer, const eb_reader *readers, unsigned n_readers, uint32_t b,
                   const float *x, size_t n);

/* ---- low_rank.c ---- */

/* Sets adapting.of_token for the chunk, whose sequences are set. */
void eb_adapt_chunk(eb_engine *engine);

/* Whether some token of the chunk has an adapter with a pair for one of the projections in this layer. */
int eb_adapts(const eb_engine *engine, uint32_t layer, const eb_reader *readers, unsigned n_readers);

/* A projection's side path: the float vectors that it reads, before any norm of the projection's own, and adds to. */
typedef struct eb_side_path {
    unsigned projection;
    const float *x;
    float *y;
    size_t x_stride, y_stride;
} eb_side_path;

/* y += scale * B (A x) for the tokens of the chunk that have an adapter; at most EB_MAX_READERS paths at once. */
void eb_add_side_paths(eb_engine *engine, uint32_t layer, const eb_side_path *paths, unsigned n_paths);

/* ---- attention.c ---- */

/* Takes the buffers of engine->attention; engine->kv is planned. */
void eb_attention_take(eb_engine *engine, struct eb_arena *arena);

/* Plans the attention of the chunk, whose sequences and positions are set. */
void eb_attention_plan(eb_engine *engine);

/* Items of work, which any threads may do, and one of them: what it leaves behind follows from its number. */
size_t eb_attention_items(const eb_engine *engine);
void eb_attention_item(eb_engine *engine, uint32_t layer, size_t item, unsigned thread);

/* Completes chunk.mixed of token `b` once all items are done. */
void eb_attention_finish(eb_engine *engine, uint32_t b);

#endif
