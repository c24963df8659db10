/* threadpool.h - works off the parts of a job on several threads, the caller's among them. */
#ifndef EB_THREADPOOL_H
#define EB_THREADPOOL_H

#include "edgebit.h"

enum { EB_MAX_THREADS = 256 };

typedef struct eb_threadpool eb_threadpool;

/* Computes part `part` of a job; `thread`, below the pool's n_threads, says whose scratch memory may be used. What is
 * computed must follow from `part` alone, never from who computes it. */
typedef void eb_work(void *context, unsigned part, unsigned thread);

/* `n_threads`, 1 to EB_MAX_THREADS, counts the caller. `host` must outlive the pool. NULL, with a text, on failure. */
eb_threadpool *eb_threadpool_open(const eb_host *host, unsigned n_threads, eb_error *error);
void eb_threadpool_close(eb_threadpool *pool);

/* From the next run on, `n_threads` take parts, 1 to what the pool was opened with; the others sleep. Between two runs,
 * by the thread that runs. */
void eb_threadpool_resize(eb_threadpool *pool, unsigned n_threads);

/* Calls work(context, part, ...) for each part in 0 .. n_parts-1 and returns when all are done. What one run has
 * written, the next one sees. One part is done by the caller, with no word to the others. */
void eb_threadpool_run(eb_threadpool *pool, eb_work *work, void *context, unsigned n_parts);

#endif
