/* threadpool.c - a pool that spins briefly and then sleeps.
 *
 * A decode step runs some 150 jobs of 10 to 500 microseconds each: waking a sleeping thread for every one of them would
 * cost as much as the work. So a worker watches for the next job a little while before it sleeps; between two tokens of
 * a paused conversation it sleeps, and the device stays cool. How long is told by the clock: a pause takes 4 ns on one
 * CPU and 60 on another.
 *
 * Parts are claimed, not dealt out: a worker that sleeps, or that the system has put aside for another program, or that
 * runs on a slow core, takes fewer of them, and nobody waits for a thread that has claimed nothing.
 *
 * `ticket` holds the number of the job in its upper half and the parts left to claim in its lower one. A claim takes
 * one off by compare-and-swap, so it succeeds only while that job is open, and an open job's fields don't change: the
 * caller goes on only when every claimed part is done. For sleeping and waking, each side writes its own word before it
 * reads the other's, sequentially consistent, so no wake-up is lost.
 *
 * What claiming cannot mend is a worker that is put aside in the middle of a part: all wait for it, a slice of the
 * other program's time, several milliseconds. Where all lose more by that than the worker has given them since the last
 * time, its core is not ours alone: it sits out for a while, and twice as long when it holds up the others again.
 *
 * A worker that sits out, or that a smaller pool has no use for, rests: it sleeps on a condition of its own, and no job
 * wakes it. One that is about to rest may still take a part of the next job: its scratch memory is there, and a part's
 * result does not depend on who computes it. */
#include "threadpool.h"
#include "float_mode.h"
#include "mem.h"
#include "status.h"

enum {
    SPIN_NS = 50000,     /* how long a thread watches before it sleeps */
    LOOKS_PER_CLOCK = 8, /* reading the clock costs as much as a few looks */
    STALL_NS = 500000,   /* waited for longer than this, and than STALL_PARTS parts take: the worker was put aside */
    STALL_PARTS = 8,
    SIT_OUT_NS = 16000000,      /* the first time; each time doubles it, */
    SIT_OUT_MAX_NS = 512000000, /* up to this: a core that is ours again shall not be lost for longer */
    GOOD_NS = 100000000         /* how far back it counts that a worker has held up nobody */
};

typedef struct worker {
    _Alignas(64) eb_threadpool *pool;
    uintptr_t thread;
    unsigned index;
    uint32_t rests; /* atomic, written by the caller */
    /* the caller's own */
    int sits_out;
    int64_t out_until, out_ns; /* when it comes back, and how long it sits or last sat out */
    int64_t good_since;        /* when it came back, or last ceased to hold up the others */
} worker;

struct eb_threadpool {
    _Alignas(64) unsigned char mutex[128]; /* a host's pthread_mutex_t and pthread_cond_t fit in with room to spare */
    _Alignas(64) unsigned char work_cond[128];
    _Alignas(64) unsigned char done_cond[128];
    _Alignas(64) unsigned char rest_cond[128];
    const eb_host *host;
    void *block; /* what was allocated: the pool lies aligned inside */
    unsigned n_threads, n_started, n_active, n_out;
    eb_work *work; /* of the open job */
    void *context;
    uint32_t n_parts;
    _Alignas(64) uint64_t ticket;
    uint32_t workers_asleep, stopping;
    _Alignas(64) uint32_t n_done;
    uint32_t caller_asleep;
    /* under the mutex: who ended the job that the caller has slept for, and when */
    unsigned last_thread;
    int64_t last_ns;
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

static int64_t now_ns(const eb_threadpool *pool) {
    int64_t time[2] = {0};
    pool->host->clock_gettime(pool->host->clock_monotonic, time);
    return time[0] * 1000000000 + time[1];
}

/* ---- what threads wait for ---- */

typedef int eb_event(const eb_threadpool *pool, const worker *self);

static int is_done(const eb_threadpool *pool, const worker *self) {
    (void)self;
    return load(&pool->n_done) == pool->n_parts;
}

static int is_resting(const eb_threadpool *pool, const worker *self) {
    return load(&self->rests) && !load(&pool->stopping);
}

/* Whether a worker has something to do: parts, rest, or the end. */
static int is_called(const eb_threadpool *pool, const worker *self) {
    return parts_left(pool) || load(&self->rests) || load(&pool->stopping);
}

/* Watches for `event` a little while; gives whether it came. */
static inline int spin(const eb_threadpool *pool, eb_event *event, const worker *self) {
    const int64_t end = now_ns(pool) + SPIN_NS;
    do
        for (int look = 0; look < LOOKS_PER_CLOCK; look++) {
            if (event(pool, self))
                return 1;
            pause_cpu();
        }
    while (now_ns(pool) < end);
    return 0;
}

/* ---- workers ---- */

/* Claims and does parts until none is left to claim; gives how many it has done. */
static uint32_t work_off(eb_threadpool *pool, unsigned thread) {
    uint32_t n_own = 0;
    uint64_t ticket = __atomic_load_n(&pool->ticket, __ATOMIC_SEQ_CST);
    while ((uint32_t)ticket) {
        if (!__atomic_compare_exchange_n(&pool->ticket, &ticket, ticket - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            continue; /* `ticket` is now what it really is */
        const uint32_t n_parts = pool->n_parts;
        pool->work(pool->context, n_parts - (uint32_t)ticket, thread);
        n_own++;
        if (__atomic_add_fetch(&pool->n_done, 1, __ATOMIC_SEQ_CST) == n_parts && load(&pool->caller_asleep)) {
            pool->host->pthread_mutex_lock(pool->mutex);
            pool->last_thread = thread;
            pool->last_ns = now_ns(pool);
            pool->host->pthread_cond_broadcast(pool->done_cond);
            pool->host->pthread_mutex_unlock(pool->mutex);
        }
        ticket = __atomic_load_n(&pool->ticket, __ATOMIC_SEQ_CST);
    }
    return n_own;
}

static void wait_for_job(eb_threadpool *pool, const worker *self) {
    if (spin(pool, is_called, self))
        return;
    const eb_host *host = pool->host;
    host->pthread_mutex_lock(pool->mutex);
    __atomic_fetch_add(&pool->workers_asleep, 1, __ATOMIC_SEQ_CST);
    while (!is_called(pool, self))
        host->pthread_cond_wait(pool->work_cond, pool->mutex);
    __atomic_fetch_sub(&pool->workers_asleep, 1, __ATOMIC_SEQ_CST);
    host->pthread_mutex_unlock(pool->mutex);
}

static void rest(eb_threadpool *pool, const worker *self) {
    pool->host->pthread_mutex_lock(pool->mutex);
    while (is_resting(pool, self))
        pool->host->pthread_cond_wait(pool->rest_cond, pool->mutex);
    pool->host->pthread_mutex_unlock(pool->mutex);
}

static void *worker_main(void *argument) {
    const worker *self = argument;
    eb_threadpool *pool = self->pool;
    eb_float_mode_enter();
    while (!load(&pool->stopping)) {
        if (is_resting(pool, self)) {
            rest(pool, self);
        } else {
            wait_for_job(pool, self);
            work_off(pool, self->index);
        }
    }
    return NULL;
}

/* ---- the caller ---- */

static void wake_workers(eb_threadpool *pool) {
    if (load(&pool->workers_asleep)) {
        pool->host->pthread_mutex_lock(pool->mutex);
        pool->host->pthread_cond_broadcast(pool->work_cond);
        pool->host->pthread_mutex_unlock(pool->mutex);
    }
}

/* Says to each worker whether it rests. */
static void assign(eb_threadpool *pool) {
    pool->host->pthread_mutex_lock(pool->mutex);
    pool->n_out = 0;
    for (unsigned t = 1; t < pool->n_threads; t++) {
        worker *one = &pool->workers[t];
        pool->n_out += t < pool->n_active && one->sits_out;
        store(&one->rests, t >= pool->n_active || one->sits_out);
    }
    pool->host->pthread_cond_broadcast(pool->work_cond); /* who slept may have to rest, */
    pool->host->pthread_cond_broadcast(pool->rest_cond); /* and who rested to work */
    pool->host->pthread_mutex_unlock(pool->mutex);
}

static void call_back(eb_threadpool *pool, int64_t now) {
    int n_back = 0;
    for (unsigned t = 1; t < pool->n_threads; t++) {
        worker *one = &pool->workers[t];
        if (one->sits_out && now >= one->out_until) {
            one->sits_out = 0;
            one->good_since = now;
            n_back++;
        }
    }
    if (n_back)
        assign(pool);
}

/* Worker `thread` has held up all others from `begin` to `end`: it sits out, unless it has earned that before. */
static void judge(eb_threadpool *pool, unsigned thread, int64_t begin, int64_t end) {
    worker *one = &pool->workers[thread];
    const int64_t others = pool->n_active - pool->n_out - 1, good = begin - one->good_since;
    one->good_since = end;
    if (2 * others * (end - begin) < (good < GOOD_NS ? good : GOOD_NS))
        return;
    one->out_ns = good >= GOOD_NS || !one->out_ns ? SIT_OUT_NS : 2 * one->out_ns;
    if (one->out_ns > SIT_OUT_MAX_NS)
        one->out_ns = SIT_OUT_MAX_NS;
    one->out_until = end + one->out_ns;
    one->sits_out = 1;
    assign(pool);
}

/* Sleeps until the job is done. The caller has ended its own last part at `ended`; a part took it about `part_ns`. */
static void wait_for_workers(eb_threadpool *pool, int64_t ended, int64_t part_ns) {
    const eb_host *host = pool->host;
    host->pthread_mutex_lock(pool->mutex);
    pool->last_thread = 0;
    store(&pool->caller_asleep, 1);
    while (!is_done(pool, NULL))
        host->pthread_cond_wait(pool->done_cond, pool->mutex);
    store(&pool->caller_asleep, 0);
    const unsigned last = pool->last_thread;
    const int64_t waited = pool->last_ns - ended;
    host->pthread_mutex_unlock(pool->mutex);
    if (last && waited > STALL_NS && waited > STALL_PARTS * part_ns)
        judge(pool, last, ended, ended + waited);
}

void eb_threadpool_run(eb_threadpool *pool, eb_work *work, void *context, unsigned n_parts) {
    if (pool->n_out)
        call_back(pool, now_ns(pool));
    if (pool->n_active - pool->n_out == 1 || n_parts == 1) {
        for (unsigned part = 0; part < n_parts; part++)
            work(context, part, 0);
        return;
    }
    const int64_t started = now_ns(pool);
    pool->work = work;
    pool->context = context;
    pool->n_parts = n_parts;
    store(&pool->n_done, 0);
    const uint64_t job = (__atomic_load_n(&pool->ticket, __ATOMIC_SEQ_CST) >> 32) + 1;
    __atomic_store_n(&pool->ticket, job << 32 | n_parts, __ATOMIC_SEQ_CST);
    wake_workers(pool);
    const uint32_t n_own = work_off(pool, 0);
    if (is_done(pool, NULL))
        return;
    const int64_t ended = now_ns(pool);
    if (!spin(pool, is_done, NULL))
        wait_for_workers(pool, ended, (ended - started) / (n_own ? n_own : 1));
}

/* ---- opening, size, closing ---- */

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
    pool->n_threads = pool->n_active = n_threads;
    host->pthread_mutex_init(pool->mutex, NULL);
    host->pthread_cond_init(pool->work_cond, NULL);
    host->pthread_cond_init(pool->done_cond, NULL);
    host->pthread_cond_init(pool->rest_cond, NULL);
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

void eb_threadpool_resize(eb_threadpool *pool, unsigned n_threads) {
    pool->n_active = n_threads;
    assign(pool);
}

void eb_threadpool_close(eb_threadpool *pool) {
    if (!pool)
        return;
    const eb_host *host = pool->host;
    host->pthread_mutex_lock(pool->mutex);
    store(&pool->stopping, 1);
    host->pthread_cond_broadcast(pool->work_cond);
    host->pthread_cond_broadcast(pool->rest_cond);
    host->pthread_mutex_unlock(pool->mutex);
    for (unsigned t = 1; t <= pool->n_started; t++)
        host->pthread_join(pool->workers[t].thread, NULL);
    host->pthread_cond_destroy(pool->work_cond);
    host->pthread_cond_destroy(pool->done_cond);
    host->pthread_cond_destroy(pool->rest_cond);
    host->pthread_mutex_destroy(pool->mutex);
    host->free(pool->block);
}
