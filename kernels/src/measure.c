/* measure.c - what this machine can do at most: reading memory, and multiplying int8. The figures come from the same
 * thread pool as the engine's, so that waking and claiming cost the same. */
#include "arena.h"
#include "cpu.h"
#include "dispatch.h"
#include "mem.h"
#include "status.h"
#include "threadpool.h"

enum {
    PART_WORDS = (1 << 20) / sizeof(uint64_t), /* what a thread claims at a time: 1 MiB, much more than a claim costs */
    PARTS_PER_THREAD = 8,                      /* of the products: a thread that is put aside gives its share away */
    LEAST_NS = 100000000
};

typedef struct measure {
    const eb_host *host;
    eb_ukernels kernels;
    eb_threadpool *pool;
    uint64_t *words; /* [n_parts * PART_WORDS] */
    size_t rounds;   /* of products in a part */
    uint64_t sum;    /* over all parts, modulo 2^64 */
} measure;

static uint64_t now_ns(const eb_host *host) {
    int64_t time[2] = {0};
    host->clock_gettime(host->clock_monotonic, time);
    return (uint64_t)time[0] * 1000000000u + (uint64_t)time[1];
}

static void add(measure *m, uint64_t value) { __atomic_fetch_add(&m->sum, value, __ATOMIC_RELAXED); }

static void write_part(void *context, unsigned part, unsigned thread) {
    (void)thread;
    measure *m = context;
    uint64_t *words = m->words + (size_t)part * PART_WORDS, sum = 0;
    for (size_t i = 0; i < PART_WORDS; i++)
        sum += words[i] = ((uint64_t)part * PART_WORDS + i) * UINT64_C(0x9e3779b97f4a7c15);
    add(m, sum);
}

static void read_part(void *context, unsigned part, unsigned thread) {
    (void)thread;
    measure *m = context;
    add(m, m->kernels.read_sum(m->words + (size_t)part * PART_WORDS, PART_WORDS));
}

static void multiply_part(void *context, unsigned part, unsigned thread) {
    (void)part, (void)thread;
    measure *m = context;
    uint8_t a[64];
    int8_t b[64];
    for (int i = 0; i < 64; i++) {
        a[i] = (uint8_t)(i % 3);
        b[i] = (int8_t)(37 * i);
    }
    add(m, m->kernels.peak_i8(a, b, m->rounds));
}

static eb_status begin(measure *m, const eb_host *host, uint32_t n_threads, eb_error *error) {
    eb_status status = eb_host_check(host, error);
    eb_isa isa = {0};
    if (status || (status = eb_isa_choose(host, &isa, error)))
        return status;
    if (!n_threads || n_threads > EB_MAX_THREADS) {
        eb_fail(error, "%u threads: 1 to %d can be measured", n_threads, EB_MAX_THREADS);
        return EB_BAD_ARGUMENT;
    }
    *m = (measure){.host = host, .kernels = eb_dispatch(isa.features)};
    m->pool = eb_threadpool_open(host, n_threads, error);
    return m->pool ? EB_OK : EB_NO_MEMORY;
}

static eb_status read_passes(measure *m, unsigned n_parts, double *bytes_per_s, eb_error *error) {
    eb_threadpool_run(m->pool, write_part, m, n_parts);
    const uint64_t written = m->sum;
    m->sum = 0;
    eb_threadpool_run(m->pool, read_part, m, n_parts); /* not timed: threads wake and clocks rise */
    uint64_t passes = 0, took;
    const uint64_t started = now_ns(m->host);
    do {
        eb_threadpool_run(m->pool, read_part, m, n_parts);
        passes++;
        took = now_ns(m->host) - started;
    } while (took < LEAST_NS);
    if (m->sum != written * (passes + 1)) {
        eb_fail(error, "memory gave back something else than was written: this machine's memory is faulty");
        return EB_MISMATCH;
    }
    *bytes_per_s = 1e9 * (double)passes * n_parts * PART_WORDS * sizeof(uint64_t) / (double)took;
    return EB_OK;
}

eb_status eb_measure_read(const eb_host *host, uint32_t n_threads, uint64_t n_bytes, double *bytes_per_s,
                          eb_error *error) {
    const uint64_t n_parts = n_bytes / (PART_WORDS * sizeof(uint64_t));
    if (!bytes_per_s || !n_parts || n_parts > UINT32_MAX / 2) {
        eb_fail(error, "%llu bytes cannot be measured: at least 1 MiB are needed, and a place for the result",
                (ull)n_bytes);
        return EB_BAD_ARGUMENT;
    }
    measure m;
    eb_status status = begin(&m, host, n_threads, error);
    if (status)
        return status;
    void *block;
    m.words = eb_arena_block(host, n_parts * PART_WORDS * sizeof(uint64_t), &block);
    if (m.words) {
        status = read_passes(&m, (unsigned)n_parts, bytes_per_s, error);
        host->free(block);
    } else {
        eb_fail(error, "no memory for a buffer of %llu MiB to read from", (ull)n_parts);
        status = EB_NO_MEMORY;
    }
    eb_threadpool_close(m.pool);
    return status;
}

eb_status eb_measure_int8(const eb_host *host, uint32_t n_threads, double *macs_per_s, eb_error *error) {
    if (!macs_per_s) {
        eb_fail(error, "eb_measure_int8: macs_per_s is null");
        return EB_BAD_ARGUMENT;
    }
    measure m;
    const eb_status status = begin(&m, host, n_threads, error);
    if (status)
        return status;
    const unsigned n_parts = n_threads * PARTS_PER_THREAD;
    uint64_t took = 0;
    for (m.rounds = 64; took < LEAST_NS; m.rounds *= 2) {
        const uint64_t started = now_ns(host);
        eb_threadpool_run(m.pool, multiply_part, &m, n_parts);
        took = now_ns(host) - started;
        *macs_per_s = 1e9 * (double)n_parts * (double)m.rounds * EB_PEAK_MACS / (double)(took ? took : 1);
    }
    eb_threadpool_close(m.pool);
    return EB_OK;
}
