/* fuzz_constraint.c - libFuzzer target for constraints: hostile programs, and any tokens under those that are taken.
 *
 *   EB_FUZZ_SECTION=tiny.tokn ./fuzz_constraint CORPUS       the tokenizer that programs are for
 *
 * An input is eight bytes that choose tokens, and a program. Whatever it holds, opening it must fail cleanly or give a
 * constraint that accepts exactly the tokens that its mask leaves. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "edgebit.h"
#include "fuzz_host.h"

enum { STEPS = 24, CHOICES = 8 };

static eb_vocabulary *open_vocabulary(uint32_t *vocab_size) {
    static const eb_host *host;
    static eb_host made;
    made = make_host();
    host = &made;
    FILE *file = fopen(getenv("EB_FUZZ_SECTION"), "rb");
    require(file != NULL, "EB_FUZZ_SECTION cannot be read");
    void *section = aligned_alloc(64, 1 << 22);
    const size_t size = fread(section, 1, 1 << 22, file);
    fclose(file);
    eb_tokenizer *tokenizer;
    eb_vocabulary *vocabulary;
    eb_error error;
    require(eb_tokenizer_open(host, section, size, &tokenizer, &error) == EB_OK, "the section is no tokenizer's");
    *vocab_size = eb_tokenizer_vocab_size(tokenizer);
    const int32_t stop = 0;
    require(eb_vocabulary_open(tokenizer, *vocab_size, &stop, 1, &vocabulary, &error) == EB_OK, "no vocabulary");
    return vocabulary;
}

/* The mask, and that each token is accepted or not as it says; gives how many are allowed. */
static uint32_t check_mask(eb_constraint *constraint, float *logits, uint32_t vocab_size) {
    memset(logits, 0, vocab_size * sizeof *logits);
    require(eb_constraint_mask(constraint, logits) == EB_OK, "no mask");
    uint32_t n = 0;
    for (uint32_t id = 0; id < vocab_size; id++) {
        const int32_t token = (int32_t)id;
        const int is_allowed = logits[id] == 0;
        require((int)eb_constraint_allowed(constraint, &token, 1) == is_allowed, "a mask is not what is accepted");
        n += (uint32_t)is_allowed;
    }
    return n;
}

static void require_set(const uint32_t *set, const float *logits, uint32_t vocab_size) {
    for (uint32_t id = 0; id < vocab_size; id++)
        require((int)(set[id >> 5] >> (id & 31) & 1) == (logits[id] == 0), "a set is not what the mask leaves");
}

static int32_t nth_allowed(const float *logits, uint32_t n) {
    int32_t id = 0;
    while (logits[id] != 0 || n--)
        id++;
    return id;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static eb_vocabulary *vocabulary;
    static float *logits;
    static uint32_t *sets;
    static uint32_t vocab_size, words;
    if (!vocabulary) {
        vocabulary = open_vocabulary(&vocab_size);
        words = (vocab_size + 31) / 32;
        logits = malloc(vocab_size * sizeof *logits);
        sets = malloc(2 * words * sizeof *sets);
    }
    if (size < CHOICES)
        return 0;
    uint8_t *program = malloc(size - CHOICES + 1); /* of exactly its size, so that a read beyond it is seen */
    memcpy(program, data + CHOICES, size - CHOICES);
    eb_constraint *constraint;
    eb_error error;
    const eb_status status = eb_constraint_open(vocabulary, program, size - CHOICES, &constraint, &error);
    free(program);
    if (status != EB_OK) {
        require(constraint == NULL && memchr(error.text, 0, sizeof error.text) != NULL, "a refusal is not clean");
        return 0;
    }
    for (int step = 0; step < STEPS; step++) {
        const uint32_t n = check_mask(constraint, logits, vocab_size);
        if (step)
            require_set(sets + words, logits, vocab_size);
        char forced[64];
        require(eb_constraint_forced(constraint, forced, sizeof forced) <= sizeof forced, "too much is forced");
        if (!n)
            break;
        const int32_t token = nth_allowed(logits, (data[step % CHOICES] * 97u + (unsigned)step) % n);
        require(eb_constraint_sets(constraint, &token, 1, sets) == EB_OK, "no sets along a token that is allowed");
        require_set(sets, logits, vocab_size);
        require(eb_constraint_accept(constraint, token) == EB_OK, "a token that is allowed is not accepted");
        if (token == 0)
            break;
    }
    eb_constraint_close(constraint);
    return 0;
}
