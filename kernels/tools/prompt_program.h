/* prompt_program.h - how a message becomes a prompt: section PRMT (docs/model-format.md), for one message of a user. */
#ifndef EB_PROMPT_PROGRAM_H
#define EB_PROMPT_PROGRAM_H

#include "edgebit.h"

/* A prompt under construction: bytes, and the ranges of them where special tokens are recognised. */
typedef struct prompt {
    char *text; /* the caller's, with room for what is added */
    size_t size;
    eb_range range[8];
    size_t n_ranges;
} prompt;

/* Adds what somebody wrote; and what the template writes. */
void add_text(prompt *out, const char *text, size_t size);
void add_template(prompt *out, const char *text, size_t size);

enum { PROMPT_TEXTS = 9 };
enum { PROMPT_BEGINS = 1, PROMPT_TAKES_SYSTEM = 4 }; /* of prompt_program.flags */

typedef struct prompt_program {
    uint32_t flags;
    const char *text[PROMPT_TEXTS]; /* in the section's order, inside it */
    uint32_t size[PROMPT_TEXTS];
} prompt_program;

/* Reads section PRMT [size]: NULL, or what is wrong with it. */
const char *read_prompt_program(const void *section, uint64_t size, prompt_program *out);

/* Bytes that write_prompt() may add. `system`: a system message, or NULL. */
size_t prompt_room(const prompt_program *program, const char *system, const char *content);

/* Adds the prompt for the answer to `content`; there is `system` only with PROMPT_TAKES_SYSTEM. */
void write_prompt(prompt *out, const prompt_program *program, const char *system, const char *content);

#endif
