/* constraint_program.c - checks a program, and finds out what a vocabulary can say of it. */
#include "constraint_program.h"

#include "mem.h"
#include "status.h"

enum { HEADER_SIZE = 20, VERSION = 1, MAX_STATES = 1 << 15, MAX_EDGES = 1 << 17 };

/* Edges in order and apart, targets that are there. The states' edges follow one another: `first` is the next one's. */
static eb_status check_edges(const eb_constraint_program *p, uint32_t state, uint32_t first, eb_error *error) {
    const eb_constraint_state *s = &p->states[state];
    if (s->first_edge != first || s->n_edges > p->n_edges - first)
        EB_FAIL(error, EB_BAD_FORMAT, "constraint: state %u has edges that are not there, or another's", state);
    if (s->kind >= EB_STATE_COUNTED && s->kind - EB_STATE_COUNTED >= (int64_t)p->n_counts)
        EB_FAIL(error, EB_BAD_FORMAT, "constraint: state %u has a count that is not there", state);
    const eb_constraint_edge *edges = p->edges + s->first_edge;
    for (uint32_t i = 0; i < s->n_edges; i++) {
        const eb_constraint_edge *edge = &edges[i];
        if (edge->low > edge->high || (i && edge->low <= edges[i - 1].high) || edge->reserved ||
            edge->target >= p->n_states || (edge->callee != EB_NO_CALLEE && edge->callee >= p->n_states))
            EB_FAIL(error, EB_BAD_FORMAT, "constraint: edge %u of state %u is damaged", i, state);
    }
    return EB_OK;
}

/* A rule's text never begins with another rule's: so a byte calls one rule at most. Nor is it empty. */
static eb_status check_callees(const eb_constraint_program *p, eb_error *error) {
    for (uint32_t i = 0; i < p->n_edges; i++) {
        if (p->edges[i].callee == EB_NO_CALLEE)
            continue;
        const eb_constraint_state *start = &p->states[p->edges[i].callee];
        int is_plain = start->kind == EB_STATE_INSIDE;
        for (uint32_t j = 0; j < start->n_edges; j++)
            is_plain &= p->edges[start->first_edge + j].callee == EB_NO_CALLEE;
        if (!is_plain)
            EB_FAIL(error, EB_BAD_FORMAT, "constraint: edge %u calls what is no rule", i);
    }
    return EB_OK;
}

eb_status eb_constraint_program_read(eb_constraint_program *out, const void *data, uint64_t size, eb_error *error) {
    const uint8_t *bytes = data;
    if (size < HEADER_SIZE || eb_memcmp(bytes, "EBJP", 4) != 0)
        EB_FAIL(error, EB_BAD_FORMAT, "constraint: these %llu bytes are no program", (ull)size);
    if (eb_load_u32(bytes + 4) != VERSION)
        EB_FAIL(error, EB_UNSUPPORTED, "constraint: the program has version %u, this library knows %u",
                eb_load_u32(bytes + 4), (unsigned)VERSION);
    eb_constraint_program p = {
        .n_states = eb_load_u32(bytes + 8), .n_edges = eb_load_u32(bytes + 12), .n_counts = eb_load_u32(bytes + 16)};
    if (!p.n_states || p.n_states > MAX_STATES || p.n_edges > MAX_EDGES || p.n_counts > MAX_STATES)
        EB_FAIL(error, EB_LIMIT, "constraint: %u states, %u edges or %u counts are too many, or too few", p.n_states,
                p.n_edges, p.n_counts);
    const uint64_t states_size = (uint64_t)p.n_states * sizeof *p.states,
                   edges_size = (uint64_t)p.n_edges * sizeof *p.edges,
                   counts_size = (uint64_t)p.n_counts * sizeof *p.counts;
    if (size != HEADER_SIZE + states_size + edges_size + counts_size)
        EB_FAIL(error, EB_BAD_FORMAT, "constraint: the program has %llu bytes, its header says %llu", (ull)size,
                (ull)(HEADER_SIZE + states_size + edges_size + counts_size));
    p.states = (const void *)(bytes + HEADER_SIZE);
    p.edges = (const void *)(bytes + HEADER_SIZE + states_size);
    p.counts = (const void *)(bytes + HEADER_SIZE + states_size + edges_size);
    for (uint32_t i = 0; i < p.n_counts; i++)
        if (p.counts[i].least > p.counts[i].most)
            EB_FAIL(error, EB_BAD_FORMAT, "constraint: count %u allows nothing", i);
    eb_status status = EB_OK;
    uint32_t n_edges = 0;
    for (uint32_t state = 0; state < p.n_states && status == EB_OK; n_edges += p.states[state++].n_edges)
        status = check_edges(&p, state, n_edges, error);
    if (status == EB_OK && n_edges != p.n_edges)
        EB_FAIL(error, EB_BAD_FORMAT, "constraint: %u edges are of no state", p.n_edges - n_edges);
    if (status == EB_OK)
        status = check_callees(&p, error);
    if (status == EB_OK)
        *out = p;
    return status;
}

/* ---- states from which an end can be reached ---- */

static int has(const uint32_t *set, uint32_t member) { return set[member >> 5] >> (member & 31) & 1; }

static int has_any(const uint32_t *set, uint8_t low, uint8_t high) {
    for (unsigned byte = low; byte <= high; byte++)
        if (has(set, byte))
            return 1;
    return 0;
}

/* For each state the edges that lead to it or call it: those of state s are by[first[s] .. first[s + 1]). */
typedef struct ways {
    uint32_t *first;   /* [n_states + 2] */
    uint32_t *by;      /* [2 n_edges] */
    uint16_t *sources; /* [n_edges] the state that each edge is of */
    uint16_t *fresh;   /* [n_states] room for those found */
} ways;

static void collect(ways *w, const eb_constraint_program *p) {
    eb_memset(w->first, 0, (p->n_states + 2) * sizeof *w->first);
    for (uint32_t state = 0; state < p->n_states; state++)
        for (uint32_t i = 0; i < p->states[state].n_edges; i++)
            w->sources[p->states[state].first_edge + i] = (uint16_t)state;
    for (uint32_t i = 0; i < p->n_edges; i++) {
        w->first[p->edges[i].target + 2]++;
        if (p->edges[i].callee != EB_NO_CALLEE)
            w->first[p->edges[i].callee + 2]++;
    }
    for (uint32_t state = 1; state < p->n_states + 2; state++)
        w->first[state] += w->first[state - 1];
    for (uint32_t i = 0; i < p->n_edges; i++) { /* moves the beginning of each to its end, which is the next one's */
        w->by[w->first[p->edges[i].target + 1]++] = i;
        if (p->edges[i].callee != EB_NO_CALLEE)
            w->by[w->first[p->edges[i].callee + 1]++] = i;
    }
}

/* A string that asks for characters needs one that is a token, and that leads back to where it was. */
static int can_fill(const eb_constraint_program *p, uint32_t state, const uint32_t single[8]) {
    const eb_constraint_count *count = eb_constraint_count_of(p, state);
    const eb_constraint_state *s = &p->states[state];
    int found = !count || !count->least;
    for (uint32_t i = 0; i < s->n_edges && !found; i++) {
        const eb_constraint_edge *edge = &p->edges[s->first_edge + i];
        found = edge->target == state && has_any(single, edge->low, edge->high);
    }
    return found;
}

static void spread(const ways *w, const eb_constraint_program *p, const uint32_t single[8], uint32_t *alive) {
    uint32_t n = 0;
    for (uint32_t state = 0; state < p->n_states; state++)
        if (p->states[state].kind == EB_STATE_END) {
            alive[state >> 5] |= 1u << (state & 31);
            w->fresh[n++] = (uint16_t)state;
        }
    while (n) {
        const uint32_t state = w->fresh[--n];
        for (uint32_t i = w->first[state]; i < w->first[state + 1]; i++) {
            const eb_constraint_edge *edge = &p->edges[w->by[i]];
            const uint32_t source = w->sources[w->by[i]];
            if (has(alive, source) || !has(alive, edge->target) ||
                (edge->callee != EB_NO_CALLEE && !has(alive, edge->callee)) ||
                !has_any(single, edge->low, edge->high) || !can_fill(p, source, single))
                continue;
            alive[source >> 5] |= 1u << (source & 31);
            w->fresh[n++] = (uint16_t)source;
        }
    }
}

/* Where nothing leads on for want of a byte: that byte. */
static eb_status name_missing(const eb_constraint_program *p, const uint32_t single[8], const uint32_t *alive,
                              eb_error *error) {
    for (uint32_t state = 0; state < p->n_states; state++)
        for (uint32_t i = 0; !has(alive, state) && i < p->states[state].n_edges; i++) {
            const eb_constraint_edge *edge = &p->edges[p->states[state].first_edge + i];
            if (has(alive, edge->target) && !has_any(single, edge->low, edge->high))
                EB_FAIL(error, EB_UNSUPPORTED,
                        "constraint: the vocabulary has no token for byte 0x%x alone, which the schema's text needs",
                        edge->low);
        }
    EB_FAIL(error, EB_UNSUPPORTED, "constraint: the vocabulary lacks tokens that the schema's text needs");
}

eb_status eb_constraint_find_alive(const eb_constraint_program *program, const eb_host *host, const uint32_t single[8],
                                   uint32_t *alive, eb_error *error) {
    const eb_constraint_program *p = program;
    const size_t words = p->n_states + 2 + 2 * (size_t)p->n_edges, halves = (size_t)p->n_edges + p->n_states;
    uint32_t *memory = eb_alloc(host, words + (halves + 1) / 2, sizeof *memory);
    if (!memory)
        EB_FAIL(error, EB_NO_MEMORY, "no memory to check a constraint");
    ways w = {.first = memory, .by = memory + p->n_states + 2};
    w.sources = (uint16_t *)(void *)(memory + words);
    w.fresh = w.sources + p->n_edges;
    eb_memset(alive, 0, (p->n_states + 31) / 32 * sizeof *alive);
    eb_memset(w.sources, 0, halves * sizeof *w.sources);
    collect(&w, p);
    spread(&w, p, single, alive);
    host->free(memory);
    return has(alive, 0) ? EB_OK : name_missing(p, single, alive, error);
}
