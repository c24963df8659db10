/* check_ukernels.c - every micro-kernel of the build that this CPU can run must equal the scalar one, to the last bit.
 *
 * Random data, the extremes (+1 on 127, -1 on -128, the code 3 of a damaged file), row counts 1 to 17, widths that end
 * inside and outside of every unrolling. A failure prints kernel, seed and shape; `check_ukernels SEED` runs one seed.
 */
#include "cpu.h"
#include "dispatch.h"
#include "posix_host.h"
#include "ukernel.h"

#include <inttypes.h>
#include <stdio.h>

enum { MAX_ROWS = 17, MAX_K = 16384 };

static uint64_t state;

static uint32_t next_random(void) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33);
}

/* How inputs are filled: one at a time, so that each extreme meets itself in all positions. */
typedef enum fill { RANDOM, HIGHEST, LOWEST, MIXED, N_FILLS } fill;

static uint8_t *w; /* [MAX_ROWS * MAX_K] */
static int8_t *x8; /* [MAX_K] */
static int16_t *q; /* [MAX_K] */
static int8_t *hi, *lo;

static int fail(const char *name, uint64_t seed, int how, size_t rows, size_t k, size_t row, int64_t got,
                int64_t wanted) {
    printf("%s: seed %" PRIu64 ", fill %d, rows %zu, k %zu: row %zu is %" PRId64 ", scalar says %" PRId64 "\n", name,
           seed, how, rows, k, row, got, wanted);
    return 1;
}

/* ---- one check for each op of ukernel.h, by its name ---- */

static int check_gemv_t2_i8(const char *name, eb_gemv_t2_i8_fn *kernel, uint64_t seed, fill how, size_t rows,
                            size_t k) {
    int32_t x_sum = 0, got[MAX_ROWS + 1], wanted[MAX_ROWS];
    for (size_t i = 0; i < rows * k / 4; i++) {
        /* sound files hold codes 0 to 2; MIXED has code 3 too */
        const uint8_t sound =
            (uint8_t)(next_random() % 3 | next_random() % 3 << 2 | next_random() % 3 << 4 | next_random() % 3 << 6);
        w[i] = how == HIGHEST ? 0xaa : how == LOWEST ? 0 : how == MIXED ? (uint8_t)next_random() : sound;
    }
    for (size_t i = 0; i < k; i++) {
        x8[i] = how == HIGHEST ? 127 : how == LOWEST ? -128 : (int8_t)next_random();
        if (how == MIXED)
            x8[i] = next_random() & 1 ? 127 : -128;
        x_sum += x8[i];
    }
    got[rows] = 0x5eed;
    eb_gemv_t2_i8_scalar(wanted, w, x8, x_sum, rows, k);
    kernel(got, w, x8, x_sum, rows, k);
    for (size_t n = 0; n < rows; n++)
        if (got[n] != wanted[n])
            return fail(name, seed, how, rows, k, n, got[n], wanted[n]);
    if (got[rows] != 0x5eed)
        return fail(name, seed, how, rows, k, rows, got[rows], 0x5eed);
    /* and the scalar one against arithmetic on unpacked weights */
    for (size_t n = 0; n < rows; n++) {
        int64_t sum = 0;
        for (size_t i = 0; i < k; i++) {
            const uint8_t byte = w[n * (k / 4) + i / 64 * 16 + i % 16];
            sum += ((byte >> (i % 64 / 16 * 2) & 3) - 1) * x8[i];
        }
        if (wanted[n] != sum)
            return fail("eb_gemv_t2_i8_scalar", seed, how, rows, k, n, wanted[n], sum);
    }
    return 0;
}

static int check_gemv_i8_i15(const char *name, eb_gemv_i8_i15_fn *kernel, uint64_t seed, fill how, size_t rows,
                             size_t k) {
    int64_t got[MAX_ROWS + 1], wanted[MAX_ROWS];
    int8_t *weights = (int8_t *)w;
    for (size_t i = 0; i < rows * k; i++)
        weights[i] = how == HIGHEST ? 127 : how == LOWEST ? -128 : (int8_t)next_random();
    for (size_t i = 0; i < k; i++) {
        int32_t value = (int32_t)(next_random() % 32513) - 16256;
        if (how != RANDOM)
            value = how == HIGHEST || (how == MIXED && next_random() & 1) ? 16256 : -16256;
        q[i] = (int16_t)value;
        hi[i] = (int8_t)((value + 64) >> 7);
        lo[i] = (int8_t)(value - 128 * hi[i]);
    }
    if (how == RANDOM) /* the lowest low plane there is */
        q[0] = 64, hi[0] = 1, lo[0] = -64;
    const eb_i15 x = {q, hi, lo};
    got[rows] = 0x5eed;
    eb_gemv_i8_i15_scalar(wanted, weights, &x, rows, k);
    kernel(got, weights, &x, rows, k);
    for (size_t n = 0; n < rows; n++)
        if (got[n] != wanted[n])
            return fail(name, seed, how, rows, k, n, got[n], wanted[n]);
    if (got[rows] != 0x5eed)
        return fail(name, seed, how, rows, k, rows, got[rows], 0x5eed);
    for (size_t n = 0; n < rows; n++) {
        int64_t sum = 0;
        for (size_t i = 0; i < k; i++)
            sum += (int64_t)weights[n * k + i] * q[i];
        if (wanted[n] != sum)
            return fail("eb_gemv_i8_i15_scalar", seed, how, rows, k, n, wanted[n], sum);
    }
    return 0;
}

/* ---- all shapes, all rows of ukernels.inc ---- */

#define CHECK_SHAPES(op, name)                                                                                         \
    for (int how = 0; how < N_FILLS; how++) {                                                                          \
        for (size_t rows = 1; rows <= MAX_ROWS; rows++)                                                                \
            for (size_t k = 64; k <= 64 * 11; k += 64)                                                                 \
                if (check_##op(#name, name, seed, (fill)how, rows, k))                                                 \
                    return 1;                                                                                          \
        if (check_##op(#name, name, seed, (fill)how, 3, MAX_K) || check_##op(#name, name, seed, (fill)how, 9, 6912))   \
            return 1;                                                                                                  \
    }

int main(int argc, char **argv) {
    const uint64_t only = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    const eb_host host = eb_posix_host(getenv("EDGEBIT_ISA"));
    eb_error error;
    eb_isa isa;
    if (eb_isa_choose(&host, &isa, &error)) {
        printf("%s\n", error.text);
        return 2;
    }
    /* Allocated to the byte, so that a sanitizer sees what lies outside. */
    w = malloc((size_t)MAX_ROWS * MAX_K), x8 = malloc(MAX_K), hi = malloc(MAX_K), lo = malloc(MAX_K);
    q = malloc(MAX_K * sizeof *q);
    int n_checked = 0;
    for (uint64_t seed = only ? only : 1; seed <= (only ? only : 1); seed++) {
        n_checked = 0;
        state = seed;
#define EB_UKERNEL(op, name, needs)                                                                                    \
    if (!((uint32_t)(needs) & ~isa.features)) {                                                                        \
        CHECK_SHAPES(op, name)                                                                                         \
        n_checked++;                                                                                                   \
    }
#include "ukernels.inc"
#undef EB_UKERNEL
    }
    printf("%d micro-kernels equal the scalar ones (%s)\n", n_checked, isa.name);
    free(w), free(x8), free(q), free(hi), free(lo);
    return 0;
}
