/* threadpool.h - runs one function on several threads at once, the caller's among them. */
#ifndef EB_THREADPOOL_H
#define EB_THREADPOOL_H

#include "edgebit.h"

enum { EB_MAX_THREADS = 256 };

typedef struct eb_threadpool eb_threadpool;

/* `n_threads`, 1 to EB_MAX_THREADS, counts the caller. `host` must outlive the pool. NULL, with a text, on failure. */
eb_threadpool *eb_threadpool_open(const eb_host *host, unsigned n_threads, eb_error *error);
void eb_threadpool_close(eb_threadpool *pool);

/* Calls job(context, t) for each thread t in 0 .. n_threads-1, all at once, and returns when all have returned. What
 * one run has written, the next one sees. How work is split must follow from t alone, never from who is first. */
void eb_threadpool_run(eb_threadpool *pool, void (*job)(void *context, unsigned thread), void *context);

#endif
