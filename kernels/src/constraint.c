/* constraint.c - walks a program along the tokens of a vocabulary.
 *
 * A place in an answer is a state and a stack of states to go back to. Stacks are frames that share what lies below them,
 * and the same stack is mostly the same frame, so a place is three numbers: it is copied to look ahead, and what was
 * allowed at a place is found again. A mask is made by going through the trie once, cut short wherever bytes are not
 * allowed; one that took long is kept. */
#include "constraint_walk.h"
#include "mem.h"
#include "status.h"
#include "vocabulary.h"

enum {
    CACHE = 32,         /* masks kept */
    WORTH_KEEPING = 256 /* nodes of the trie that a mask took at least, to be kept */
};

typedef struct cached {
    uint32_t state, frame, low, high;
    uint64_t used; /* 0: nothing here yet */
    uint32_t *mask;
} cached;

struct eb_constraint {
    eb_host host;
    const eb_vocabulary *vocabulary;
    walk walk;
    void *memory; /* of the program */
    place at;
    int has_stopped;   /* a stop token was accepted */
    uint32_t n_frames; /* there is room for */
    place *path;       /* [deepest + 1] places on the way to a node of the trie */
    uint32_t *mask;    /* set of tokens: the one made last */
    uint32_t n_words;  /* of a mask */
    uint64_t clock;
    cached cache[CACHE];
};

/* ---- masks ---- */

static void allow(uint32_t *mask, uint32_t token) { mask[token >> 5] |= 1u << (token & 31); }

/* Makes the mask of where the constraint is; gives the number of nodes that were looked at. */
static uint32_t fill(eb_constraint *c, uint32_t *mask, span *same) {
    const eb_vocabulary *v = c->vocabulary;
    uint32_t n_looked_at = 0;
    eb_memset(mask, 0, c->n_words * sizeof *mask);
    *same = (span){.low = 0, .high = UINT32_MAX, .at = c->at.count};
    c->path[0] = c->at;
    c->path[0].is_new = 0;
    for (uint32_t i = 0; i < v->n_nodes; n_looked_at++) {
        const eb_trie_node *node = &v->nodes[i];
        const uint32_t depth = node->depth_byte >> 8;
        place *p = &c->path[depth];
        *p = p[-1];
        if (!advance(&c->walk, p, (uint8_t)node->depth_byte, same)) {
            i = node->after;
            continue;
        }
        if (is_alive(&c->walk, p->state))
            for (uint32_t token = node->tokens; token < node[1].tokens; token++)
                allow(mask, v->tokens[token]);
        i++;
    }
    if (is_complete(&c->walk, &c->at))
        for (uint32_t i = 0; i < v->n_stops; i++)
            allow(mask, (uint32_t)v->stops[i]);
    return n_looked_at;
}

/* The mask of where the constraint is, valid until the next. */
static const uint32_t *current_mask(eb_constraint *c) {
    cached *oldest = &c->cache[0];
    for (cached *each = c->cache; each < c->cache + CACHE; each++) {
        if (each->used && each->state == c->at.state && each->frame == c->at.frame && each->low <= c->at.count &&
            c->at.count <= each->high) {
            each->used = ++c->clock;
            return each->mask;
        }
        oldest = each->used < oldest->used ? each : oldest;
    }
    span same;
    if (fill(c, c->mask, &same) < WORTH_KEEPING)
        return c->mask;
    if (!oldest->mask)
        oldest->mask = eb_alloc(&c->host, c->n_words, sizeof *oldest->mask);
    if (!oldest->mask)
        return c->mask;
    uint32_t *made = c->mask;
    c->mask = oldest->mask;
    *oldest = (cached){c->at.state, c->at.frame, same.low, same.high, ++c->clock, made};
    return made;
}

static void apply(const uint32_t *mask, float *logits, uint32_t n) {
    for (uint32_t begin = 0; begin < n; begin += 32) {
        const uint32_t word = mask[begin >> 5], end = n - begin < 32 ? n : begin + 32;
        if (word == UINT32_MAX)
            continue;
        for (uint32_t id = begin; id < end; id++)
            if (!(word >> (id - begin) & 1))
                logits[id] = -__builtin_inff();
    }
}

eb_status eb_constraint_mask(eb_constraint *constraint, float *logits) {
    if (!constraint || !logits)
        return EB_BAD_ARGUMENT;
    if (constraint->has_stopped)
        return EB_BAD_ARGUMENT;
    apply(current_mask(constraint), logits, constraint->vocabulary->vocab_size);
    return EB_OK;
}

/* ---- tokens ---- */

/* Room for `more` frames on top of those in use, and for those that looking ahead takes. */
static eb_status reserve(eb_constraint *c, size_t more) {
    const size_t wanted = c->at.top + more + c->vocabulary->deepest + 1;
    if (wanted <= c->n_frames)
        return EB_OK;
    if (wanted > UINT32_MAX / 2)
        return EB_NO_MEMORY;
    frame *frames = eb_alloc(&c->host, 2 * wanted, sizeof *frames);
    if (!frames)
        return EB_NO_MEMORY;
    if (c->walk.frames) {
        eb_memcpy(frames, c->walk.frames, c->at.top * sizeof *frames);
        c->host.free(c->walk.frames);
    }
    c->walk.frames = frames;
    c->n_frames = (uint32_t)(2 * wanted);
    return EB_OK;
}

static int is_stop(const eb_vocabulary *v, int32_t token) {
    for (uint32_t i = 0; i < v->n_stops; i++)
        if (v->stops[i] == token)
            return 1;
    return 0;
}

/* Takes *p on by a token's bytes; 0 where it is not allowed, and *p means nothing then. */
static int follow(eb_constraint *c, place *p, int32_t token) {
    const eb_tokenizer *t = c->vocabulary->tokenizer;
    if (token < 0 || !eb_vocabulary_has(c->vocabulary, (uint32_t)token))
        return 0;
    const uint8_t *bytes = eb_token_text(t, (uint32_t)token);
    const size_t size = eb_token_size(t, (uint32_t)token);
    span same = {0};
    p->is_new = 1;
    for (size_t i = 0; i < size; i++)
        if (!advance(&c->walk, p, bytes[i], &same))
            return 0;
    return is_alive(&c->walk, p->state);
}

eb_status eb_constraint_accept(eb_constraint *constraint, int32_t token) {
    eb_constraint *c = constraint;
    if (!c || c->has_stopped)
        return EB_BAD_ARGUMENT;
    if (is_stop(c->vocabulary, token)) {
        c->has_stopped = is_complete(&c->walk, &c->at);
        return c->has_stopped ? EB_OK : EB_BAD_ARGUMENT;
    }
    if (reserve(c, c->vocabulary->deepest) != EB_OK)
        return EB_NO_MEMORY;
    place p = c->at;
    if (!follow(c, &p, token))
        return EB_BAD_ARGUMENT;
    c->at = p;
    return EB_OK;
}

uint32_t eb_constraint_allowed(eb_constraint *constraint, const int32_t *tokens, uint32_t n_tokens) {
    eb_constraint *c = constraint;
    if (!c || c->has_stopped || (n_tokens && !tokens) || reserve(c, (size_t)n_tokens * c->vocabulary->deepest) != EB_OK)
        return 0;
    place p = c->at;
    for (uint32_t i = 0; i < n_tokens; i++) {
        if (is_stop(c->vocabulary, tokens[i]))
            return i + (is_complete(&c->walk, &p) ? 1 : 0);
        if (!follow(c, &p, tokens[i]))
            return i;
    }
    return n_tokens;
}

eb_status eb_constraint_sets(eb_constraint *constraint, const int32_t *tokens, uint32_t n_tokens, uint32_t *sets) {
    eb_constraint *c = constraint;
    if (!c || c->has_stopped || (n_tokens && !tokens) || !sets)
        return EB_BAD_ARGUMENT;
    const place before = c->at;
    eb_status status = EB_OK;
    for (uint32_t i = 0; i <= n_tokens && status == EB_OK; i++) {
        if (c->has_stopped)
            eb_memset(sets, 0, c->n_words * sizeof *sets);
        else
            eb_memcpy(sets, current_mask(c), c->n_words * sizeof *sets);
        sets += c->n_words;
        if (i < n_tokens)
            status = eb_constraint_accept(c, tokens[i]);
    }
    const uint32_t top = c->at.top; /* frames stay: masks that were kept are of them */
    c->at = before;
    c->at.top = top;
    c->has_stopped = 0;
    return status;
}

int eb_constraint_complete(const eb_constraint *constraint) {
    const eb_constraint *c = constraint;
    if (!c || !is_complete(&c->walk, &c->at))
        return 0;
    return c->at.frame || c->walk.program.states[c->at.state].n_edges ? 1 : 2;
}

/* The only byte that may follow; -1 where there are several, or none. */
static int only_byte(const eb_constraint *c, const place *p) {
    const eb_constraint_state *s = &c->walk.program.states[p->state];
    const eb_constraint_edge *edge = c->walk.program.edges + s->first_edge;
    return s->kind == EB_STATE_INSIDE && s->n_edges == 1 && edge->low == edge->high ? edge->low : -1;
}

size_t eb_constraint_forced(eb_constraint *constraint, char *bytes, size_t capacity) {
    eb_constraint *c = constraint;
    if (!c || !bytes || c->has_stopped || reserve(c, capacity) != EB_OK)
        return 0;
    place p = c->at;
    span same = {0};
    p.is_new = 1;
    size_t n = 0;
    for (int byte; n < capacity && (byte = only_byte(c, &p)) >= 0; n++) {
        if (!advance(&c->walk, &p, (uint8_t)byte, &same))
            break;
        bytes[n] = (char)byte;
    }
    return n;
}

/* ---- open and close ---- */

static eb_status prepare(eb_constraint *c, const void *program, uint64_t size, eb_error *error) {
    const eb_vocabulary *v = c->vocabulary;
    c->n_words = (v->vocab_size + 31) / 32;
    c->memory = eb_alloc(&c->host, 1, (size_t)size);
    c->path = eb_alloc(&c->host, (size_t)v->deepest + 1, sizeof *c->path);
    c->mask = eb_alloc(&c->host, c->n_words, sizeof *c->mask);
    if (!c->memory || !c->path || !c->mask || reserve(c, v->deepest) != EB_OK)
        EB_FAIL(error, EB_NO_MEMORY, "no memory for a constraint");
    eb_memcpy(c->memory, program, (size_t)size);
    const eb_status status = eb_constraint_program_read(&c->walk.program, c->memory, size, error);
    if (status != EB_OK)
        return status;
    c->walk.alive = eb_alloc(&c->host, (c->walk.program.n_states + 31) / 32, sizeof *c->walk.alive);
    if (!c->walk.alive)
        EB_FAIL(error, EB_NO_MEMORY, "no memory for a constraint");
    return eb_constraint_find_alive(&c->walk.program, &c->host, v->single, c->walk.alive, error);
}

eb_status eb_constraint_open(const eb_vocabulary *vocabulary, const void *program, uint64_t size, eb_constraint **out,
                             eb_error *error) {
    if (!vocabulary || !program || !out)
        EB_FAIL(error, EB_BAD_ARGUMENT, "eb_constraint_open: a null pointer");
    *out = NULL;
    if (size > 1 << 24)
        EB_FAIL(error, EB_LIMIT, "constraint: a program of %llu bytes is too large", (ull)size);
    const eb_host *host = &vocabulary->tokenizer->host;
    eb_constraint *c = eb_alloc(host, 1, sizeof *c);
    if (!c)
        EB_FAIL(error, EB_NO_MEMORY, "no memory for a constraint");
    eb_memset(c, 0, sizeof *c);
    c->host = *host;
    c->vocabulary = vocabulary;
    c->at.top = 1; /* frame 0 is the bottom */
    const eb_status status = prepare(c, program, size, error);
    if (status != EB_OK) {
        eb_constraint_close(c);
        return status;
    }
    c->walk.frames[0] = (frame){0, 0};
    *out = c;
    return EB_OK;
}

void eb_constraint_reset(eb_constraint *constraint) {
    if (!constraint)
        return;
    constraint->at = (place){.top = 1};
    constraint->has_stopped = 0;
    for (cached *each = constraint->cache; each < constraint->cache + CACHE; each++)
        if (each->frame) /* which may soon be another one */
            each->used = 0;
}

void eb_constraint_close(eb_constraint *constraint) {
    if (!constraint)
        return;
    const eb_host host = constraint->host;
    void *parts[] = {constraint->memory,     constraint->path,        constraint->mask,
                     constraint->walk.alive, constraint->walk.frames, constraint};
    for (cached *each = constraint->cache; each < constraint->cache + CACHE; each++)
        if (each->mask)
            host.free(each->mask);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (parts[i])
            host.free(parts[i]);
}
