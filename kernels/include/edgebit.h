/* edgebit.h - the public interface of the edgebit engine: ternary (BitNet b1.58) language models on small CPUs.
 *
 * The library needs no libc and imports no symbol. What it needs of an operating system (memory, file mapping,
 * threads, a clock) comes in as one table of functions, `eb_host`, whose members have the signatures of the POSIX
 * functions they are named after: a caller fills it with its own libc's. So one file loads under glibc, musl and bionic.
 *
 * Every result is bit-identical on every CPU, at every ISA level, at any thread count and batch size.
 *
 * Ownership: whatever an eb_*_open() gives is the caller's until the matching eb_*_close(). A tokenizer or an engine
 * borrows its model, which must outlive it. Strings are UTF-8, sizes are bytes, times are nanoseconds.
 * Threads: an eb_model, an eb_tokenizer and an eb_vocabulary may be used from many threads at once; all other objects
 * from one thread at a time, but for eb_cancel().
 */
#ifndef EDGEBIT_H
#define EDGEBIT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Comments stand in columns. */
/* clang-format off */

#define EB_ABI_VERSION 5

#if defined(__GNUC__)
#define EB_API __attribute__((visibility("default")))
#else
#define EB_API
#endif

typedef enum eb_status {
    EB_OK = 0,
    EB_BAD_ARGUMENT = 1, /* the call is wrong: a null pointer, a token outside the vocabulary, a sequence that is not there */
    EB_IO = 2,           /* the file cannot be opened or mapped */
    EB_BAD_FORMAT = 3,   /* the file is damaged, cut short, or lies about itself */
    EB_UNSUPPORTED = 4,  /* the file is sound, but of a version or kind that this library does not know */
    EB_NO_MEMORY = 5,
    EB_LIMIT = 6,        /* a limit was passed: the context is full, or more logits were wanted than there are rows */
    EB_CANCELLED = 7,    /* eb_cancel() was called; the sequences are as before the call that was cancelled */
    EB_MISMATCH = 8      /* a golden probe gave another result than the file promises: this device computes wrongly */
} eb_status;

/* Where a call failed and why: "chat.ebm: section TENS ends at byte 912384, the file has 880128". Always terminated. */
typedef struct eb_error {
    char text[256];
} eb_error;

/* The operating system, as seen from here. Each function has the signature and meaning of its POSIX namesake. */
typedef struct eb_host {
    uint32_t size;            /* sizeof(eb_host), checked */
    int32_t map_private;      /* MAP_PRIVATE | any flag the host wishes for a read-only file mapping */
    int32_t clock_monotonic;  /* CLOCK_MONOTONIC of this system: 1 on Linux, 6 on macOS */
    uint32_t reserved;
    uint64_t hwcap, hwcap2;   /* AT_HWCAP and AT_HWCAP2 of the auxiliary vector on AArch64 Linux; 0 elsewhere */
    const char *isa;          /* NULL, or the name of the highest ISA level that may be used (eb_isa_names()): a mask,
                                 never a wish; a level the CPU does not have is refused */
    void *(*malloc)(size_t size);
    void (*free)(void *memory);
    int (*open)(const char *path, int flags);
    int64_t (*lseek)(int fd, int64_t offset, int whence);
    void *(*mmap)(void *addr, size_t size, int prot, int flags, int fd, int64_t offset);
    int (*munmap)(void *addr, size_t size);
    int (*close)(int fd);
    /* pthread_t is one machine word on every system we run on; mutexes and conditions get 128 zeroed, aligned bytes. */
    int (*pthread_create)(uintptr_t *thread, const void *attr, void *(*start)(void *), void *arg);
    int (*pthread_join)(uintptr_t thread, void **result);
    int (*pthread_mutex_init)(void *mutex, const void *attr);
    int (*pthread_mutex_lock)(void *mutex);
    int (*pthread_mutex_unlock)(void *mutex);
    int (*pthread_mutex_destroy)(void *mutex);
    int (*pthread_cond_init)(void *cond, const void *attr);
    int (*pthread_cond_wait)(void *cond, void *mutex);
    int (*pthread_cond_broadcast)(void *cond);
    int (*pthread_cond_destroy)(void *cond);
    int (*sched_yield)(void);
    int (*clock_gettime)(int clock, int64_t seconds_nanoseconds[2]);
} eb_host;

EB_API uint32_t eb_abi_version(void); /* EB_ABI_VERSION of the library; a caller refuses one it was not made for */
EB_API const char *eb_version(void);  /* "0.1.0" */
EB_API const char *eb_status_name(eb_status status);
EB_API const char *eb_isa_names(void); /* ISA levels of this build, lowest first, space-separated: "scalar neon dotprod" */
/* The ISA level that would be used with this host table: a static string, or NULL when host->isa cannot be had. */
EB_API const char *eb_isa_pick(const eb_host *host, eb_error *error);

/* ---- model: a mapped and checked model file (docs/model-format.md) ---- */

typedef struct eb_model eb_model;

typedef struct eb_model_info {
    uint32_t hidden_size, ffn_size, n_layers, n_heads, n_kv_heads, head_dim, vocab_size, context_max;
    int32_t bos_token;        /* -1 where the model has none */
    uint32_t n_stop_tokens;
    int32_t stop_tokens[8];   /* generation ends after any of these */
    uint64_t weight_bytes;    /* of section DATA: what is mapped */
    uint64_t bytes_per_token; /* weight bytes that one decode step reads: of the head, the high plane */
} eb_model_info;

/* Maps `size` bytes at `offset` of the file at `path` (a model may lie inside a bundle; size 0: to the end of the file)
 * and checks header, section table, sums, every size and every offset before use. Weights are only mapped;
 * eb_model_verify() reads them all. `host` is copied. */
EB_API eb_status eb_model_open(const eb_host *host, const char *path, uint64_t offset, uint64_t size, eb_model **out,
                               eb_error *error);
/* The same on bytes that the caller holds until eb_model_close(); `data` must be aligned to 64 bytes. */
EB_API eb_status eb_model_open_memory(const eb_host *host, const void *data, uint64_t size, eb_model **out,
                                      eb_error *error);
EB_API void eb_model_close(eb_model *model);
EB_API const eb_model_info *eb_model_get_info(const eb_model *model);
/* The bytes of the section named by four characters ("META", "PRMT", "TOKN", "PROB"): EB_OK and NULL, 0 if absent. */
EB_API eb_status eb_model_section(const eb_model *model, const char tag[4], const void **data, uint64_t *size);
/* Stands for what the model computes: a number from the sums of sections CONF, TENS and DATA. What one model has computed
 * (eb_sequence_save()) is not taken for another's. */
EB_API uint64_t eb_model_fingerprint(const eb_model *model);
/* Reads every weight: the sum of section DATA, codes in range, scales finite. */
EB_API eb_status eb_model_verify(const eb_model *model, eb_error *error);

/* ---- tokenizer: byte-pair encoding of bytes, or of characters with bytes to fall back on; takes any bytes ---- */

typedef struct eb_tokenizer eb_tokenizer;

/* From the bytes of a TOKN section, which must stay until eb_tokenizer_close(). All of it is checked first. */
EB_API eb_status eb_tokenizer_open(const eb_host *host, const void *section, uint64_t size, eb_tokenizer **out,
                                   eb_error *error);
EB_API void eb_tokenizer_close(eb_tokenizer *tokenizer);
EB_API uint32_t eb_tokenizer_vocab_size(const eb_tokenizer *tokenizer);
/* Token ids of `text`, [size] bytes of any kind, less than 2 GiB, normalized as the tokenizer asks for; invalid UTF-8 is
 * kept byte for byte. Added tokens that are not special are recognised in any case.
 *   parse_special  nonzero: "<|eot_id|>" in the text becomes the special token; 0: it stays text
 *   ids, capacity  where they go; *n_ids is how many there are even when they do not fit: then EB_LIMIT */
EB_API eb_status eb_tokenize(const eb_tokenizer *tokenizer, const char *text, size_t size, int parse_special,
                             int32_t *ids, size_t capacity, size_t *n_ids);
typedef struct eb_range {
    size_t begin, end; /* bytes begin to end - 1 */
} eb_range;
/* The same with special tokens recognised only where they lie within one of the ranges, which are in order and apart: a
 * conversation is tokenized as one text, so that tokens form across its seams, and what a user wrote stays text. */
EB_API eb_status eb_tokenize_ranges(const eb_tokenizer *tokenizer, const char *text, size_t size,
                                    const eb_range *special, size_t n_special, int32_t *ids, size_t capacity,
                                    size_t *n_ids);
/* Whether a text that tokens stand for loses its first character if that is a space, which tokenizing put there. A text
 * stream does it. */
EB_API int eb_tokenizer_strips_space(const eb_tokenizer *tokenizer);
/* The bytes a token stands for, not terminated, owned by the tokenizer; NULL where the id is outside the vocabulary.
 * *is_special (may be NULL) says whether it is a special token, which a text stream leaves out. */
EB_API const char *eb_token_bytes(const eb_tokenizer *tokenizer, int32_t id, size_t *size, int *is_special);

/* ---- text: incremental detokenizing with stop strings ---- */

typedef struct eb_text eb_text;

/* `stops`, at most 64 of 1 to 1,024 bytes each, are copied. The first one complete ends the text; of those complete at the
 * same byte, the longest. Bytes that may still become a stop string, or that are a part of a character, are held back. */
EB_API eb_status eb_text_open(const eb_tokenizer *tokenizer, const char *const *stops, const size_t *stop_sizes,
                              size_t n_stops, eb_text **out, eb_error *error);
EB_API void eb_text_close(eb_text *text);
/* Takes one token; *piece, [*size] bytes valid until the next call, is what can be shown now: whole characters only.
 * *stopped is set once a stop string is complete: it and what follows are not shown. */
EB_API eb_status eb_text_push(eb_text *text, int32_t token, const char **piece, size_t *size, int *stopped);
/* What was held back, with bytes that never became a character replaced by U+FFFD. Empty after a stop. */
EB_API eb_status eb_text_finish(eb_text *text, const char **piece, size_t *size);

/* ---- adapters: low-rank side paths of projections (LoRA), y = W x + scale * B (A x) (docs/adapter-format.md) ---- */

typedef struct eb_adapter eb_adapter;

/* A file's bytes, aligned to 64, which the caller holds until eb_adapter_close(); so is the model. All of it is checked first:
 * sums, sizes, every number, and that it was made for these weights (EB_UNSUPPORTED). May be used by many engines at once. */
EB_API eb_status eb_adapter_open(const eb_model *model, const void *data, uint64_t size, eb_adapter **out,
                                 eb_error *error);
EB_API void eb_adapter_close(eb_adapter *adapter);
EB_API const char *eb_adapter_name(const eb_adapter *adapter);
EB_API uint64_t eb_adapter_fingerprint(const eb_adapter *adapter); /* stands for the file's bytes; never 0 */
/* Stands for the weights that an adapter is made for, in whichever layout a model file has them: a number from the scales of
 * all projections, the codes of their first four rows, and the layers' norms. */
EB_API uint64_t eb_weights_fingerprint(const eb_model *model);

/* ---- engine: prefill and decode of several sequences ---- */

typedef struct eb_engine eb_engine;

/* How the KV cache holds keys and values. Results are the same bits everywhere for each type, and differ between types. */
typedef enum eb_kv_type {
    EB_KV_F16 = 1, /* IEEE binary16; golden probes are defined for this one */
    EB_KV_I8 = 2,  /* int8, with a scale for each head and token: half the memory */
    EB_KV_F32 = 3  /* float, for comparisons */
} eb_kv_type;

typedef struct eb_engine_options {
    uint32_t size;        /* sizeof(eb_engine_options), checked */
    uint32_t ctx_len;     /* KV cache length of each sequence, in tokens; 0: the model's own maximum */
    uint32_t n_sequences; /* sequences that can be in flight; 0: 1 */
    uint32_t n_threads;   /* worker threads, the caller's among them; 0: 1 */
    uint32_t batch_len;   /* tokens computed together in a prefill pass; 0: 128 */
    uint32_t logits_rows; /* rows of logits that one eb_eval() may want; 0: n_sequences */
    uint32_t kv_type;     /* eb_kv_type; 0: EB_KV_F16 */
} eb_engine_options;

/* Allocates everything that eb_eval() will need. */
EB_API eb_status eb_engine_open(const eb_model *model, const eb_engine_options *options, eb_engine **out,
                                eb_error *error);
EB_API void eb_engine_close(eb_engine *engine);
EB_API const char *eb_engine_error(const eb_engine *engine); /* what the last failing call on this engine said */
EB_API const char *eb_engine_isa(const eb_engine *engine);
/* From the next call on, so many threads: 1 to what the engine was opened with. The others sleep. No result changes. */
EB_API eb_status eb_engine_set_threads(eb_engine *engine, uint32_t n_threads);

typedef struct eb_batch {
    uint32_t n_tokens;
    const int32_t *tokens;      /* [n_tokens] */
    const uint32_t *sequences;  /* [n_tokens] the sequence that each is appended to, in this order; NULL: all to 0 */
    const uint8_t *want_logits; /* [n_tokens] nonzero where the logits are wanted; NULL: for the last token only */
    uint32_t n_best;            /* 0: all logits of these; else only so many highest of each need be there: they are the same
                                   bits, and any other may be -infinity, which spares reading most of the head */
    const uint32_t *const *allowed; /* [logits wanted] sets of tokens, [(vocab_size + 31) / 32] each, or NULL: all. The
                                   others' logits are -infinity and not computed, n_best are the best of those allowed */
} eb_batch;

/* Appends the tokens to their sequences and computes the wanted logits: prefill, decode, or both at once. On any
 * failure, EB_CANCELLED among them, every sequence is as it was before. */
EB_API eb_status eb_eval(eb_engine *engine, const eb_batch *batch);
/* Row `row` of the wanted logits of the last eb_eval(), in the order of its tokens: [vocab_size], until the next. */
EB_API const float *eb_logits(const eb_engine *engine, uint32_t row);
/* The same, but for the final hidden states of the wanted tokens, after the final norm, in place of their logits: what models
 * that embed texts are made for. The head is not read, and there is no limit to how many are wanted.
 *   batch   want_logits says of which tokens; n_best and allowed are not looked at
 *   states  [tokens wanted][hidden_size], in the order of the tokens, the caller's; on a failure what is in it means nothing
 * eb_logits() has no rows afterwards. */
EB_API eb_status eb_eval_states(eb_engine *engine, const eb_batch *batch, float *states);
EB_API uint32_t eb_sequence_length(const eb_engine *engine, uint32_t sequence);
/* Forgets all tokens from position `length` on; 0 empties the sequence. */
EB_API eb_status eb_sequence_truncate(eb_engine *engine, uint32_t sequence, uint32_t length);
/* Makes `to` begin as `from` does: with its first `length` tokens and its adapter, and no others. */
EB_API eb_status eb_sequence_copy(eb_engine *engine, uint32_t from, uint32_t to, uint32_t length);
/* Writes what was computed for tokens begin .. end - 1 of the sequence, [*size] bytes. *size is how many there are even
 * when they do not fit: then EB_LIMIT. */
EB_API eb_status eb_sequence_save(eb_engine *engine, uint32_t sequence, uint32_t begin, uint32_t end, void *state,
                                  size_t capacity, size_t *size);
/* Appends the first n_tokens tokens of a saved state to the sequence. It must hold the tokens before `begin` that it held
 * when it was saved: their number is checked, which they are the caller answers for. Damaged bytes (EB_BAD_FORMAT) and those
 * of another model, adapter, KV type or version (EB_UNSUPPORTED) are refused, and the sequence is as before. */
EB_API eb_status eb_sequence_load(eb_engine *engine, uint32_t sequence, uint32_t n_tokens, const void *state,
                                  size_t size);
/* Tokens go through the adapter (below) from now on, or with NULL through the model alone: for a sequence that is empty. The
 * adapter, which must be of the engine's own model, is not closed before the sequence has another; eb_sequence_copy() takes
 * it along, and eb_sequence_load() refuses what was computed with another. Golden probes run without. */
EB_API eb_status eb_sequence_set_adapter(eb_engine *engine, uint32_t sequence, const eb_adapter *adapter);
/* Ends the eb_eval() in progress between two layers or, if there is none, the next one. From any thread. */
EB_API void eb_cancel(eb_engine *engine);
EB_API void eb_cancel_reset(eb_engine *engine); /* takes back an eb_cancel() that no eb_eval() has answered */

/* For checks against a reference: runs decoder layer `layer` alone on hidden, [n_tokens][hidden_size], in place, as
 * positions 0 .. n_tokens-1 of `sequence`, which must be empty and is empty again afterwards. */
EB_API eb_status eb_eval_layer(eb_engine *engine, uint32_t layer, uint32_t sequence, float *hidden, uint32_t n_tokens);

typedef struct eb_stats {
    uint64_t prefill_tokens, prefill_ns; /* tokens and time in eb_eval() calls that gave a sequence more than one token */
    uint64_t decode_tokens, decode_ns;   /* the same for calls with one token a sequence */
    uint64_t weight_bytes, kv_bytes, arena_bytes; /* mapped; allocated for the KV cache; allocated for all else */
    uint32_t n_threads, reserved;
    uint64_t head_tokens; /* tokens of which only the best logits were computed, and of their rows of the head */
    uint64_t head_middle_rows, head_low_rows; /* those of which the middle plane, and the low one, was read as well */
} eb_stats;
EB_API void eb_engine_stats(const eb_engine *engine, eb_stats *out);
EB_API void eb_engine_stats_reset(eb_engine *engine); /* tokens and times to zero */

/* ---- sampler ---- */

typedef struct eb_sampler eb_sampler;

typedef struct eb_sampling {
    uint32_t size;             /* sizeof(eb_sampling), checked */
    float temperature;         /* 0: greedy, and the lowest id wins a tie */
    uint32_t top_k;            /* 0: off */
    float top_p;               /* 1: off */
    float min_p;               /* 0: off */
    float repetition_penalty;  /* 1: off; logits of tokens in the window are divided (positive) or multiplied by it */
    uint32_t repetition_window; /* tokens looked back on; 0: 64 */
    uint64_t seed;             /* the same seed and logits give the same tokens everywhere */
} eb_sampling;

EB_API eb_status eb_sampler_open(const eb_host *host, uint32_t vocab_size, const eb_sampling *sampling,
                                 eb_sampler **out, eb_error *error);
EB_API void eb_sampler_close(eb_sampler *sampler);
/* Puts a token that was not sampled, such as one of the prompt, into the repetition window. */
EB_API void eb_sampler_accept(eb_sampler *sampler, int32_t token);
/* How many of the highest logits eb_sample() looks at (eb_batch.n_best): 0 where it needs all. */
EB_API uint32_t eb_sampler_reach(const eb_sampler *sampler);
/* Draws from logits [vocab_size], which are not changed, and accepts the token. */
EB_API int32_t eb_sample(eb_sampler *sampler, const float *logits);

/* ---- drafts: several tokens a pass, found in the text itself (prompt lookup); what is answered stays the same ---- */

/* Looks for the longest end of tokens [n], 3 to 16 tokens, that stood in them before, the latest such place; gives the
 * `max` tokens that followed there, and *match (may be NULL), how long the end is. 0: there is none.
 * To verify a draft: eb_eval() the last token and the draft, logits wanted of all, and draw from one row after the other as
 * long as the drawn token is the draft's next; then truncate the sequence to what was drawn. */
EB_API size_t eb_draft_lookup(const int32_t *tokens, size_t n, int32_t *draft, size_t max, uint32_t *match);

enum { EB_MAX_DRAFT = 64, EB_DRAFT_KINDS = 5 };

/* What has been seen of drafts and of passes. All but `size`, `drafted` and `accepted` is eb_draft()'s own. */
typedef struct eb_drafting {
    uint32_t size;              /* sizeof(eb_drafting), set before eb_drafting_init(), checked */
    uint32_t max;               /* longest draft; 0: none at all */
    uint64_t drafted, accepted; /* tokens so far */
    float pass_ns, more_ns;     /* a pass with one token, and what each further one adds; smoothed */
    float hits[EB_DRAFT_KINDS]; /* by length of the match, last of forced text: the share that came true, smoothed */
    uint32_t pause[EB_DRAFT_KINDS], pauses[EB_DRAFT_KINDS]; /* drafts until the next trial: left, and at first */
    uint32_t length, kind, trial, reserved;                 /* of the draft under way */
} eb_drafting;

/* Before the first draft. One eb_drafting may serve many answers: it knows the device better each time. */
EB_API eb_status eb_drafting_init(eb_drafting *drafting, uint32_t max);
/* The draft to verify after tokens [n], at most `max` tokens; its length, 0 where none is likely to pay. */
EB_API uint32_t eb_draft(eb_drafting *drafting, const int32_t *tokens, size_t n, int32_t *draft, uint32_t max);
/* In place of eb_draft(), where text is forced that `n` tokens would spell (eb_constraint_forced()): how many of them to
 * verify, 0 where that is not likely to pay. */
EB_API uint32_t eb_draft_forced(eb_drafting *drafting, uint32_t n);
/* Once after each of these two: how many of the draft came true, and the time of the pass. */
EB_API void eb_draft_record(eb_drafting *drafting, uint32_t n_accepted, uint64_t ns);

/* ---- constraint: answers that follow a JSON Schema, compiled to a program (docs/json-schema.md) ---- */

typedef struct eb_vocabulary eb_vocabulary;

/* The tokens of a tokenizer as a trie of their bytes, for any number of constraints: made once, it may be used from many
 * threads. The tokenizer must outlive it.
 *   vocab_size   of the logits; tokens from there on are never allowed
 *   stop_tokens  [n_stop_tokens], at most 64: allowed where an answer is complete, and nowhere else */
EB_API eb_status eb_vocabulary_open(const eb_tokenizer *tokenizer, uint32_t vocab_size, const int32_t *stop_tokens,
                                    uint32_t n_stop_tokens, eb_vocabulary **out, eb_error *error);
EB_API void eb_vocabulary_close(eb_vocabulary *vocabulary);

typedef struct eb_constraint eb_constraint;

/* One answer's way through a program, [size] bytes, which are checked and copied. The vocabulary must outlive it. A token is
 * allowed exactly if the answer can still be completed after its bytes, by tokens of one byte if by no others; so there is
 * always one. EB_UNSUPPORTED: the vocabulary lacks bytes that every answer needs. */
EB_API eb_status eb_constraint_open(const eb_vocabulary *vocabulary, const void *program, uint64_t size,
                                    eb_constraint **out, eb_error *error);
EB_API void eb_constraint_close(eb_constraint *constraint);
EB_API void eb_constraint_reset(eb_constraint *constraint); /* to the beginning of an answer */
/* Makes the logits [vocab_size] of tokens that are not allowed now -infinity. EB_NO_MEMORY: they are as before. */
EB_API eb_status eb_constraint_mask(eb_constraint *constraint, float *logits);
/* Goes on by one token. EB_BAD_ARGUMENT where it is not allowed: the constraint is as before. */
EB_API eb_status eb_constraint_accept(eb_constraint *constraint, int32_t token);
/* How many of these tokens, one after the other, are allowed; the constraint stays where it is. */
EB_API uint32_t eb_constraint_allowed(eb_constraint *constraint, const int32_t *tokens, uint32_t n_tokens);
/* The tokens allowed now, and after each of `tokens`, which are allowed in turn: sets [n_tokens + 1][(vocab_size + 31) / 32],
 * as eb_batch takes them. The constraint stays where it is. */
EB_API eb_status eb_constraint_sets(eb_constraint *constraint, const int32_t *tokens, uint32_t n_tokens, uint32_t *sets);
/* 0: the answer is not complete; 1: it is, and may go on; 2: it is, and nothing but a stop token may follow. */
EB_API int eb_constraint_complete(const eb_constraint *constraint);
/* The next bytes as far as there is only one way on, at most `capacity`; gives their number. */
EB_API size_t eb_constraint_forced(eb_constraint *constraint, char *bytes, size_t capacity);

/* ---- golden probes: what this model must compute anywhere ---- */

/* Runs `prompt` on sequence 0, which must be empty and is so again afterwards, and then n_greedy greedy steps.
 *   layer_crc  [n_layers + 1] CRC-32 of the last prompt token's hidden state (float32, little-endian): the embedding,
 *              then after each layer;   logits_crc  of that token's logits;   greedy  [n_greedy] */
EB_API eb_status eb_probe_run(eb_engine *engine, const int32_t *prompt, uint32_t n_prompt, uint32_t *layer_crc,
                              uint32_t *logits_crc, int32_t *greedy, uint32_t n_greedy);
/* Runs every probe of section PROB; EB_MISMATCH names the first layer or token that differs. *n_probes: how many ran. */
EB_API eb_status eb_probe_check(eb_engine *engine, uint32_t *n_probes, eb_error *error);

/* ---- measure: what this machine can do at most, for speeds to be held against ---- */

/* Bytes a second that `n_threads` threads read from a buffer of `n_bytes`, which is to be several times as large as the
 * last cache, by plain loads over about 0.1 s. The buffer is allocated, written, and given back. EB_MISMATCH: memory
 * gave back something else than was written. */
EB_API eb_status eb_measure_read(const eb_host *host, uint32_t n_threads, uint64_t n_bytes, double *bytes_per_s,
                                 eb_error *error);
/* Multiplications (each with its addition) a second of ternary codes by int8, exactly summed, that `n_threads` threads
 * do on registers alone over about 0.1 s, at the ISA level that eb_isa_pick() names: no product with weights is faster. */
EB_API eb_status eb_measure_int8(const eb_host *host, uint32_t n_threads, double *macs_per_s, eb_error *error);

/* clang-format on */

#ifdef __cplusplus
}
#endif

#endif
