/* threadpool.c - a pool that spins briefly and then sleeps.
 *
 * A decode step runs some 150 jobs of 10 to 500 microseconds each: waking a sleeping thread for every one of them would
 * cost as much as the work. So a worker watches for the next job a little while before it sleeps; between two tokens of
 * a paused conversation it sleeps, and the device stays cool.
 *
 * Parts are claimed, not dealt out: a worker that sleeps, or that the system has put aside for another program, or that
 * runs on a slow core, takes fewer of them, and nobody waits for a thread that has claimed nothing.
 *
 * `ticket` holds the number of the job in its upper half and the parts left to claim in its lower one. A claim takes
 * one off by compare-and-swap, so it succeeds only while that job is open, and an open job's fields don't change: the
 * caller goes on only when every claimed part is done. For sleeping and waking, each side writes its own word before it
 * reads the other's, sequentially consistent, so no wake-up is lost. */
#include "threadpool.h"
#include "float_mode.h"
#include "mem.h"
#include "status.h"

enum { SPINS = 2000 };

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
    eb_work *work; /* of the open job */
    void *context;
    uint32_t n_parts;
    _Alignas(64) uint64_t ticket;
    uint32_t workers_asleep, stopping;
    _Alignas(64) uint32_t n_done;
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
static inline uint32_t parts_left(const eb_threadpool *pool) {
    return (uint32_t)__atomic_load_n(&pool->ticket, __ATOMIC_SEQ_CST);
}

/* Claims and does parts until none is left to claim. */
static void work_off(eb_threadpool *pool, unsigned thread) {
    uint64_t ticket = __atomic_load_n(&pool->ticket, __ATOMIC_SEQ_CST);
    while ((uint32_t)ticket) {
        if (!__atomic_compare_exchange_n(&pool->ticket, &ticket, ticket - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            continue; /* `ticket` is now what it really is */
        const uint32_t n_parts = pool->n_parts;
        pool->work(pool->context, n_parts - (uint32_t)ticket, thread);
        if (__atomic_add_fetch(&pool->n_done, 1, __ATOMIC_SEQ_CST) == n_parts && load(&pool->caller_asleep)) {
            pool->host->pthread_mutex_lock(pool->mutex);
            pool->host->pthread_cond_broadcast(pool->done_cond);
            pool->host->pthread_mutex_unlock(pool->mutex);
        }
        ticket = __atomic_load_n(&pool->ticket, __ATOMIC_SEQ_CST);
    }
}

static void wait_for_job(eb_threadpool *pool) {
    for (int i = 0; i < SPINS; i++) {
        if (parts_left(pool) || load(&pool->stopping))
            return;
        pause_cpu();
    }
    const eb_host *host = pool->host;
    host->pthread_mutex_lock(pool->mutex);
    __atomic_fetch_add(&pool->workers_asleep, 1, __ATOMIC_SEQ_CST);
    while (!parts_left(pool) && !load(&pool->stopping))
        host->pthread_cond_wait(pool->work_cond, pool->mutex);
    __atomic_fetch_sub(&pool->workers_asleep, 1, __ATOMIC_SEQ_CST);
    host->pthread_mutex_unlock(pool->mutex);
}

static void *worker_main(void *argument) {
    const worker *self = argument;
    eb_float_mode_enter();
    while (!load(&self->pool->stopping)) {
        wait_for_job(self->pool);
        work_off(self->pool, self->index);
    }
    return NULL;
}

static void wake_workers(eb_threadpool *pool) {
    if (load(&pool->workers_asleep)) {
        pool->host->pthread_mutex_lock(pool->mutex);
        pool->host->pthread_cond_broadcast(pool->work_cond);
        pool->host->pthread_mutex_unlock(pool->mutex);
    }
}

void eb_threadpool_run(eb_threadpool *pool, eb_work *work, void *context, unsigned n_parts) {
    if (pool->n_threads == 1 || n_parts == 1) {
        for (unsigned part = 0; part < n_parts; part++)
            work(context, part, 0);
        return;
    }
    pool->work = work;
    pool->context = context;
    pool->n_parts = n_parts;
    store(&pool->n_done, 0);
    const uint64_t job = (__atomic_load_n(&pool->ticket, __ATOMIC_SEQ_CST) >> 32) + 1;
    __atomic_store_n(&pool->ticket, job << 32 | n_parts, __ATOMIC_SEQ_CST);
    wake_workers(pool);
    work_off(pool, 0);
    for (int i = 0; i < SPINS; i++) {
        if (load(&pool->n_done) == n_parts)
            return;
        pause_cpu();
    }
    const eb_host *host = pool->host;
    host->pthread_mutex_lock(pool->mutex);
    store(&pool->caller_asleep, 1);
    while (load(&pool->n_done) != n_parts)
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
        const int failed = host->pthread_create(&next->thread, NULL, worker_main, next);
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
    wake_workers(pool);
    for (unsigned t = 1; t <= pool->n_started; t++)
        host->pthread_join(pool->workers[t].thread, NULL);
    host->pthread_cond_destroy(pool->work_cond);
    host->pthread_cond_destroy(pool->done_cond);
    host->pthread_mutex_destroy(pool->mutex);
    host->free(pool->block);
}
