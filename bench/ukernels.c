/* ukernels.c - runs, times and counts every micro-kernel of the build on its own, for bench/ukernels.py.
 *
 *   ukernels list               a line for each row of ukernels.inc: name, op, 1 where this CPU can run it, tokens of a call,
 *                               weights times tokens of a counted and of a timed call, bytes of a timed call's weights
 *   ukernels run NAME CALLS     calls it: for callgrind, or for an emulator that counts
 *   ukernels count NAME CALLS   the same, stepping instruction by instruction: address and count of each (Linux on x86-64)
 *   ukernels time NAME MIB      nanoseconds a call: warm (the same few rows), cold (walking through MIB of weights), and
 *                               of one clock cycle, 0 where that is unknown: the fastest of some samples each
 */
#define _GNU_SOURCE /* REG_RIP */
#include "cpu.h"
#include "dispatch.h"
#include "posix_host.h"
#include "ukernel.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#ifdef __linux__
#include <signal.h>
#include <ucontext.h>
#endif

/* ---- the ops of ukernel.h: the shape of a call, the size of its weights, the call ---- */

/* The width of BitNet b1.58 2B-4T; rows that no variant's row tile leaves a rest of, fewer where each step is slow. */
enum { ROWS = 64, COUNTED_ROWS = 8, K = 2560 };
enum { GEMM_TOKENS = 16 };

static _Alignas(64) int8_t x[GEMM_TOKENS * K], x_lo[K]; /* aligned as in the engine's arena */
static _Alignas(64) int32_t x_sum[GEMM_TOKENS];
static _Alignas(64) uint8_t codes[ROWS * K];
static _Alignas(64) int32_t y[ROWS * GEMM_TOKENS];
static _Alignas(64) int64_t y64[ROWS];

enum { TOKENS_gemv_t2_i8 = 1, BYTES_gemv_t2_i8 = K / 4 };
static void run_gemv_t2_i8(eb_gemv_t2_i8_fn *kernel, const uint8_t *w, size_t rows) { kernel(y, w, x, 0, rows, K); }

enum { TOKENS_gemv_t1_i8 = 1, BYTES_gemv_t1_i8 = K / 384 * 80 + K % 384 / 4 };
static void run_gemv_t1_i8(eb_gemv_t1_i8_fn *kernel, const uint8_t *w, size_t rows) { kernel(y, w, x, 0, rows, K); }

enum { TOKENS_gemv4_t2_i8 = 4, BYTES_gemv4_t2_i8 = BYTES_gemv_t2_i8 };
static void run_gemv4_t2_i8(eb_gemv4_t2_i8_fn *kernel, const uint8_t *w, size_t rows) {
    kernel(&(eb_gemv4_operands){y, w, x, x_sum, ROWS, K, rows, K}, 4);
}

enum { TOKENS_gemv4_t1_i8 = 4, BYTES_gemv4_t1_i8 = BYTES_gemv_t1_i8 };
static void run_gemv4_t1_i8(eb_gemv4_t1_i8_fn *kernel, const uint8_t *w, size_t rows) {
    kernel(&(eb_gemv4_operands){y, w, x, x_sum, ROWS, K, rows, K}, 4);
}

enum { TOKENS_unpack_t2 = 1, BYTES_unpack_t2 = BYTES_gemv_t2_i8 };
static void run_unpack_t2(eb_unpack_t2_fn *kernel, const uint8_t *w, size_t rows) { kernel(codes, w, rows, K); }

enum { TOKENS_unpack_t1 = 1, BYTES_unpack_t1 = BYTES_gemv_t1_i8 };
static void run_unpack_t1(eb_unpack_t1_fn *kernel, const uint8_t *w, size_t rows) { kernel(codes, w, rows, K); }

enum { TOKENS_gemm_c8_i8 = GEMM_TOKENS, BYTES_gemm_c8_i8 = K };
static void run_gemm_c8_i8(eb_gemm_c8_i8_fn *kernel, const uint8_t *w, size_t rows) {
    kernel(y, ROWS, w, x, K, x_sum, rows, K, GEMM_TOKENS);
}

enum { TOKENS_gemv_h4_i15 = 1, BYTES_gemv_h4_i15 = K / 2 };
static void run_gemv_h4_i15(eb_gemv_h4_i15_fn *kernel, const uint8_t *w, size_t rows) {
    kernel(y64, w, &(eb_i15){x, x_lo}, rows, K);
}

enum { TOKENS_dot_l2_i15 = 1, BYTES_dot_l2_i15 = K / 4 };
static void run_dot_l2_i15(eb_dot_l2_i15_fn *kernel, const uint8_t *w, size_t rows) {
    for (size_t n = 0; n < rows; n++)
        y64[n] = kernel(w + n * BYTES_dot_l2_i15, &(eb_i15){x, x_lo}, K);
}

enum { TOKENS_gemv_u8_i15 = 1, BYTES_gemv_u8_i15 = K };
static void run_gemv_u8_i15(eb_gemv_u8_i15_fn *kernel, const uint8_t *w, size_t rows) {
    kernel(y64, w, &(eb_i15){x, x_lo}, 0, K, rows, K);
}

/* ---- the rows of ukernels.inc that multiply, or of a list given to the compiler: a try-out that is no row yet ---- */

#ifndef EB_UKERNEL_LIST
#define EB_UKERNEL_LIST "ukernels.inc"
#endif

#define EB_UKERNEL(op, fn, needs)                                                                                      \
    eb_##op##_fn fn;                                                                                                   \
    static void call_##fn(const uint8_t *w, size_t rows) { run_##op(fn, w, rows); }
#define EB_FLOAT_UKERNEL(op, fn, needs) /* they have no weights to be counted by */
#include EB_UKERNEL_LIST
#undef EB_UKERNEL

typedef struct row {
    const char *name, *op;
    uint32_t needs;
    size_t tokens, bytes_a_row;
    void (*call)(const uint8_t *w, size_t rows);
} row;

static const row all_rows[] = {
#define EB_UKERNEL(op, fn, needs) {#fn, #op, needs, TOKENS_##op, BYTES_##op, call_##fn},
#define EB_FLOAT_UKERNEL(op, fn, needs)
#include EB_UKERNEL_LIST
#undef EB_UKERNEL
};
enum { N_ROWS = sizeof all_rows / sizeof all_rows[0] };

/* Weights and activations of any value: speed does not hang on it. */
static void fill(void *at, size_t size) {
    static uint64_t state = 88172645463325252u;
    for (size_t i = 0; i < size; i++) {
        if (i % 8 == 0)
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        ((uint8_t *)at)[i] = (uint8_t)(state >> i % 8 * 8);
    }
}

static uint8_t *new_weights(size_t size) {
    const size_t spare = 1 << 16; /* kernels prefetch past the end; nothing is read there */
    uint8_t *w = aligned_alloc(64, (size + spare + 63) / 64 * 64);
    if (!w) {
        fprintf(stderr, "no memory for %zu bytes of weights\n", size);
        exit(1);
    }
    fill(w, size);
    return w;
}

/* ---- counting ---- */

static void run(const row *kernel, const uint8_t *w, long calls) {
    for (long i = 0; i < calls; i++)
        kernel->call(w, COUNTED_ROWS);
}

#if defined(__linux__) && defined(__x86_64__)
extern char __executable_start[], etext[];
static uint32_t *counts; /* by address from __executable_start */

/* After each instruction while the trap flag is set; the system clears it for the handler. */
static void stepped(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    const uintptr_t at = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    if (at - (uintptr_t)__executable_start < (size_t)(etext - __executable_start))
        counts[at - (uintptr_t)__executable_start]++;
}

static int count(const row *kernel, const uint8_t *w, long calls) {
    const size_t size = (size_t)(etext - __executable_start);
    counts = calloc(size, sizeof *counts);
    const struct sigaction action = {.sa_sigaction = stepped, .sa_flags = SA_SIGINFO};
    if (!counts || sigaction(SIGTRAP, &action, NULL))
        return 1;
    /* EFLAGS.TF, below the 128 bytes under the stack pointer that are the function's own */
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\torq $0x100, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp" ::
                         : "memory", "cc");
    run(kernel, w, calls);
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushfq\n\tandq $~0x100, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp" ::
                         : "memory", "cc");
    for (size_t i = 0; i < size; i++)
        if (counts[i])
            printf("%" PRIxPTR " %" PRIu32 "\n", (uintptr_t)__executable_start + i, counts[i]);
    free(counts);
    return 0;
}
#else
static int count(const row *kernel, const uint8_t *w, long calls) {
    (void)kernel, (void)w, (void)calls;
    fprintf(stderr, "single-stepping is written for Linux on x86-64\n");
    return 1;
}
#endif

/* ---- timing ---- */

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

/* Additions that wait for each other take a cycle each on every core that we know of. */
static double cycle_ns(void) {
    double best = 0;
#if defined(__x86_64__) || defined(__aarch64__)
    enum { ADDS = 64, LOOPS = 20000 };
    for (int sample = 0; sample < 25; sample++) {
        uint64_t sum = 1;
        const uint64_t step = (uint64_t)sample;
        const double began = now_ns();
        for (int i = 0; i < LOOPS; i++)
#if defined(__x86_64__)
            __asm__ volatile(".rept 64\n\tadd %1, %0\n\t.endr" : "+r"(sum) : "r"(step));
#else
            __asm__ volatile(".rept 64\n\tadd %0, %0, %1\n\t.endr" : "+r"(sum) : "r"(step));
#endif
        const double took = (now_ns() - began) / (ADDS * LOOPS);
        best = best == 0 || took < best ? took : best;
    }
#endif
    return best;
}

/* The fastest sample, a call, of walking again and again through `n_chunks` matrices of ROWS rows. */
static double call_ns(const row *kernel, const uint8_t *w, size_t n_chunks, int samples, double sample_ns) {
    double best = 0;
    size_t chunk = 0;
    kernel->call(w, ROWS);
    for (int sample = 0; sample < samples; sample++) {
        long calls = 0;
        double took;
        const double began = now_ns();
        do {
            for (int i = 0; i < 8; i++, calls++) { /* the clock is read once in eight calls */
                kernel->call(w + chunk * ROWS * kernel->bytes_a_row, ROWS);
                chunk = chunk + 1 < n_chunks ? chunk + 1 : 0;
            }
            took = now_ns() - began;
        } while (took < sample_ns);
        best = best == 0 || took / (double)calls < best ? took / (double)calls : best;
    }
    return best;
}

/* What this CPU has: no level of cpu.h need have all of it. */
static uint32_t cpu_features(void) {
    uint32_t features = 0;
    char names[256], *rest = names;
    snprintf(names, sizeof names, "%s", eb_isa_names());
    for (const char *name; (name = strtok_r(rest, " ", &rest));) {
        const eb_host host = eb_posix_host(name);
        eb_error error;
        eb_isa isa;
        if (!eb_isa_choose(&host, &isa, &error))
            features |= isa.features;
    }
    return features;
}

int main(int argc, char **argv) {
    const uint32_t features = cpu_features();
    if (argc == 2 && !strcmp(argv[1], "list")) {
        for (const row *r = all_rows; r < all_rows + N_ROWS; r++)
            printf("%s %s %d %zu %zu %zu %zu\n", r->name, r->op, !(r->needs & ~features), r->tokens,
                   r->tokens * COUNTED_ROWS * K, r->tokens * ROWS * K, ROWS * r->bytes_a_row);
        return 0;
    }
    const row *kernel = NULL;
    for (const row *r = all_rows; argc == 4 && r < all_rows + N_ROWS; r++)
        if (!strcmp(r->name, argv[2]))
            kernel = r;
    const long number = argc == 4 ? strtol(argv[3], NULL, 10) : 0;
    if (!kernel || number < 0) {
        fprintf(stderr, "use: ukernels list | run NAME CALLS | count NAME CALLS | time NAME MIB\n");
        return 2;
    }
    if (kernel->needs & ~features) {
        fprintf(stderr, "%s: this CPU has not what it needs\n", kernel->name);
        return 2;
    }
    fill(x, sizeof x), fill(x_lo, sizeof x_lo);
    const size_t chunk_size = ROWS * kernel->bytes_a_row;
    const int timing = !strcmp(argv[1], "time");
    const size_t n_chunks = timing ? ((size_t)number << 20) / chunk_size + 1 : 1;
    uint8_t *w = new_weights(n_chunks * chunk_size);
    int failed = 0;
    if (!strcmp(argv[1], "run"))
        run(kernel, w, number);
    else if (!strcmp(argv[1], "count"))
        failed = count(kernel, w, number);
    else if (timing) {
        const double warm = call_ns(kernel, w, 1, 25, 2e6), cold = call_ns(kernel, w, n_chunks, 9, 2e7);
        printf("%.1f %.1f %.5f\n", warm, cold, cycle_ns());
    } else
        failed = 2;
    free(w);
    return failed;
}
