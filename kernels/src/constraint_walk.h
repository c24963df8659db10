/* constraint_walk.h - where an answer is in a program, and its steps from byte to byte. */
#ifndef EB_CONSTRAINT_WALK_H
#define EB_CONSTRAINT_WALK_H

#include "constraint_program.h"

enum { EB_FRAMES_LOOKED_AT = 64 }; /* for one that is there already */

typedef struct frame {
    uint32_t below; /* the frame under it; frame 0 is the bottom */
    uint32_t state; /* to go back to */
} frame;

typedef struct place {
    uint32_t state;
    uint32_t frame;
    uint32_t count; /* characters of the counted string it is in, else 0 */
    uint32_t top;   /* frames in use */
    int is_new;     /* `count` began after the place that a mask is made of */
} place;

/* Counts of characters at which a mask, made at one of them, is the same. */
typedef struct span {
    uint32_t low, high, at;
} span;

/* What steps go by. */
typedef struct walk {
    eb_constraint_program program;
    uint32_t *alive; /* set of states from which an end can be reached */
    frame *frames;   /* there is room for one more with each step */
} walk;

static inline int is_alive(const walk *w, uint32_t state) { return w->alive[state >> 5] >> (state & 31) & 1; }

static inline int is_end(const walk *w, uint32_t state) { return w->program.states[state].kind == EB_STATE_END; }

/* The mask hangs on whether so many characters, `more` of them in its tokens, are `limit` or more. */
static inline void note_limit(span *same, uint32_t limit, uint32_t more, int is_reached) {
    if (is_reached && limit > more && same->low < limit - more)
        same->low = limit - more;
    if (!is_reached && same->high > limit - 1 - more)
        same->high = limit - 1 - more;
}

/* Takes a step within or out of a counted string; 0: it has too few characters, or no room for another. */
static inline int count_character(const eb_constraint_count *count, place *p, uint8_t byte, span *same) {
    const int ends = byte == '"';
    const uint32_t limit = ends ? count->least : count->most;
    const int is_reached = p->count >= limit;
    if (!p->is_new && limit != EB_NO_MOST)
        note_limit(same, limit, p->count - same->at, is_reached);
    if (ends) {
        p->count = 0;
        p->is_new = 1;
        return is_reached;
    }
    if (limit == EB_NO_MOST) /* no more is counted than has to be known */
        p->count += p->count < count->least;
    else
        p->count += !is_reached;
    return limit == EB_NO_MOST || !is_reached;
}

/* The frame for going back to `state` after what is called at p->frame. */
static inline uint32_t pushed(const walk *w, place *p, uint32_t state) {
    const uint32_t lowest = p->top > EB_FRAMES_LOOKED_AT ? p->top - EB_FRAMES_LOOKED_AT : 1;
    for (uint32_t i = p->top; i-- > lowest;)
        if (w->frames[i].below == p->frame && w->frames[i].state == state)
            return i;
    w->frames[p->top] = (frame){p->frame, state};
    return p->top++;
}

/* Goes on by one byte, which takes one frame at most; 0 where it is not allowed, and *p means nothing then. */
static inline int advance(const walk *w, place *p, uint8_t byte, span *same) {
    const eb_constraint_edge *edge;
    while (!(edge = eb_constraint_edge_of(&w->program, p->state, byte))) {
        if (!is_end(w, p->state) || !p->frame)
            return 0;
        p->state = w->frames[p->frame].state;
        p->frame = w->frames[p->frame].below;
    }
    const eb_constraint_count *count = eb_constraint_count_of(&w->program, p->state);
    if (count && !count_character(count, p, byte, same))
        return 0;
    if (edge->callee != EB_NO_CALLEE) {
        if (!is_alive(w, edge->target))
            return 0;
        p->frame = pushed(w, p, edge->target);
        edge = eb_constraint_edge_of(&w->program, edge->callee, byte);
        if (!edge)
            return 0;
    }
    p->state = edge->target;
    while (p->frame && is_end(w, p->state) && !w->program.states[p->state].n_edges) {
        p->state = w->frames[p->frame].state;
        p->frame = w->frames[p->frame].below;
    }
    return 1;
}

static inline int is_complete(const walk *w, const place *p) {
    uint32_t state = p->state;
    for (uint32_t at = p->frame; is_end(w, state) && at; at = w->frames[at].below)
        state = w->frames[at].state;
    return is_end(w, state);
}

#endif
