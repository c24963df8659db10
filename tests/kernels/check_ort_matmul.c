/* check_ort_matmul.c - the products of the ONNX operators, and what they stand on, without ONNX Runtime.
 *
 * Products at the ISA level that EDGEBIT_ISA names must equal, to the last bit, what the definitions of docs/onnx.md give
 * when they are followed one number at a time with the scalar quantisation: shapes that fill neither tiles nor chunks, groups,
 * 8 and 15 bits, one to 200 tokens, parts forwards, backwards and on threads, extremes, NaN and infinities. Every buffer has
 * just the bytes it must have, so that a sanitizer sees what is read or written behind, and inputs begin at any byte, as those
 * of a file may: a sanitizer sees what is read as if it were aligned. A failure prints the case's number;
 * `check_ort_matmul NUMBER` runs that one. */
#include "cpu.h"
#include "dispatch.h"
#include "floats.h"
#include "hwcap.h"
#include "matmul.h"
#include "posix_host.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static uint64_t state;

static uint32_t next_random(void) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33);
}

static size_t one_of(const size_t *of, size_t n) { return of[next_random() % n]; }
#define ONE_OF(...) one_of((const size_t[]){__VA_ARGS__}, sizeof((const size_t[]){__VA_ARGS__}) / sizeof(size_t))

/* ---- three ways to run parts ---- */

static void forwards(const eb_parallel *self, eb_part_fn *part, size_t n, void *task) {
    (void)self;
    for (size_t i = 0; i < n; i++)
        part(task, i);
}

static void backwards(const eb_parallel *self, eb_part_fn *part, size_t n, void *task) {
    (void)self;
    while (n--)
        part(task, n);
}

typedef struct crew {
    eb_part_fn *part;
    void *task;
    size_t n, next;
} crew;

static void *work(void *context) {
    crew *of = context;
    for (size_t i; (i = __atomic_fetch_add(&of->next, 1, __ATOMIC_RELAXED)) < of->n;)
        of->part(of->task, i);
    return NULL;
}

static void on_threads(const eb_parallel *self, eb_part_fn *part, size_t n, void *task) {
    (void)self;
    crew all = {part, task, n, 0};
    pthread_t thread[3];
    for (int i = 0; i < 3; i++)
        if (pthread_create(&thread[i], NULL, work, &all))
            abort();
    work(&all);
    for (int i = 0; i < 3; i++)
        pthread_join(thread[i], NULL);
}

static const eb_parallel ways[] = {{forwards}, {backwards}, {on_threads}};

/* ---- a case ---- */

typedef struct shape {
    eb_matmul m;
    size_t groups, chunks, tiles;
    int by_row, is_i15, is_int8;
    int8_t *weights; /* [rows][columns] */
    float *x, *scales;
    uint8_t *codes;
    size_t offset; /* bytes from where malloc() gives aligned memory to the operator's inputs */
    char *given_x, *given_scales, *given_codes;
} shape;

/* Kinds of activations: ordinary ones, all the greatest, zeros, subnormal ones, and some that are no numbers. */
static float activation(int how) {
    const float value = ((float)next_random() / (float)(1u << 31) - 0.5f) * 8;
    switch (how) {
    case 1:
        return 3.0f;
    case 2:
        return next_random() & 1 ? 0.0f : -0.0f;
    case 3:
        return value * 1e-39f;
    case 4:
        return next_random() % 8 ? value : (float[]){NAN, INFINITY, -INFINITY, 0}[next_random() % 4];
    case 5:
        return next_random() % 16 ? value : NAN;
    default:
        return value;
    }
}

static void *room(size_t bytes) {
    void *made = malloc(bytes);
    if (!made)
        abort();
    return made;
}

static size_t codes_size(const shape *s) {
    return s->is_int8 ? s->m.rows * ((s->m.columns + 15) / 16 * 16) : s->groups * s->tiles * s->chunks * 64;
}

/* A copy of `content` that lies `offset` bytes after an aligned place. */
static char *given(const void *content, size_t size, size_t offset) {
    char *made = room(offset + size);
    memcpy(made + offset, content, size);
    return made + offset;
}

static uint8_t *ternary_codes(const shape *s) {
    const size_t k = s->m.columns / s->groups, size = codes_size(s);
    uint8_t *codes = room(size);
    memset(codes, 0xaa, size); /* code 2, weight 0 */
    for (size_t n = 0; n < s->m.rows; n++)
        for (size_t c = 0; c < s->m.columns; c++) {
            const size_t at = c % k, tile = (c / k * s->tiles + n / 4) * s->chunks + at / 64;
            uint8_t *byte = &codes[tile * 64 + n % 4 * 16 + at % 64 / 4];
            const int field = (int)(at % 4 * 2);
            *byte = (uint8_t)((*byte & ~(3 << field)) | (s->weights[n * s->m.columns + c] + 2) << field);
        }
    return codes;
}

static uint8_t *int8_codes(const shape *s) {
    const size_t stride = (s->m.columns + 15) / 16 * 16;
    uint8_t *codes = room(codes_size(s));
    memset(codes, 128, codes_size(s));
    for (size_t n = 0; n < s->m.rows; n++)
        for (size_t c = 0; c < s->m.columns; c++)
            codes[n * stride + c] = (uint8_t)(s->weights[n * s->m.columns + c] + 128);
    return codes;
}

static int8_t weight(const shape *s, int how) {
    if (how == 1)
        return s->is_int8 ? (next_random() & 1 ? 127 : -128) : 1;
    return (int8_t)(s->is_int8 ? (int)(next_random() % 256) - 128 : (int)(next_random() % 3) - 1);
}

static void make(shape *s, int how) {
    const size_t size = eb_float_size(s->m.kind);
    s->weights = room(s->m.rows * s->m.columns);
    for (size_t i = 0; i < s->m.rows * s->m.columns; i++)
        s->weights[i] = weight(s, how);
    const size_t n_scales = s->by_row ? s->groups * s->m.rows : 1;
    s->scales = room(n_scales * sizeof(float));
    for (size_t i = 0; i < n_scales; i++)
        s->scales[i] = (float)(next_random() % 1000 + 1) / 997;
    s->given_scales = given(s->scales, n_scales * sizeof(float), s->offset);
    s->codes = s->is_int8 ? int8_codes(s) : ternary_codes(s);
    s->given_codes = given(s->codes, codes_size(s), s->offset);
    s->x = room(s->m.tokens * s->m.columns * sizeof(float));
    void *x = room(s->m.tokens * s->m.columns * size);
    for (size_t i = 0; i < s->m.tokens * s->m.columns; i++)
        s->x[i] = activation(how);
    eb_floats_store(x, s->m.kind, s->x, s->m.tokens * s->m.columns);
    eb_floats_load(s->x, x, s->m.kind, s->m.tokens * s->m.columns); /* what the operator sees */
    s->given_x = given(x, s->m.tokens * s->m.columns * size, s->offset);
    free(x);
    s->m.x = s->given_x;
    s->m.y = room(s->m.tokens * s->m.rows * size);
}

static void clear(shape *s) {
    free(s->weights), free(s->scales), free(s->codes), free(s->x), free(s->m.y);
    free(s->given_x - s->offset), free(s->given_scales - s->offset), free(s->given_codes - s->offset);
}

/* ---- the definition ---- */

/* Token `t` quantised: q [columns], and its scale. */
static float quantised(const shape *s, size_t t, int32_t *q) {
    const size_t k = s->m.columns, padded = (k + 63) / 64 * 64;
    float *row = calloc(padded, sizeof(float)), scale;
    int8_t *hi = room(padded), *lo = room(padded);
    int32_t sum;
    memcpy(row, s->x + t * k, k * sizeof(float));
    if (s->is_i15)
        eb_quantise_i15_scalar(hi, lo, &scale, row, k);
    else
        eb_quantise_i8_scalar(hi, &scale, &sum, row, k);
    for (size_t c = 0; c < k; c++)
        q[c] = s->is_i15 ? 128 * hi[c] + lo[c] : hi[c];
    free(row), free(hi), free(lo);
    return scale;
}

static float defined(const shape *s, size_t n, const int32_t *q, float scale) {
    const size_t k = s->m.columns / s->groups;
    float y = 0;
    for (size_t g = 0; g < s->groups; g++) {
        int64_t dot = 0;
        for (size_t c = g * k; c < (g + 1) * k; c++)
            dot += (int64_t)s->weights[n * s->m.columns + c] * q[c];
        const float value = (float)dot * (s->scales[s->by_row ? g * s->m.rows + n : 0] * scale);
        y = g ? y + value : value;
    }
    return y;
}

/* Whether y is the definition's, any two that are no numbers being alike. */
static int is_right(const shape *s, uint64_t number, const char *way) {
    const size_t size = eb_float_size(s->m.kind);
    int32_t *q = room(s->m.columns * sizeof *q);
    int right = 1;
    for (size_t t = 0; t < s->m.tokens && right; t++) {
        const float scale = quantised(s, t, q);
        for (size_t n = 0; n < s->m.rows && right; n++) {
            float wanted = defined(s, n, q, scale), got;
            uint32_t bits = 0;
            eb_floats_store(&bits, s->m.kind, &wanted, 1);
            const char *y = (const char *)s->m.y + (t * s->m.rows + n) * size;
            eb_floats_load(&wanted, &bits, s->m.kind, 1);
            eb_floats_load(&got, y, s->m.kind, 1);
            right = memcmp(y, &bits, size) == 0 || (got != got && wanted != wanted);
            if (!right)
                printf("case %" PRIu64 " %s: rows %zu, columns %zu, groups %zu, tokens %zu, kind %d, i15 %d, int8 %d: "
                       "y[%zu][%zu] is %.9g, defined is %.9g\n",
                       number, way, s->m.rows, s->m.columns, s->groups, s->m.tokens, (int)s->m.kind, s->is_i15,
                       s->is_int8, t, n, (double)got, (double)wanted);
        }
    }
    free(q);
    return right;
}

static void multiply(shape *s, const eb_parallel *way) {
    const uint8_t *codes = (const uint8_t *)s->given_codes;
    const eb_n2 n2 = {codes, s->given_scales, s->groups, s->by_row, s->is_i15};
    const eb_u8_rows u8 = {codes, s->given_scales, (s->m.columns + 15) / 16 * 16};
    s->m.parallel = way;
    memset(s->m.y, 0xff, s->m.tokens * s->m.rows * eb_float_size(s->m.kind));
    void *scratch = room(s->is_int8 ? eb_int8_scratch(&s->m) : eb_ternary_scratch(&s->m, &n2));
    if (s->is_int8)
        eb_int8_matmul(&s->m, &u8, scratch);
    else
        eb_ternary_matmul(&s->m, &n2, scratch);
    free(scratch);
}

/* The first cases are each number of tokens; large ones are few. */
static shape drawn(uint64_t number, const eb_ukernels *kernels) {
    static const size_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 40, 200};
    const size_t n_tokens = sizeof tokens / sizeof *tokens, is_large = number % 50 == 49;
    shape s = {.groups = ONE_OF(1, 1, 1, 2, 3, 5), .is_int8 = number % 4 == 3};
    s.groups = s.is_int8 ? 1 : s.groups;
    s.m = (eb_matmul){.kernels = kernels, .kind = (eb_float_kind)(next_random() % 3)};
    s.m.tokens = tokens[number % n_tokens];
    s.m.columns = s.groups * (is_large ? 6912 / s.groups / 64 * 64 : ONE_OF(1, 7, 15, 16, 63, 64, 65, 128, 130, 200));
    s.m.rows = is_large ? 37 : s.m.tokens > 9 ? ONE_OF(1, 5, 16, 33, 50) : ONE_OF(1, 2, 3, 4, 5, 37, 64, 130, 300);
    s.by_row = s.groups > 1 || s.is_int8 || (next_random() & 1);
    s.is_i15 = s.is_int8 || (next_random() & 1);
    s.offset = next_random() % 4;
    s.tiles = (s.m.rows + 3) / 4, s.chunks = (s.m.columns / s.groups + 63) / 64;
    return s;
}

static int check_case(uint64_t number, const eb_ukernels *kernels) {
    static const char *const names[] = {"forwards", "backwards", "on threads"};
    state = number;
    next_random();
    shape s = drawn(number, kernels);
    make(&s, (int)(next_random() % 7));
    int failed = 0;
    for (int way = 0; way < 3 && !failed; way++) {
        multiply(&s, &ways[way]);
        failed = !is_right(&s, number, names[way]);
    }
    clear(&s);
    return failed;
}

/* ---- 16-bit floats ---- */

static float widened(uint16_t half, eb_float_kind kind) {
    float value;
    eb_floats_load(&value, &half, kind, 1);
    return value;
}

static uint16_t narrowed(float value, eb_float_kind kind) {
    uint16_t half;
    eb_floats_store(&half, kind, &value, 1);
    return half;
}

/* What a 16-bit float is worth, from its fields. */
static double worth(uint16_t half, int exponent_bits) {
    const int digits = 15 - exponent_bits, bias = (1 << (exponent_bits - 1)) - 1;
    const int exponent = half >> digits & ((1 << exponent_bits) - 1), fraction = half & ((1 << digits) - 1);
    const double magnitude =
        exponent ? ldexp(1 + ldexp(fraction, -digits), exponent - bias) : ldexp(fraction, 1 - bias - digits);
    return half & 0x8000 ? -magnitude : magnitude;
}

/* All of a kind: what each is worth, and that rounding changes over just half way to the next, to the even one there. */
static int check_halves(eb_float_kind kind, uint16_t infinity, int exponent_bits) {
    for (unsigned sign = 0; sign <= 0x8000; sign += 0x8000) {
        for (unsigned half = sign; half <= sign + infinity; half++) {
            const float value = widened((uint16_t)half, kind);
            if (half == sign + infinity ? !isinf(value) : (double)value != worth((uint16_t)half, exponent_bits))
                return printf("kind %d: %04x is read as %.9g\n", (int)kind, half, (double)value), 1;
            if (narrowed(value, kind) != half)
                return printf("kind %d: %04x is written as %04x\n", (int)kind, half, narrowed(value, kind)), 1;
            if (half == sign + infinity)
                break;
            /* Half way to infinity counts as to the number that would be next. */
            const double next = worth((uint16_t)(half + 1), exponent_bits);
            const double middle =
                ((double)value + (half + 1 == sign + infinity ? (sign ? -1 : 1) * fabs(next) : next)) / 2;
            const float tie = (float)middle, below = nextafterf(tie, value),
                        above = nextafterf(tie, (sign ? -1 : 1) * INFINITY);
            const unsigned even = half & 1 ? half + 1 : half;
            if (narrowed(below, kind) != half || narrowed(tie, kind) != even || narrowed(above, kind) != half + 1)
                return printf("kind %d: around %.9g it is rounded wrongly\n", (int)kind, (double)tie), 1;
        }
        for (unsigned half = sign + infinity + 1; half < sign + 0x8000; half++)
            if (!isnan(widened((uint16_t)half, kind)) ||
                !isnan(widened(narrowed(widened((uint16_t)half, kind), kind), kind)))
                return printf("kind %d: %04x is a number\n", (int)kind, half), 1;
    }
    return 0;
}

/* ---- what the kernel says of the CPU ---- */

static int check_hwcap(void) {
    static const char a76[] = "processor\t: 0\nFeatures\t: fp asimd aes asimddp\n\n"
                              "processor\t: 1\nFeatures\t: fp asimd asimddp i8mm sve\nCPU implementer\t: 0x41\n";
    static const char a53[] = "Features\t: fp asimd crc32 xasimddp asimddpx";
    const unsigned long auxv[] = {33, 0x7fff, 16, 0x100801, 26, 0x2000, 0, 0, 16, 1};
    const eb_hwcap words = eb_hwcap_of_auxv(auxv, 10), cut = eb_hwcap_of_auxv(auxv, 3);
    const eb_hwcap big = eb_hwcap_of_cpuinfo(a76, sizeof a76 - 1), small = eb_hwcap_of_cpuinfo(a53, sizeof a53 - 1);
    const eb_hwcap nothing = eb_hwcap_of_cpuinfo("flags\t: asimddp\n", 16);
    if (words.hwcap != 0x100801 || words.hwcap2 != 0x2000 || cut.hwcap || big.hwcap != 1ul << 20 || big.hwcap2 ||
        small.hwcap || small.hwcap2 || nothing.hwcap)
        return printf("the CPU's features are read wrongly\n"), 1;
    const eb_host host = eb_posix_host(NULL);
    const eb_hwcap here = eb_hwcap_read();
    if (here.hwcap != host.hwcap || here.hwcap2 != host.hwcap2)
        return printf("HWCAP is %lx %lx, getauxval() says %lx %lx\n", here.hwcap, here.hwcap2,
                      (unsigned long)host.hwcap, (unsigned long)host.hwcap2),
               1;
    return 0;
}

int main(int argc, char **argv) {
    enum { N_CASES = 400 };
    const uint64_t only = argc > 1 ? strtoull(argv[1], NULL, 10) : N_CASES;
    const eb_host host = eb_posix_host(getenv("EDGEBIT_ISA"));
    eb_error error;
    eb_isa isa;
    if (eb_isa_choose(&host, &isa, &error)) {
        printf("%s\n", error.text);
        return 2;
    }
    const eb_ukernels kernels = eb_dispatch(isa.features);
    if (check_hwcap() || check_halves(EB_FLOAT16, 0x7c00, 5) || check_halves(EB_BFLOAT16, 0x7f80, 8))
        return 1;
    for (uint64_t number = only < N_CASES ? only : 0; number < (only < N_CASES ? only + 1 : N_CASES); number++)
        if (check_case(number, &kernels))
            return 1;
    printf("all products are as defined (%s)\n", isa.name);
    return 0;
}
