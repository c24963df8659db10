/* constraint_program.h - what a JSON Schema was compiled to (docs/json-schema.md), checked and used in place. */
#ifndef EB_CONSTRAINT_PROGRAM_H
#define EB_CONSTRAINT_PROGRAM_H

#include "edgebit.h"

enum {
    EB_STATE_INSIDE = 0,
    EB_STATE_END = 1,
    EB_STATE_COUNTED = 2
}; /* counted: and the following, one for each count */

#define EB_NO_CALLEE 0xffffu
#define EB_NO_MOST 0xffffffffu

typedef struct eb_constraint_state {
    uint32_t first_edge;
    uint16_t n_edges, kind;
} eb_constraint_state;

/* By byte, each byte at most once in a state. */
typedef struct eb_constraint_edge {
    uint8_t low, high;
    uint16_t reserved;
    uint16_t target; /* the state that follows; with a callee, once its rule has ended */
    uint16_t callee; /* the state in which the rule called begins, with this byte; EB_NO_CALLEE: none */
} eb_constraint_edge;

/* Characters that the string may have that a counted state is in. */
typedef struct eb_constraint_count {
    uint32_t least, most;
} eb_constraint_count;

typedef struct eb_constraint_program {
    uint32_t n_states, n_edges, n_counts;
    const eb_constraint_state *states;
    const eb_constraint_edge *edges;
    const eb_constraint_count *counts;
} eb_constraint_program;

/* All of `data` is checked: afterwards every number in it may be used as an index. */
eb_status eb_constraint_program_read(eb_constraint_program *out, const void *data, uint64_t size, eb_error *error);

/* The edge that `byte` takes from a state; NULL: none. */
static inline const eb_constraint_edge *eb_constraint_edge_of(const eb_constraint_program *program, uint32_t state,
                                                              uint8_t byte) {
    const eb_constraint_state *s = &program->states[state];
    const eb_constraint_edge *edge = program->edges + s->first_edge, *end = edge + s->n_edges;
    for (; edge < end && edge->low <= byte; edge++)
        if (byte <= edge->high)
            return edge;
    return NULL;
}

static inline const eb_constraint_count *eb_constraint_count_of(const eb_constraint_program *program, uint32_t state) {
    const uint16_t kind = program->states[state].kind;
    return kind >= EB_STATE_COUNTED ? &program->counts[kind - EB_STATE_COUNTED] : NULL;
}

/* Sets in `alive`, a set of states, those from which tokens of one byte each lead to the end of their rule; `single` is the
 * set of bytes that are such a token. EB_UNSUPPORTED where the first state is not among them. */
eb_status eb_constraint_find_alive(const eb_constraint_program *program, const eb_host *host, const uint32_t single[8],
                                   uint32_t *alive, eb_error *error);

#endif
