/* threadpool.c - a pool that spins briefly and then sleeps.
 *
 * A decode step runs some 270 jobs of 10 to 500 microseconds each: waking a sleeping thread for every one of them would
 * cost as much as the work. So a worker watches `generation` for a while before it sleeps; between two tokens of a
 * paused conversation it sleeps, and the device stays cool.
 *
 * The hand-over: the caller writes job and context, then raises `generation`; a worker that sees it run on works and
 * counts itself off in `running`. Sleepers are woken only where there are any; both sides write their own word before
 * they read the other's, sequentially consistent, so no wake-up is lost. */
#include "threadpool.h"
#include "float_mode.h"
#include "mem.h"
#include "status.h"

enum { SPINS = 4096 };

typedef struct worker {
    eb_threadpool *pool;
    uintptr_t thread;
    unsigned index;
} worker;

struct eb_threadpool {
    _Alignas(64) unsigned char mutex[128]; /* a host's pthread_mutex_t and pthread_cond_t fit in with room to spare */
    _Alignas(64) unsigned char work_cond[128];
    _Alignas(64) unsigned char done_cond[128];
    const eb_host *host;
    void *block; /* what was allocated: the pool lies aligned inside */
    unsigned n_threads, n_started;
    void (*job)(void *context, unsigned thread);
    void *context;
    _Alignas(64) uint32_t generation; /* raised for every job, and for the end */
    uint32_t stopping;
    uint32_t workers_asleep;
    _Alignas(64) uint32_t running; /* workers that have not finished the job */
    uint32_t caller_asleep;
    worker workers[];
};

static inline void pause_cpu(void) {
#if defined(__x86_64__)
    __asm__ volatile("pause");
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* longer than YIELD, which most cores take as a no-op */
#endif
}

static inline uint32_t load(const uint32_t *from) { return __atomic_load_n(from, __ATOMIC_SEQ_CST); }
static inline void store(uint32_t *to, uint32_t value) { __atomic_store_n(to, value, __ATOMIC_SEQ_CST); }

static void wait_for_job(eb_threadpool *pool, uint32_t seen) {
    for (int i = 0; i < SPINS; i++) {
        if (load(&pool->generation) != seen)
            return;
        pause_cpu();
    }
    const eb_host *host = pool->host;
    host->pthread_mutex_lock(pool->mutex);
    __atomic_fetch_add(&pool->workers_asleep, 1, __ATOMIC_SEQ_CST);
    while (load(&pool->generation) == seen)
        host->pthread_cond_wait(pool->work_cond, pool->mutex);
    __atomic_fetch_sub(&pool->workers_asleep, 1, __ATOMIC_SEQ_CST);
    host->pthread_mutex_unlock(pool->mutex);
}

static void *work(void *argument) {
    const worker *self = argument;
    eb_threadpool *pool = self->pool;
    const eb_host *host = pool->host;
    eb_float_mode_enter();
    for (uint32_t seen = 0;; seen++) {
        wait_for_job(pool, seen);
        if (load(&pool->stopping))
            return NULL;
        pool->job(pool->context, self->index);
        if (__atomic_sub_fetch(&pool->running, 1, __ATOMIC_SEQ_CST) == 0 && load(&pool->caller_asleep)) {
            host->pthread_mutex_lock(pool->mutex);
            host->pthread_cond_broadcast(pool->done_cond);
            host->pthread_mutex_unlock(pool->mutex);
        }
    }
}

static void announce(eb_threadpool *pool) {
    __atomic_fetch_add(&pool->generation, 1, __ATOMIC_SEQ_CST);
    if (load(&pool->workers_asleep)) {
        pool->host->pthread_mutex_lock(pool->mutex);
        pool->host->pthread_cond_broadcast(pool->work_cond);
        pool->host->pthread_mutex_unlock(pool->mutex);
    }
}

void eb_threadpool_run(eb_threadpool *pool, void (*job)(void *context, unsigned thread), void *context) {
    if (pool->n_threads == 1) {
        job(context, 0);
        return;
    }
    pool->job = job;
    pool->context = context;
    store(&pool->running, pool->n_threads - 1);
    announce(pool);
    job(context, 0);
    for (int i = 0; i < SPINS; i++) {
        if (!load(&pool->running))
            return;
        pause_cpu();
    }
    const eb_host *host = pool->host;
    host->pthread_mutex_lock(pool->mutex);
    store(&pool->caller_asleep, 1);
    while (load(&pool->running))
        host->pthread_cond_wait(pool->done_cond, pool->mutex);
    store(&pool->caller_asleep, 0);
    host->pthread_mutex_unlock(pool->mutex);
}

eb_threadpool *eb_threadpool_open(const eb_host *host, unsigned n_threads, eb_error *error) {
    const size_t size = sizeof(eb_threadpool) + n_threads * sizeof(worker);
    void *block = eb_alloc(host, 1, size + 64);
    if (!block) {
        eb_fail(error, "no memory for %u threads", n_threads);
        return NULL;
    }
    eb_threadpool *pool = (eb_threadpool *)(((uintptr_t)block + 63) & ~(uintptr_t)63);
    eb_memset(pool, 0, size);
    pool->host = host;
    pool->block = block;
    pool->n_threads = n_threads;
    host->pthread_mutex_init(pool->mutex, NULL);
    host->pthread_cond_init(pool->work_cond, NULL);
    host->pthread_cond_init(pool->done_cond, NULL);
    for (unsigned t = 1; t < n_threads; t++) {
        worker *next = &pool->workers[t];
        *next = (worker){.pool = pool, .index = t};
        const int failed = host->pthread_create(&next->thread, NULL, work, next);
        if (failed) {
            eb_fail(error, "thread %u of %u cannot be started (error %d)", t + 1, n_threads, failed);
            eb_threadpool_close(pool);
            return NULL;
        }
        pool->n_started = t;
    }
    return pool;
}

void eb_threadpool_close(eb_threadpool *pool) {
    if (!pool)
        return;
    const eb_host *host = pool->host;
    store(&pool->stopping, 1);
    announce(pool);
    for (unsigned t = 1; t <= pool->n_started; t++)
        host->pthread_join(pool->workers[t].thread, NULL);
    host->pthread_cond_destroy(pool->work_cond);
    host->pthread_cond_destroy(pool->done_cond);
    host->pthread_mutex_destroy(pool->mutex);
    host->free(pool->block);
}
