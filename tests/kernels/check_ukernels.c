/* check_ukernels.c - every micro-kernel of the build that this CPU can run must equal the scalar one, to the last bit.
 *
 * Random data, the extremes (+1 on 127, -1 on -128, the code 3 of a damaged file on -128), 4 to 20 rows, widths that end
 * inside and outside of every unrolling. A failure prints kernel, seed and shape; `check_ukernels SEED` runs one seed.
 */
#include "cpu.h"
#include "dispatch.h"
#include "posix_host.h"
#include "ukernel.h"

#include <inttypes.h>
#include <stdio.h>

enum { MAX_ROWS = 20, MAX_K = 16384, MAX_I15_K = 65536, MAX_TOKENS = 13, GUARD = 0x5eed };

static uint64_t state;

static uint32_t next_random(void) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33);
}

/* How inputs are filled: one at a time, so that each extreme meets itself in all positions. DAMAGED has the greatest
 * products there can be, all of one sign: what a kernel adds up in 16 bits must hold them. */
typedef enum fill { RANDOM, HIGHEST, LOWEST, MIXED, DAMAGED, N_FILLS } fill;

/* The ends of the rooms for inputs. A check puts each input so that it ends there: a sanitizer sees what is read behind. */
static uint8_t *w_end, *codes_end; /* rooms of MAX_ROWS * MAX_K and twice that */
static int8_t *x_end;              /* MAX_TOKENS * MAX_K */
static int8_t *hi_end, *lo_end;    /* MAX_I15_K */
static int64_t *got, *wanted;
static uint64_t *words_end; /* MAX_ROWS * MAX_K bytes, aligned to 64 */

static int fail(const char *name, uint64_t seed, int how, size_t rows, size_t k, size_t at, int64_t is,
                int64_t scalar) {
    printf("%s: seed %" PRIu64 ", fill %d, rows %zu, k %zu: number %zu is %" PRId64 ", scalar says %" PRId64 "\n", name,
           seed, how, rows, k, at, is, scalar);
    return 1;
}

/* ---- inputs ---- */

/* Two-bit codes: sound files hold 0 to 2; MIXED has code 3 too, DAMAGED nothing else. */
static uint8_t random_byte(fill how) {
    const uint8_t sound =
        (uint8_t)(next_random() % 3 | next_random() % 3 << 2 | next_random() % 3 << 4 | next_random() % 3 << 6);
    if (how == MIXED)
        return (uint8_t)next_random();
    return how == HIGHEST ? 0xaa : how == LOWEST ? 0 : how == DAMAGED ? 0xff : sound;
}

static void fill_bytes(uint8_t *bytes, size_t n, fill how) {
    for (size_t i = 0; i < n; i++)
        bytes[i] = random_byte(how);
}

static int8_t random_i8(fill how) {
    if (how == MIXED)
        return next_random() & 1 ? 127 : -128;
    return how == HIGHEST ? 127 : how == LOWEST || how == DAMAGED ? -128 : (int8_t)next_random();
}

static int32_t fill_x(int8_t *values, size_t k, fill how) {
    int32_t sum = 0;
    for (size_t i = 0; i < k; i++)
        sum += values[i] = random_i8(how);
    return sum;
}

static eb_i15 fill_i15(size_t k, fill how) {
    int8_t *hi = hi_end - k, *lo = lo_end - k;
    for (size_t i = 0; i < k; i++) {
        int32_t value = (int32_t)(next_random() % 32513) - 16256;
        if (how != RANDOM)
            value = how == HIGHEST || (how == MIXED && next_random() & 1) ? 16256 : -16256;
        hi[i] = (int8_t)((value + 64) >> 7);
        lo[i] = (int8_t)(value - 128 * hi[i]);
        if (how == DAMAGED)
            hi[i] = -127, lo[i] = -64;
    }
    if (how == RANDOM) /* the lowest low plane there is */
        hi[0] = 1, lo[0] = -64;
    return (eb_i15){hi, lo};
}

static size_t t1_bytes(size_t rows, size_t k) { return rows * (k / 384 * 80 + k % 384 / 4); }

/* Each index 26, three times the code 2, in the whole blocks of layout t1; there is no code 3 in these. */
static void fill_highest_indices(uint8_t *w, size_t rows, size_t k) {
    static const uint8_t vectors[5] = {0xda, 0xda, 0xda, 0xba, 0x9a};
    for (size_t n = 0; n < rows; n += 4)
        for (size_t i = 0; i < k / 384 * 320; i++)
            w[t1_bytes(n, k) + i] = vectors[i / 64 % 5];
}

/* ---- one check for each op of ukernel.h, by its name ---- */

static int same_i32(const char *name, uint64_t seed, fill how, size_t rows, size_t k, size_t n) {
    const int32_t *is = (const int32_t *)got, *scalar = (const int32_t *)wanted;
    for (size_t i = 0; i < n; i++)
        if (is[i] != scalar[i])
            return fail(name, seed, how, rows, k, i, is[i], scalar[i]);
    return is[n] != GUARD ? fail(name, seed, how, rows, k, n, is[n], GUARD) : 0;
}

static int check_gemv_t2_i8(const char *name, eb_gemv_t2_i8_fn *kernel, uint64_t seed, fill how, size_t rows,
                            size_t k) {
    uint8_t *w = w_end - rows * k / 4;
    int8_t *x = x_end - k;
    fill_bytes(w, rows * k / 4, how);
    const int32_t x_sum = fill_x(x, k, how);
    ((int32_t *)got)[rows] = GUARD;
    eb_gemv_t2_i8_scalar((int32_t *)wanted, w, x, x_sum, rows, k);
    kernel((int32_t *)got, w, x, x_sum, rows, k);
    if (same_i32(name, seed, how, rows, k, rows))
        return 1;
    /* and the scalar one against arithmetic on unpacked weights */
    for (size_t n = 0; n < rows; n++) {
        int64_t sum = 0;
        for (size_t i = 0; i < k; i++) {
            const uint8_t byte = w[n / 4 * k + i / 64 * 64 + n % 4 * 16 + i % 16];
            sum += ((byte >> (i % 64 / 16 * 2) & 3) - 1) * x[i];
        }
        if (((int32_t *)wanted)[n] != sum)
            return fail("eb_gemv_t2_i8_scalar", seed, how, rows, k, n, ((int32_t *)wanted)[n], sum);
    }
    return 0;
}

static int check_gemv_t1_i8(const char *name, eb_gemv_t1_i8_fn *kernel, uint64_t seed, fill how, size_t rows,
                            size_t k) {
    uint8_t *w = w_end - t1_bytes(rows, k);
    int8_t *x = x_end - k;
    /* Any byte is three indices or parts of them: with RANDOM too, damaged ones above 26 are among them. */
    for (size_t i = 0; i < t1_bytes(rows, k); i++)
        w[i] = how == RANDOM ? (uint8_t)next_random() : random_byte(how);
    if (how == DAMAGED)
        fill_highest_indices(w, rows, k);
    const int32_t x_sum = fill_x(x, k, how);
    ((int32_t *)got)[rows] = GUARD;
    eb_gemv_t1_i8_scalar((int32_t *)wanted, w, x, x_sum, rows, k);
    kernel((int32_t *)got, w, x, x_sum, rows, k);
    return same_i32(name, seed, how, rows, k, rows);
}

/* Against the one-token kernel, token by token; the rows take `size` bytes. */
static int check_gemv4(const char *name, eb_gemv4_t2_i8_fn *kernel, eb_gemv_t2_i8_fn *scalar, uint64_t seed, fill how,
                       size_t rows, size_t k, size_t size) {
    const size_t n_tokens = 1 + (rows / 4 + k / 64) % 4, y_stride = rows + 3, n = n_tokens * y_stride;
    uint8_t *w = w_end - size;
    int8_t *x = x_end - n_tokens * k;
    int32_t x_sum[4];
    for (size_t i = 0; i < size; i++)
        w[i] = how == RANDOM ? (uint8_t)next_random() : random_byte(how);
    if (how == DAMAGED && scalar == eb_gemv_t1_i8_scalar)
        fill_highest_indices(w, rows, k);
    for (size_t i = 0; i <= n; i++)
        ((int32_t *)got)[i] = ((int32_t *)wanted)[i] = GUARD;
    for (size_t t = 0; t < n_tokens; t++) {
        x_sum[t] = fill_x(x + t * k, k, how);
        scalar((int32_t *)wanted + t * y_stride, w, x + t * k, x_sum[t], rows, k);
    }
    kernel(&(eb_gemv4_operands){(int32_t *)got, w, x, x_sum, y_stride, k, rows, k}, n_tokens);
    return same_i32(name, seed, how, rows, k, n);
}

__attribute__((unused)) /* only some architectures have a row */
static int
check_gemv4_t2_i8(const char *name, eb_gemv4_t2_i8_fn *kernel, uint64_t seed, fill how, size_t rows, size_t k) {
    return check_gemv4(name, kernel, eb_gemv_t2_i8_scalar, seed, how, rows, k, rows * k / 4);
}

__attribute__((unused)) static int check_gemv4_t1_i8(const char *name, eb_gemv4_t1_i8_fn *kernel, uint64_t seed,
                                                     fill how, size_t rows, size_t k) {
    return check_gemv4(name, kernel, eb_gemv_t1_i8_scalar, seed, how, rows, k, t1_bytes(rows, k));
}

static int check_unpack(const char *name, eb_unpack_t2_fn *kernel, eb_unpack_t2_fn *scalar, uint64_t seed, fill how,
                        size_t rows, size_t k, size_t bytes) {
    uint8_t *w = w_end - bytes;
    for (size_t i = 0; i < bytes; i++)
        w[i] = how == RANDOM ? (uint8_t)next_random() : random_byte(how);
    uint8_t *is = codes_end - rows * k, *says = is - rows * k;
    for (size_t i = 0; i < rows * k; i++)
        is[i] = 0x55;
    scalar(says, w, rows, k);
    kernel(is, w, rows, k);
    for (size_t i = 0; i < rows * k; i++)
        if (is[i] != says[i])
            return fail(name, seed, how, rows, k, i, is[i], says[i]);
    return 0;
}

static int check_unpack_t2(const char *name, eb_unpack_t2_fn *kernel, uint64_t seed, fill how, size_t rows, size_t k) {
    return check_unpack(name, kernel, eb_unpack_t2_scalar, seed, how, rows, k, rows * k / 4);
}

static int check_unpack_t1(const char *name, eb_unpack_t1_fn *kernel, uint64_t seed, fill how, size_t rows, size_t k) {
    return check_unpack(name, kernel, eb_unpack_t1_scalar, seed, how, rows, k, t1_bytes(rows, k));
}

static int check_gemm_c8_i8(const char *name, eb_gemm_c8_i8_fn *kernel, uint64_t seed, fill how, size_t rows,
                            size_t k) {
    const size_t n_tokens = 1 + (rows / 4 + k / 64) % MAX_TOKENS, y_stride = rows + 3, n = n_tokens * y_stride;
    uint8_t *codes = codes_end - rows * k;
    int8_t *x = x_end - n_tokens * k;
    int32_t x_sum[MAX_TOKENS];
    for (size_t i = 0; i < rows * k; i++)
        codes[i] = random_byte(how) & 3;
    for (size_t t = 0; t < n_tokens; t++)
        x_sum[t] = fill_x(x + t * k, k, how);
    for (size_t i = 0; i <= n; i++)
        ((int32_t *)got)[i] = ((int32_t *)wanted)[i] = GUARD;
    eb_gemm_c8_i8_scalar((int32_t *)wanted, y_stride, codes, x, k, x_sum, rows, k, n_tokens);
    kernel((int32_t *)got, y_stride, codes, x, k, x_sum, rows, k, n_tokens);
    return same_i32(name, seed, how, rows, k, n);
}

static int check_gemv_h4_i15(const char *name, eb_gemv_h4_i15_fn *kernel, uint64_t seed, fill how, size_t rows,
                             size_t k) {
    uint8_t *w = w_end - rows * k / 2;
    for (size_t i = 0; i < rows * k / 2; i++)
        w[i] = how == HIGHEST || how == DAMAGED ? 0xff : how == LOWEST ? 0 : (uint8_t)next_random();
    const eb_i15 i15 = fill_i15(k, how);
    got[rows] = GUARD;
    eb_gemv_h4_i15_scalar(wanted, w, &i15, rows, k);
    kernel(got, w, &i15, rows, k);
    for (size_t n = 0; n < rows; n++)
        if (got[n] != wanted[n])
            return fail(name, seed, how, rows, k, n, got[n], wanted[n]);
    if (got[rows] != GUARD)
        return fail(name, seed, how, rows, k, rows, got[rows], GUARD);
    for (size_t n = 0; n < rows; n++) {
        int64_t sum = 0;
        for (size_t i = 0; i < k; i++) {
            const uint8_t byte = w[n / 4 * 2 * k + i / 32 * 64 + n % 4 * 16 + i % 16];
            sum += (int64_t)(byte >> (i % 32 / 16 * 4) & 15) * (128 * i15.hi[i] + i15.lo[i]);
        }
        if (wanted[n] != sum)
            return fail("eb_gemv_h4_i15_scalar", seed, how, rows, k, n, wanted[n], sum);
    }
    return 0;
}

static int check_dot_l2_i15(const char *name, eb_dot_l2_i15_fn *kernel, uint64_t seed, fill how, size_t rows,
                            size_t k) {
    if (k % 256)
        return 0;
    uint8_t *w = w_end - k / 4;
    for (size_t i = 0; i < k / 4; i++)
        w[i] = how == HIGHEST || how == DAMAGED ? 0xff : how == LOWEST ? 0 : (uint8_t)next_random();
    const eb_i15 i15 = fill_i15(k, how);
    const int64_t is = kernel(w, &i15, k), says = eb_dot_l2_i15_scalar(w, &i15, k);
    return is != says ? fail(name, seed, how, rows, k, 0, is, says) : 0;
}

/* Any number of rows, widths of 16 and their multiples, rows that lie apart, and the longest row there may be. */
static int check_gemv_u8_i15(const char *name, eb_gemv_u8_i15_fn *kernel, uint64_t seed, fill how, size_t all_rows,
                             size_t all_k) {
    const size_t rows = all_rows - all_k / 64 % 4, gap = all_k / 64 % 3;
    const size_t k = all_k == MAX_K ? MAX_I15_K : all_k - (all_rows / 4 + all_k / 64) % 4 * 16;
    const size_t w_stride = k + gap, size = (rows - 1) * w_stride + k;
    uint8_t *w = w_end - size;
    for (size_t i = 0; i < size; i++)
        w[i] = how == RANDOM ? (uint8_t)next_random() : how == LOWEST || (how == MIXED && next_random() & 1) ? 0 : 255;
    const eb_i15 i15 = fill_i15(k, how);
    int64_t x_sum = 0;
    for (size_t i = 0; i < k; i++)
        x_sum += 128 * i15.hi[i] + i15.lo[i];
    got[rows] = GUARD;
    eb_gemv_u8_i15_scalar(wanted, w, &i15, x_sum, w_stride, rows, k);
    kernel(got, w, &i15, x_sum, w_stride, rows, k);
    for (size_t n = 0; n <= rows; n++)
        if (got[n] != (n < rows ? wanted[n] : GUARD))
            return fail(name, seed, how, rows, k, n, got[n], n < rows ? wanted[n] : GUARD);
    for (size_t n = 0; n < rows; n++) {
        int64_t sum = 0;
        for (size_t i = 0; i < k; i++)
            sum += (int64_t)(w[n * w_stride + i] - 128) * (128 * i15.hi[i] + i15.lo[i]);
        if (wanted[n] != sum)
            return fail("eb_gemv_u8_i15_scalar", seed, how, rows, k, n, wanted[n], sum);
    }
    return 0;
}

#include "check_float_ops.h"
#include "check_lora.h"

/* Rows and k give the number of words: rows * k / 64 blocks of 64. */
static int check_read_sum(const char *name, eb_read_sum_fn *kernel, uint64_t seed, fill how, size_t rows, size_t k) {
    const size_t n = rows * k / sizeof(uint64_t) / 64 * 64;
    uint64_t *from = words_end - n;
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        const uint64_t random = (uint64_t)next_random() << 40 ^ (uint64_t)next_random() << 20 ^ next_random();
        from[i] = how == HIGHEST ? UINT64_MAX : how == LOWEST ? i : random;
        sum += from[i];
    }
    if (eb_read_sum_scalar(from, n) != sum)
        return fail("eb_read_sum_scalar", seed, how, rows, k, 0, (int64_t)eb_read_sum_scalar(from, n), (int64_t)sum);
    if (kernel(from, n) != sum)
        return fail(name, seed, how, rows, k, 0, (int64_t)kernel(from, n), (int64_t)sum);
    return 0;
}

/* Rows and k give the number of rounds: rows + k / 64, past every place where sums are widened. */
static int check_peak_i8(const char *name, eb_peak_i8_fn *kernel, uint64_t seed, fill how, size_t rows, size_t k) {
    const size_t n = rows + k / 64 - 2;
    uint8_t a[64];
    int8_t b[64];
    int64_t sum = 0;
    for (size_t i = 0; i < 64; i++) {
        a[i] = how == RANDOM ? next_random() & 3 : 3;
        b[i] = how == HIGHEST ? 127 : how == LOWEST ? -128 : (int8_t)next_random();
        sum += a[i] * b[i];
    }
    const uint32_t right = (uint32_t)(sum * EB_PEAK_MACS / 64 * (int64_t)n);
    if (eb_peak_i8_scalar(a, b, n) != right)
        return fail("eb_peak_i8_scalar", seed, how, rows, k, 0, eb_peak_i8_scalar(a, b, n), right);
    if (kernel(a, b, n) != right)
        return fail(name, seed, how, rows, k, 0, kernel(a, b, n), right);
    return 0;
}

/* ---- all shapes, all rows of ukernels.inc ---- */

#define CHECK_SHAPES(op, name)                                                                                         \
    for (int how = 0; how < N_FILLS; how++) {                                                                          \
        for (size_t rows = 4; rows <= MAX_ROWS; rows += 4)                                                             \
            for (size_t k = 64; k <= 64 * 20; k += 64)                                                                 \
                if (check_##op(#name, name, seed, (fill)how, rows, k))                                                 \
                    return 1;                                                                                          \
        if (check_##op(#name, name, seed, (fill)how, 4, MAX_K) ||                                                      \
            check_##op(#name, name, seed, (fill)how, 12, 6912) || check_##op(#name, name, seed, (fill)how, 8, 2560))   \
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
    uint8_t *w = malloc(MAX_ROWS * MAX_K), *codes = malloc(2 * MAX_ROWS * MAX_K);
    int8_t *x = malloc(MAX_TOKENS * MAX_K), *hi = malloc(MAX_I15_K), *lo = malloc(MAX_I15_K);
    w_end = w + MAX_ROWS * MAX_K, codes_end = codes + 2 * MAX_ROWS * MAX_K;
    x_end = x + MAX_TOKENS * MAX_K, hi_end = hi + MAX_I15_K, lo_end = lo + MAX_I15_K;
    got = malloc(4096), wanted = malloc(4096);
    void *words;
    if (posix_memalign(&words, 64, MAX_ROWS * MAX_K))
        return 2;
    words_end = (uint64_t *)words + MAX_ROWS * MAX_K / sizeof(uint64_t);
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
    free(w), free(codes), free(x), free(hi), free(lo), free(words), free(got), free(wanted);
    return 0;
}
