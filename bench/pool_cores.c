/* pool_cores.c - the engine's thread pool on cores that are not there: of any number and speed, one of them shared.
 *
 * A part of a job sleeps for as long as such a core would take for it, so a machine of two cores can show what the pool
 * makes of eight. One core can be another program's every other 50 ms: its thread then stands still in the middle of a
 * part, as the system would put it aside. Printed is the work done in a time, in units of what the first core does alone.
 *
 *   gcc -O2 -Ikernels/include -Ikernels/src -Ikernels/tools -o pool_cores bench/pool_cores.c \
 *       kernels/src/{threadpool,status,mem}.c -lpthread
 *   ./pool_cores THREADS PARTS_PER_THREAD equal|falling SHARED [SPEED ...]    SHARED: number of a thread, or -1
 *   ./pool_cores 4 8 falling 3            ./pool_cores 8 8 falling -1  1 1 1 1 .35 .35 .35 .35 */
#include "posix_host.h"
#include "threadpool.h"

#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

enum { MAX_CORES = 64 };
/* A job on the first core alone, long enough that a sleep's own length is nothing; what the other program takes; all. */
static const double job_s = 0.04, slice_s = 0.05, runs_s = 5;

typedef struct cores {
    double speed[MAX_CORES];
    int shared, falling;
    unsigned n_parts;
} cores;

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void sleep_s(double seconds) {
    nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)}, NULL);
}

/* Shares of a job as job.h has them now ("falling"), and as equal ones. */
static double size_of(const cores *c, unsigned part) {
    const double n = c->n_parts;
    return c->falling ? 2 * (n - part) / (n * (n + 1)) : 1 / n;
}

static void work(void *context, unsigned part, unsigned thread) {
    const cores *c = context;
    double left = job_s * size_of(c, part) / c->speed[thread];
    while (left > 0) {
        double run = left;
        if ((int)thread == c->shared) {
            const double now = now_s(), phase = now - 2 * slice_s * (double)(long long)(now / (2 * slice_s));
            if (phase >= slice_s) {
                sleep_s(2 * slice_s - phase);
                continue;
            }
            run = left < slice_s - phase ? left : slice_s - phase;
        }
        sleep_s(run);
        left -= run;
    }
}

int main(int argc, char **argv) {
    const unsigned threads = argc > 4 ? (unsigned)atoi(argv[1]) : 0;
    if (!threads || threads > MAX_CORES || atoi(argv[2]) < 1) {
        fprintf(stderr, "pool_cores THREADS PARTS_PER_THREAD equal|falling SHARED [SPEED ...]\n");
        return 2;
    }
    cores c = {
        .n_parts = threads * (unsigned)atoi(argv[2]), .falling = !strcmp(argv[3], "falling"), .shared = atoi(argv[4])};
    double all = 0;
    for (unsigned t = 0; t < threads; t++) {
        c.speed[t] = 5 + (int)t < argc ? atof(argv[5 + t]) : 1;
        all += (int)t == c.shared ? c.speed[t] / 2 : c.speed[t];
    }
    prctl(PR_SET_TIMERSLACK, 1UL); /* sleeps as short as they are asked for, of the workers too */
    const eb_host host = eb_posix_host(NULL);
    eb_error error;
    eb_threadpool *pool = eb_threadpool_open(&host, threads, &error);
    if (!pool) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    const double started = now_s();
    int n_jobs = 0;
    for (; now_s() - started < runs_s; n_jobs++)
        eb_threadpool_run(pool, work, &c, c.n_parts);
    printf("%.2f of %.2f\n", n_jobs * job_s / (now_s() - started), all);
    eb_threadpool_close(pool);
    return 0;
}
