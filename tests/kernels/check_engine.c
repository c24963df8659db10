/* check_engine.c - the parts of the engine that a model's output would not show plainly: float operations against libm
 * in double and against their golden bits, hostile numbers, own memory functions, error texts, thread pool, sampler. */
#include "crc32.h"
#include "dispatch.h"
#include "kv_cache.h"
#include "mem.h"
#include "ops.h"
#include "posix_host.h"
#include "status.h"
#include "threadpool.h"
#include "ukernel.h"
#include "vec.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int n_failed;

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                                                     \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
            n_failed++;                                                                                                \
        }                                                                                                              \
    } while (0)

static uint64_t state = 1;

static uint32_t next_random(void) {
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33);
}

/* -1 to 1 */
static float next_float(void) { return (float)((int32_t)(next_random() & 0xffffff) - 0x800000) / 8388608.0f; }

static double ulps(float got, double wanted) {
    const float nearest = (float)wanted;
    const double unit = nextafterf(fabsf(nearest), INFINITY) - fabsf(nearest);
    return fabs((double)got - wanted) / unit;
}

/* ---- memory, sums, texts ---- */

static void check_memory(void) {
    unsigned char a[64], b[64];
    for (size_t from = 0; from < 20; from++)
        for (size_t to = 0; to < 20; to++)
            for (size_t size = 0; size < 40; size++) {
                for (size_t i = 0; i < sizeof a; i++)
                    a[i] = b[i] = (unsigned char)next_random();
                memmove(a + to, a + from, size);
                unsigned char moved[64];
                for (size_t i = 0; i < size; i++)
                    moved[i] = b[from + i];
                for (size_t i = 0; i < size; i++)
                    b[to + i] = moved[i];
                int same = 1;
                for (size_t i = 0; i < sizeof a; i++)
                    same &= a[i] == b[i];
                CHECK(same, "memmove of %zu bytes from %zu to %zu", size, from, to);
            }
    CHECK(memcmp("abcdefgh1", "abcdefgh2", 9) < 0 && memcmp("abcdefgh\xff", "abcdefgh\x01", 9) > 0, "sign");
    CHECK(memcmp("same bytes", "same bytes", 10) == 0, "equal");
}

static void check_crc(void) {
    CHECK(eb_crc32(0, "123456789", 9) == 0xcbf43926u, "%08x", (unsigned)eb_crc32(0, "123456789", 9));
    char text[100];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)next_random();
    for (size_t cut = 0; cut <= sizeof text; cut++)
        CHECK(eb_crc32(eb_crc32(0, text, cut), text + cut, sizeof text - cut) == eb_crc32(0, text, sizeof text),
              "cut %zu", cut);
}

static void check_texts(void) {
    eb_error error;
    eb_fail(&error, "%s: %u of %d, %llu%% %x %c", "a\nb", 4294967295u, -2147483647 - 1, 18446744073709551615ull,
            0xbeefu, 'z');
    CHECK(!strcmp(error.text, "a?b: 4294967295 of -2147483648, 18446744073709551615% beef z"), "%s", error.text);
    char big[400];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = 0;
    eb_fail(&error, "%s", big);
    CHECK(strlen(error.text) == sizeof error.text - 1, "%zu", strlen(error.text));
    eb_fail(NULL, "nobody listens");
}

/* ---- float operations ---- */

#define FLOAT_RESULTS                                                                                                  \
    0x67781dadu            /* what every CPU and compiler gives; changes only with the definition of an operation */
static uint32_t bits_seen; /* running sum of all results of this section: the same on every CPU and compiler */

static void see(const void *values, size_t size) { bits_seen = eb_crc32(bits_seen, values, size); }

static void check_exp(void) {
    double worst = 0;
    for (int i = 0; i < 200000; i++) {
        const float x = next_float() * 87.0f;
        const float y = eb_v_exp(eb_v_splat(x))[i % 4];
        const double off = ulps(y, exp((double)x));
        worst = off > worst ? off : worst;
        see(&y, sizeof y);
    }
    CHECK(worst < 2, "%.3f units in the last place", worst);
    CHECK(eb_v_exp(eb_v_splat(0.0f))[0] == 1.0f, "e^0");
    CHECK(eb_v_exp(eb_v_splat(-1000.0f))[0] == 0.0f && eb_v_exp(eb_v_splat(-INFINITY))[0] == 0.0f, "far below");
    CHECK(eb_v_exp(eb_v_splat(NAN))[0] == 0.0f, "not a number");
    CHECK(isfinite(eb_v_exp(eb_v_splat(INFINITY))[0]), "far above");
}

static void check_rope(void) {
    enum { HALF = 64 };
    float inv_freq[HALF], cosines[HALF], sines[HALF];
    for (int i = 0; i < HALF; i++)
        inv_freq[i] = i ? inv_freq[i - 1] * 0.8146f : 1.0f;
    double worst = 0;
    static const uint32_t positions[] = {0, 1, 2, 3, 100, 4095, 65535, 1000003, 16777215};
    for (size_t p = 0; p < sizeof positions / sizeof positions[0]; p++) {
        eb_rope_angles(cosines, sines, inv_freq, positions[p], HALF);
        see(cosines, sizeof cosines);
        see(sines, sizeof sines);
        for (int i = 0; i < HALF; i++) {
            const double angle = (float)positions[p] * inv_freq[i];
            const double off_cos = fabs(cosines[i] - cos(angle)), off_sin = fabs(sines[i] - sin(angle));
            worst = off_cos > worst ? off_cos : worst;
            worst = off_sin > worst ? off_sin : worst;
        }
    }
    CHECK(worst < 6e-8, "%g", worst);
    const float x[4] = {1, 2, 3, 4}, c[2] = {0, 1}, s[2] = {1, 0};
    float y[4];
    eb_rope_rotate_scalar(y, x, c, s, 2);
    CHECK(y[0] == -3 && y[1] == 2 && y[2] == 1 && y[3] == 4, "first half pairs with second half");
}

static void check_norm(void) {
    for (size_t n = 1; n < 200; n += 13) {
        float x[256] = {0}, y[256], weight[256];
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            x[i] = next_float() * 3;
            weight[i] = next_float();
            sum += (double)x[i] * x[i];
        }
        memset(y, 0x55, sizeof y);
        eb_rmsnorm_scalar(y, x, weight, n, 1e-5f);
        for (size_t i = 0; i < n; i++) {
            const double wanted = x[i] / sqrt(sum / (double)n + 1e-5) * weight[i];
            CHECK(fabs(y[i] - wanted) <= 1e-6 * (fabs(wanted) + 1e-3), "n %zu, %zu: %g, not %g", n, i, y[i], wanted);
        }
        for (size_t i = n; i < eb_round_up(n, 64); i++)
            CHECK(y[i] == 0, "n %zu: %zu is not filled up", n, i);
        see(y, n * sizeof *y);
    }
}

static void check_quantise(void) {
    float x[64] = {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -127, 126.5f, 3.49f};
    int8_t q[64];
    static const int8_t wanted[9] = {127, 0, 2, 2, 0, -2, -127, 126, 3}; /* halves to even */
    float scale;
    int32_t sum;
    eb_quantise_i8_scalar(q, &scale, &sum, x, 9);
    for (int i = 0; i < 9; i++)
        CHECK(q[i] == wanted[i], "%d: %d, not %d", i, q[i], wanted[i]);
    CHECK(scale == 1.0f && sum == 127 + 2 + 2 - 2 - 127 + 126 + 3, "scale %g, sum %d", scale, sum);

    float zeros[64] = {0};
    eb_quantise_i8_scalar(q, &scale, &sum, zeros, 64);
    CHECK(q[0] == 0 && sum == 0 && scale == 1e-5f / 127.0f, "scale %g", scale);

    /* Numbers that only a hostile file can bring about: any result will do, but it must be one. */
    static const float hostile[] = {NAN, INFINITY, -INFINITY, 3e38f, 1e-45f};
    for (size_t h = 0; h < sizeof hostile / sizeof hostile[0]; h++) {
        int8_t hi[64], lo[64];
        x[5] = hostile[h];
        eb_quantise_i8_scalar(q, &scale, &sum, x, 64);
        eb_quantise_i15_scalar(hi, lo, &scale, x, 64);
        for (int i = 0; i < 64; i++)
            CHECK(hi[i] >= -127 && lo[i] >= -64 && lo[i] <= 63, "%d, %d", hi[i], lo[i]);
    }
    for (int round = 0; round < 1000; round++) {
        int16_t q15[64];
        int8_t hi[64], lo[64];
        for (int i = 0; i < 64; i++)
            x[i] = next_float() * (float)round;
        eb_quantise_i15_scalar(hi, lo, &scale, x, 64);
        for (int i = 0; i < 64; i++) {
            q15[i] = (int16_t)(128 * hi[i] + lo[i]);
            CHECK(fabs(q15[i] * (double)scale - x[i]) <= 0.503 * scale, "round %d: %g", round, x[i]);
            CHECK(hi[i] > -128 && lo[i] >= -64 && lo[i] < 64, "planes %d, %d", hi[i], lo[i]);
        }
        see(q15, sizeof q15);
        eb_quantise_i8_scalar(q, &scale, &sum, x, 64);
        see(q, sizeof q);
        see(&scale, sizeof scale);
    }
}

/* Both planes at their ends: 128 * hi + lo is as large as a projection of 262,144 columns makes it, and more than an int32
 * or a float holds. Each sum is the real number, rounded once. */
static void check_planes(void) {
    enum { N = 1000 };
    static int32_t hi[N], lo[N];
    static float y[N];
    const float one = 1;
    for (int i = 0; i < N; i++) {
        hi[i] = (int32_t)(next_random() % 66584577) - 33292288; /* 262,144 * 127 */
        lo[i] = (int32_t)(next_random() % 33030145) - 16515072;
    }
    hi[0] = 33292288, lo[0] = 16515072, hi[1] = -hi[0], lo[1] = -lo[0], hi[2] = 1 << 17, lo[2] = 1;
    const eb_scaled_dots of = {hi, N, &one, 0, lo};
    eb_scale_dots_scalar(y, N, &of, &one, N, 1, 0);
    for (int i = 0; i < N; i++) {
        const float wanted = (float)(128 * (int64_t)hi[i] + lo[i]);
        CHECK(y[i] == wanted, "planes %d, %d: %g, not %g", hi[i], lo[i], y[i], wanted);
    }
    see(y, sizeof y);
}

static void check_gates(void) {
    for (size_t n = 1; n < 40; n++) {
        int32_t gate[2][40], up[2][40];
        float gate_scales[40], up_scale = 0.0003f, f[2][40], scaled[2][40];
        const float scales[2] = {0.01f, 0.3f};
        for (size_t i = 0; i < n; i++) {
            gate_scales[i] = next_float();
            for (int token = 0; token < 2; token++)
                gate[token][i] = (int32_t)(next_random() % 4001) - 2000, up[token][i] = (int32_t)(next_random() % 999);
        }
        const eb_scaled_dots of_gate = {gate[0], 40, gate_scales, 1, NULL}, of_up = {up[0], 40, &up_scale, 0, NULL};
        for (int is_silu = 0; is_silu < 2; is_silu++) {
            eb_gate_dots_scalar(f[0], 40, &of_gate, &of_up, scales, n, 2, is_silu);
            for (size_t i = 0; i < 2 * n; i++) {
                const size_t token = i / n, at = i % n;
                const double x = (double)gate[token][at] * gate_scales[at] * scales[token];
                const double act = is_silu ? x / (1 + exp(-x)) : x > 0 ? x * x : 0;
                const double wanted = act * up[token][at] * up_scale * scales[token];
                CHECK(fabs(f[token][at] - wanted) <= 2e-6 * fabs(wanted) + 1e-12, "silu %d of %g: %g, not %g", is_silu,
                      x, f[token][at], wanted);
            }
            see(f[0], n * sizeof *f[0]);
            see(f[1], n * sizeof *f[1]);
            float values[2][40];
            eb_scale_dots_scalar(values[0], 40, &of_gate, scales, n, 1, 0);
            eb_scale_dots_scalar(values[1], 40, &of_up, scales, n, 1, 0);
            eb_gate_values_scalar(values[0], values[0], values[1], n, is_silu);
            CHECK(!memcmp(values[0], f[0], n * sizeof *f[0]), "silu %d: the gate of values is another", is_silu);
        }
        for (int add = 0; add < 2; add++) {
            eb_scale_dots_scalar(scaled[0], 40, &of_gate, scales, n, 2, add);
            for (size_t i = 0; i < 2 * n; i++) {
                const double wanted = (1 + add) * (double)gate[i / n][i % n] * gate_scales[i % n] * scales[i / n];
                CHECK(fabs(scaled[i / n][i % n] - wanted) <= 1e-6 * fabs(wanted), "add %d: %g, not %g", add,
                      scaled[i / n][i % n], wanted);
            }
        }
    }
}

/* The value of a finite IEEE binary16, by its definition: clang 14 has no _Float16 for x86-64. */
static float half_value(uint16_t bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    const double size = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return (float)(bits & 0x8000 ? -size : size);
}

/* The nearest binary16 of |x| below 65,504, halves to even: a multiple of the unit in its last place. */
static float nearest_half(float x) {
    int exponent;
    frexp((double)x, &exponent);
    const double unit = ldexp(1, exponent < -13 ? -24 : exponent - 11);
    return (float)(rint((double)x / unit) * unit);
}

/* What the KV cache makes of x. */
static void as_stored(eb_kv_type type, float *x, size_t n) {
    float most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(x[i]));
    for (size_t i = 0; i < n; i++)
        if (type == EB_KV_F16)
            x[i] = nearest_half(x[i]);
        else if (type == EB_KV_I8)
            x[i] = rintf(x[i] * (127.0f / most)) * (most / 127.0f);
}

/* Against arithmetic in double on what was stored: whole segments and merged ones, tokens together and one by one. */
static void check_attention(eb_kv_type type, float tolerance) {
    enum { HEADS = 3, TOKENS = 4, ROWS = HEADS * TOKENS, HEAD_DIM = 20, STRIDE = 32, MAX_N = EB_SEGMENT + 70 };
    static float q[ROWS * STRIDE], keys[MAX_N][STRIDE], values[MAX_N][STRIDE], scores[ROWS * EB_SEGMENT];
    static int16_t q15[ROWS * 2 * STRIDE];
    static unsigned char head[(MAX_N + 15) * 2 * STRIDE * sizeof(float)];
    const eb_ukernels kernels = eb_dispatch(0);
    eb_kv_cache kv;
    eb_kv_cache_plan(&kv, type, HEAD_DIM, MAX_N);
    CHECK(kv.head_bytes <= sizeof head && kv.layout.stride == STRIDE, "%llu", (unsigned long long)kv.head_bytes);
    for (size_t t = 0; t < MAX_N; t++) {
        for (size_t d = 0; d < HEAD_DIM; d++) {
            keys[t][d] = next_float() * 2;
            values[t][d] = next_float();
        }
        eb_kv_store(&kv, &kernels, head, t, keys[t], values[t]);
        as_stored(type, keys[t], HEAD_DIM);
        as_stored(type, values[t], HEAD_DIM);
    }
    for (size_t i = 0; i < ROWS * STRIDE; i++)
        q[i] = i % STRIDE < HEAD_DIM ? next_float() : 0;
    for (size_t n = 1; n <= MAX_N - TOKENS; n += n < 40 ? 1 : 13) { /* of the first token */
        if (n < EB_SEGMENT && n + TOKENS > EB_SEGMENT)
            continue; /* tiles end with a segment */
        eb_softmax softmax[ROWS], part[ROWS], alone[HEADS];
        float sums[ROWS * STRIDE], part_sums[ROWS * STRIDE], alone_sums[HEADS * STRIDE];
        const size_t segment = (n - 1) / EB_SEGMENT * EB_SEGMENT;
        eb_attend a = {kv.layout, head, q, ROWS, HEADS, segment ? EB_SEGMENT : n, !segment, softmax, sums, scores, q15};
        eb_attend_fn *attend = type == EB_KV_F16  ? kernels.attend_f16
                               : type == EB_KV_I8 ? kernels.attend_i8
                                                  : kernels.attend_f32;
        attend(&a);
        if (segment) {
            a.groups = head + segment / EB_KV_GROUP * kv.layout.group_bytes;
            a.count = n - segment, a.more = 1, a.softmax = part, a.sums = part_sums;
            attend(&a);
            for (size_t row = 0; row < ROWS; row++)
                kernels.merge_attention(&softmax[row], sums + row * STRIDE, &part[row], part_sums + row * STRIDE,
                                        STRIDE);
        }
        for (size_t row = 0; row < ROWS; row++) {
            double total = 0, wanted[HEAD_DIM] = {0};
            for (size_t t = 0; t < n + row / HEADS; t++) {
                double score = 0;
                for (size_t d = 0; d < HEAD_DIM; d++)
                    score += (double)q[row * STRIDE + d] * keys[t][d];
                total += exp(score);
                for (size_t d = 0; d < HEAD_DIM; d++)
                    wanted[d] += exp(score) * values[t][d];
            }
            for (size_t d = 0; d < HEAD_DIM; d++) {
                const double got = sums[row * STRIDE + d] / softmax[row].total;
                CHECK(fabs(got - wanted[d] / total) < tolerance, "type %d, n %zu, row %zu: %g, not %g", (int)type, n,
                      row, got, wanted[d] / total);
            }
            see(sums + row * STRIDE, HEAD_DIM * sizeof *sums);
        }
        for (size_t token = 0; token < TOKENS && !segment; token++) {
            a.q = q + token * HEADS * STRIDE, a.n_rows = HEADS, a.count = n + token, a.more = 0;
            a.softmax = alone, a.sums = alone_sums;
            attend(&a);
            CHECK(!memcmp(alone, softmax + token * HEADS, sizeof alone) &&
                      !memcmp(alone_sums, sums + token * HEADS * STRIDE, sizeof alone_sums),
                  "type %d, n %zu: token %zu differs when it goes alone", (int)type, n, token);
        }
    }
}

/* Every half, and what lies between two of them. */
static void check_f16(void) {
    for (uint32_t bits = 0; bits < 0x7c00; bits++) {
        const uint16_t half[16] = {(uint16_t)bits, (uint16_t)(bits | 0x8000)};
        const float value = half_value(half[0]);
        float wide[4];
        eb_v_store(wide, eb_v_load_f16(half));
        CHECK(wide[0] == value && wide[1] == -value, "%04x is %g", (unsigned)bits, wide[0]);
        const double next = (double)wide[0] + (bits < 0x400 ? 0x1p-24 : ldexp(1, (int)(bits >> 10) - 25));
        const float middle = (float)((wide[0] + next) / 2);
        const float x[16] = {wide[0], middle, nextafterf(middle, 0), nextafterf(middle, INFINITY), -middle};
        uint16_t rounded[16];
        eb_round_f16_scalar(rounded, x, 16);
        const uint16_t up = bits == 0x7bff ? 0x7bff : (uint16_t)(bits + 1), even = bits & 1 ? up : (uint16_t)bits;
        CHECK(rounded[0] == bits && rounded[1] == even && rounded[2] == bits && rounded[3] == up &&
                  rounded[4] == (even | 0x8000),
              "%04x: %04x %04x %04x %04x %04x", (unsigned)bits, rounded[0], rounded[1], rounded[2], rounded[3],
              rounded[4]);
    }
}

/* ---- thread pool ---- */

typedef struct counted {
    uint32_t times[64], threads;
} counted;

static void count(void *context, unsigned part, unsigned thread) {
    counted *c = context;
    __atomic_fetch_add(&c->times[part], 1, __ATOMIC_RELAXED);
    if (thread >= c->threads)
        __atomic_fetch_add(&c->times[part], 1000, __ATOMIC_RELAXED);
}

static void check_threadpool(const eb_host *host) {
    for (unsigned threads = 1; threads <= 5; threads++) {
        eb_error error;
        eb_threadpool *pool = eb_threadpool_open(host, threads, &error);
        CHECK(pool, "%s", error.text);
        for (unsigned round = 0; round < 3000 && !n_failed; round++) {
            const unsigned n_parts = round % 64 + 1;
            counted c = {.threads = threads};
            eb_threadpool_run(pool, count, &c, n_parts);
            for (unsigned part = 0; part < 64; part++)
                CHECK(c.times[part] == (part < n_parts), "%u threads, round %u: part %u was done %u times", threads,
                      round, part, c.times[part]);
            if (round % 500 == 0)
                nanosleep(&(struct timespec){0, 2000000}, NULL); /* so that workers fall asleep */
            if (round % 7 == 0)
                eb_threadpool_resize(pool, round / 7 % threads + 1);
        }
        eb_threadpool_close(pool);
    }
}

/* How many parts each thread has done. */
typedef struct shares {
    uint32_t parts[4];
    unsigned held_up; /* thread that is put aside in the middle of every part, as by another program; 0: none */
} shares;

static void take_share(void *context, unsigned part, unsigned thread) {
    shares *s = context;
    (void)part;
    __atomic_fetch_add(&s->parts[thread], 1, __ATOMIC_RELAXED);
    nanosleep(&(struct timespec){0, thread && thread == s->held_up ? 60000000 : 200000}, NULL);
}

static shares run_shares(eb_threadpool *pool, int n_runs, unsigned held_up) {
    shares s = {.held_up = held_up};
    for (int i = 0; i < n_runs; i++)
        eb_threadpool_run(pool, take_share, &s, 12);
    return s;
}

/* Whether, sooner or later, the workers 1 and 2 take parts, or none, as asked for. */
static int comes_to(eb_threadpool *pool, int first, int second) {
    for (int attempt = 0; attempt < 500; attempt++) {
        const shares s = run_shares(pool, 10, 0);
        if (!s.parts[1] == !first && !s.parts[2] == !second)
            return 1;
    }
    return 0;
}

static void check_resting(const eb_host *host) {
    eb_error error;
    eb_threadpool *pool = eb_threadpool_open(host, 3, &error);
    CHECK(pool, "%s", error.text);
    CHECK(comes_to(pool, 1, 1), "3 of 3 threads: a worker does nothing");
    eb_threadpool_resize(pool, 2);
    CHECK(comes_to(pool, 1, 0), "2 of 3 threads");
    eb_threadpool_resize(pool, 1);
    const shares alone = run_shares(pool, 2, 0);
    CHECK(alone.parts[0] == 24, "1 of 3 threads: the caller did %u of 24 parts", alone.parts[0]);
    eb_threadpool_resize(pool, 3);
    CHECK(comes_to(pool, 1, 1), "3 threads again: a worker does nothing");
    /* One that holds up every job sits out longer and longer, and is asked again in between. */
    const shares s = run_shares(pool, 200, 1);
    CHECK(s.parts[1] > 0 && s.parts[1] < 100, "a worker that holds up others did %u parts in 200 jobs", s.parts[1]);
    eb_threadpool_close(pool);
}

/* ---- sampler ---- */

enum { VOCAB = 50 };

static eb_sampler *sampler_with(const eb_host *host, eb_sampling sampling) {
    sampling.size = sizeof sampling;
    eb_error error;
    eb_sampler *sampler = NULL;
    CHECK(eb_sampler_open(host, VOCAB, &sampling, &sampler, &error) == EB_OK, "%s", error.text);
    return sampler;
}

/* How often each id comes in `n` draws. */
static void draw(const eb_host *host, eb_sampling sampling, const float *logits, int n, int *times) {
    eb_sampler *sampler = sampler_with(host, sampling);
    memset(times, 0, VOCAB * sizeof *times);
    for (int i = 0; i < n; i++) {
        const int32_t id = eb_sample(sampler, logits);
        CHECK(id >= 0 && id < VOCAB, "%d", id);
        times[id]++;
    }
    eb_sampler_close(sampler);
}

#define PLAIN .top_p = 1, .repetition_penalty = 1

static void check_sampler(const eb_host *host) {
    enum { DRAWS = 20000 };
    float logits[VOCAB];
    int times[VOCAB], again[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        logits[i] = -20;
    /* probabilities 0.4, 0.3, 0.2, 0.1 */
    logits[10] = logf(0.4f), logits[7] = logf(0.3f), logits[30] = logf(0.2f), logits[3] = logf(0.1f);

    draw(host, (eb_sampling){PLAIN, .temperature = 1, .seed = 42}, logits, DRAWS, times);
    CHECK(abs(times[10] - 8000) < 350 && abs(times[7] - 6000) < 350 && abs(times[30] - 4000) < 300 &&
              abs(times[3] - 2000) < 250,
          "%d %d %d %d", times[10], times[7], times[30], times[3]);
    draw(host, (eb_sampling){PLAIN, .temperature = 1, .seed = 42}, logits, DRAWS, again);
    CHECK(!memcmp(times, again, sizeof times), "the same seed gave other tokens");

    draw(host, (eb_sampling){PLAIN, .temperature = 1, .top_k = 2, .seed = 1}, logits, DRAWS, times);
    CHECK(times[10] + times[7] == DRAWS && abs(times[10] - DRAWS * 4 / 7) < 350, "top-k: %d %d", times[10], times[7]);
    draw(host, (eb_sampling){.temperature = 1, .top_p = 0.65f, .repetition_penalty = 1}, logits, DRAWS, times);
    CHECK(times[10] + times[7] == DRAWS, "top-p: %d %d", times[10], times[7]);
    draw(host, (eb_sampling){.temperature = 1, .top_p = 0.8f, .top_k = 3, .repetition_penalty = 1}, logits, DRAWS,
         times);
    CHECK(times[10] + times[7] + times[30] == DRAWS && times[30], "top-p after top-k: 0.4 + 0.3 of 0.9 is below 0.8");
    draw(host, (eb_sampling){.temperature = 1, .top_p = 0.77f, .top_k = 3, .repetition_penalty = 1}, logits, DRAWS,
         times);
    CHECK(times[10] + times[7] == DRAWS, "top-p after top-k: 0.4 + 0.3 of 0.9 is above 0.77");
    draw(host, (eb_sampling){PLAIN, .temperature = 1, .min_p = 0.45f}, logits, DRAWS, times);
    CHECK(times[10] + times[7] + times[30] == DRAWS && times[30], "min-p 0.45 of 0.4 keeps 0.2");
    draw(host, (eb_sampling){.temperature = 1, .top_p = 0, .repetition_penalty = 1}, logits, 100, times);
    CHECK(times[10] == 100, "top-p 0 keeps the best");
    draw(host, (eb_sampling){PLAIN, .temperature = 0.05f}, logits, DRAWS, times);
    CHECK(times[10] > DRAWS * 0.99, "a low temperature: %d", times[10]);

    logits[20] = logits[10];
    draw(host, (eb_sampling){PLAIN}, logits, 10, times);
    CHECK(times[10] == 10, "greedy takes the lowest of equals");

    /* The penalty: positive logits are divided, negative ones multiplied; only tokens of the window count. */
    eb_sampler *sampler =
        sampler_with(host, (eb_sampling){.top_p = 1, .repetition_penalty = 2, .repetition_window = 2});
    float few[VOCAB] = {5, 4, 3.5f, -1};
    for (int i = 4; i < VOCAB; i++)
        few[i] = -9;
    static const int32_t order[] = {0, 1, 2, 0, 1, 2};
    for (int i = 0; i < 6; i++) {
        const int32_t id = eb_sample(sampler, few);
        CHECK(id == order[i], "draw %d: %d, not %d", i, id, order[i]);
    }
    eb_sampler_close(sampler);

    for (int i = 0; i < VOCAB; i++)
        logits[i] = NAN;
    draw(host, (eb_sampling){PLAIN, .temperature = 1}, logits, 10, times);
    logits[4] = INFINITY;
    draw(host, (eb_sampling){PLAIN, .temperature = 1, .top_k = 5}, logits, 10, times);

    eb_error error;
    static const eb_sampling wrong[] = {{.size = 4},
                                        {.size = sizeof(eb_sampling), .temperature = -1, PLAIN},
                                        {.size = sizeof(eb_sampling), .temperature = NAN, PLAIN},
                                        {.size = sizeof(eb_sampling), .top_p = 1.5f, .repetition_penalty = 1},
                                        {.size = sizeof(eb_sampling), .top_p = 1, .repetition_penalty = 0},
                                        {.size = sizeof(eb_sampling), .min_p = -0.1f, PLAIN}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        CHECK(eb_sampler_open(host, VOCAB, &wrong[i], &sampler, &error) == EB_BAD_ARGUMENT, "wrong options %zu", i);
}

/* ---- drafts ---- */

static void check_lookup(void) {
    static const int32_t text[] = {1, 2, 3, 4, 5, 9, 2, 3, 4, 6, 9, 7, 3, 4, 8, 2, 3, 4};
    enum { N = sizeof text / sizeof text[0] };
    int32_t draft[8];
    uint32_t match;
    CHECK(eb_draft_lookup(text, N, draft, 3, &match) == 3 && match == 3, "match %u", match);
    CHECK(draft[0] == 6 && draft[1] == 9 && draft[2] == 7, "the latest of equally long matches: %d", draft[0]);
    static const int32_t longer[] = {7, 1, 2, 3, 4, 5, 8, 2, 3, 4, 6, 7, 1, 2, 3, 4};
    CHECK(eb_draft_lookup(longer, 16, draft, 1, &match) == 1 && match == 5 && draft[0] == 5, "the longest: %d",
          draft[0]);
    static const int32_t again[] = {5, 1, 2, 1, 2, 1};
    CHECK(eb_draft_lookup(again, 6, draft, 8, &match) == 8 && match == 3, "match %u", match);
    for (int i = 0; i < 8; i++)
        CHECK(draft[i] == (i % 2 ? 1 : 2), "past its end the text goes on as before: %d is %d", i, draft[i]);
    for (size_t n = 0; n < 6; n++)
        CHECK(eb_draft_lookup(text, n, draft, 8, &match) == 0 && match == 0, "%zu tokens repeat nothing", n);
    CHECK(eb_draft_lookup(text, 16, draft, 8, NULL) == 0, "one token that was there before is no match");
}

/* Tokens that each pass gives, if it costs pass_ns and more_ns for each further token; every `wrong`th draft fails. */
static double tokens_per_pass(uint32_t max, double more_ns, int wrong, uint64_t *drafted) {
    static const int32_t text[] = {1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4};
    eb_drafting drafting = {.size = sizeof drafting};
    CHECK(eb_drafting_init(&drafting, max) == EB_OK, "init");
    int32_t draft[EB_MAX_DRAFT];
    double tokens = 0, time = 0;
    for (int i = 0; i < 4000; i++) {
        const uint32_t n = eb_draft(&drafting, text, 12, draft, 64);
        CHECK(n <= max && (!n || draft[0] == 5), "a draft of %u of %u", n, max);
        const uint32_t accepted = wrong && i % wrong == 0 ? 0 : n;
        const double ns = 1e7 + more_ns * n;
        tokens += accepted + 1;
        time += ns / 1e7;
        eb_draft_record(&drafting, accepted, (uint64_t)ns);
    }
    *drafted = drafting.drafted;
    return tokens / time;
}

/* None before a pass was timed, then one, then as many as there are, up to the longest; fewer once they fail. */
static void check_forced_drafts(void) {
    eb_drafting drafting = {.size = sizeof drafting};
    CHECK(eb_drafting_init(&drafting, 4) == EB_OK, "init");
    const uint32_t asked[] = {9, 9, 9, 3, 0}, wanted[] = {0, 1, 4, 3, 0};
    for (int i = 0; i < 5; i++) {
        const uint32_t n = eb_draft_forced(&drafting, asked[i]);
        CHECK(n == wanted[i], "%u of %u forced tokens are drafted, not %u", n, asked[i], wanted[i]);
        eb_draft_record(&drafting, n, 10000000 + 1000000 * n);
    }
    CHECK(drafting.drafted == 8 && drafting.accepted == 8, "drafts are counted");
    for (int i = 0; i < 100; i++)
        eb_draft_record(&drafting, (eb_draft_forced(&drafting, 4), 0), 10000000);
    CHECK(eb_draft_forced(&drafting, 4) < 4, "what never comes true is drafted");
    CHECK(!eb_draft_forced(&(eb_drafting){.size = 3}, 4), "size");
}

static void check_drafting(void) {
    uint64_t drafted;
    double gain = tokens_per_pass(4, 1e6, 0, &drafted);
    CHECK(gain > 3.4 && drafted > 15000, "cheap drafts that come true: %.3f, %llu", gain, (unsigned long long)drafted);
    gain = tokens_per_pass(4, 1e6, 1, &drafted);
    CHECK(gain > 0.99 && drafted > 10, "none comes true: %.3f, %llu", gain, (unsigned long long)drafted);
    gain = tokens_per_pass(4, 1.2e7, 0, &drafted);
    CHECK(gain > 0.98 && drafted > 10, "tokens cost more than passes: %.3f, %llu", gain, (unsigned long long)drafted);
    gain = tokens_per_pass(4, 4e6, 3, &drafted);
    CHECK(gain > 1.05, "two of three come true: %.3f", gain);
    gain = tokens_per_pass(0, 1e6, 0, &drafted);
    CHECK(gain == 1 && !drafted, "no drafts: %.3f", gain);
    check_forced_drafts();
    eb_drafting wrong = {.size = 3};
    CHECK(eb_drafting_init(&wrong, 4) == EB_BAD_ARGUMENT, "size");
    wrong.size = sizeof wrong;
    CHECK(eb_drafting_init(&wrong, EB_MAX_DRAFT + 1) == EB_BAD_ARGUMENT, "too long");
}

/* ---- host table ---- */

static void check_host(const eb_host *host) {
    eb_error error;
    eb_host other = *host;
    other.size--;
    CHECK(eb_host_check(&other, &error) == EB_BAD_ARGUMENT, "size");
    other = *host;
    other.pthread_cond_wait = NULL;
    CHECK(eb_host_check(&other, &error) == EB_BAD_ARGUMENT, "a function is missing");
    other = *host;
    other.isa = "avx9000";
    CHECK(!eb_isa_pick(&other, &error) && strstr(error.text, "avx9000"), "%s", error.text);
    other.isa = "scalar";
    CHECK(!strcmp(eb_isa_pick(&other, &error), "scalar"), "a mask");
    CHECK(eb_alloc(host, SIZE_MAX / 2, 3) == NULL, "the product overflows");
}

int main(void) {
    const eb_host host = eb_posix_host(getenv("EDGEBIT_ISA"));
    check_memory();
    check_crc();
    check_texts();
    check_exp();
    check_rope();
    check_norm();
    check_quantise();
    check_gates();
    check_planes();
    check_f16();
    check_attention(EB_KV_F32, 2e-6f);
    check_attention(EB_KV_F16, 2e-6f);
    check_attention(EB_KV_I8, 2e-4f);
    CHECK(bits_seen == FLOAT_RESULTS, "%08x, not %08x: float results differ from other builds", (unsigned)bits_seen,
          (unsigned)FLOAT_RESULTS);
    check_threadpool(&host);
    check_resting(&host);
    check_lookup();
    check_drafting();
    check_sampler(&host);
    check_host(&host);
    printf(n_failed ? "%d checks failed\n" : "all checks hold\n", n_failed);
    return n_failed != 0;
}
