/* job.h - a step of the forward pass as a job for the thread pool: parts that split tokens, rows of a weight matrix, or
 * pairs of token and head. Each number is computed by one thread from the numbers before it, in one order, so results
 * hang neither on the split nor on what else is in the chunk. */
#ifndef EB_JOB_H
#define EB_JOB_H

#include "engine.h"

/* A job that reads fewer bytes of weights than PARALLEL_BYTES, over all tokens, is done sooner by one thread than the
 * others can be told of it (some microseconds). Larger ones go in more parts than there are threads, since no two cores
 * are equally fast at a given moment. */
enum { PARALLEL_BYTES = 16384, PARTS_PER_THREAD = 8 };

/* What a job is called for: which part of how many, and whose scratch memory it may use. */
typedef struct part {
    unsigned number, of, thread;
} part;

typedef struct job {
    eb_engine *engine;
    const eb_layer *layer;
    uint32_t layer_index;
    void (*work)(struct job *task, part me);
    unsigned n_parts;
} job;

typedef struct range {
    size_t begin, end;
} range;

/* Where part `number` of `of` begins among n steps. The first part is the largest, and each is smaller by the last one's
 * size: sizes of, of - 1, ... 1. Cores that differ in speed come to the end of a job close together this way. */
static inline size_t first_step(uint64_t number, uint64_t of, uint64_t n) {
    return (size_t)(n * (number * (2 * of - number + 1)) / (of * (of + 1)));
}

/* The part's share of n items, in steps. */
static inline range share(part me, size_t n, size_t step) {
    const size_t n_steps = (n + step - 1) / step;
    const size_t begin = first_step(me.number, me.of, n_steps) * step;
    const size_t end = first_step(me.number + 1, me.of, n_steps) * step;
    return (range){begin < n ? begin : n, end < n ? end : n};
}

static inline void do_part(void *context, unsigned number, unsigned thread) {
    job *task = context;
    task->work(task, (part){number, task->n_parts, thread});
}

static inline void run(job *task, void (*work)(job *task, part me), int parallel) {
    task->work = work;
    task->n_parts = parallel && task->engine->n_threads > 1 ? task->engine->n_threads * PARTS_PER_THREAD : 1;
    eb_threadpool_run(task->engine->pool, do_part, task, task->n_parts);
}

#endif
