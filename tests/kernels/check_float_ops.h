/* check_float_ops.h - the checks of check_ukernels.c for the float operations and attention: equal bits to the scalar
 * variant's. `rows` and `k` only say how odd a shape is; values are as `how` says, finite where a sum is computed. */
#include "kv_cache.h"
#include "ops.h"

#include <math.h>
#include <string.h>

enum { MAX_FLOATS = 16384 + 64, BYTES_GUARD = 0xa5 };

/* Where both variants write: [0] the scalar one. Filled alike before, so that what is not written is compared as well. */
static unsigned char outputs[2][4 * MAX_FLOATS + 1024];

static size_t outputs_used; /* bytes that are compared */

static void clear_outputs(size_t used) {
    outputs_used = used + 256;
    memset(outputs[0], BYTES_GUARD, outputs_used), memset(outputs[1], BYTES_GUARD, outputs_used);
}

static int same_outputs(const char *name, uint64_t seed, fill how, size_t rows, size_t k) {
    for (size_t i = 0; i < outputs_used; i++)
        if (outputs[0][i] != outputs[1][i])
            return fail(name, seed, (int)how, rows, k, i, outputs[1][i], outputs[0][i]);
    return 0;
}

static float random_float(fill how) {
    const float x = (float)((int32_t)(next_random() & 0xffffff) - 0x800000) / 1048576.0f; /* -8 to 8 */
    static const float special[] = {0.0f, -0.0f, 1e-45f, -1e-39f, 0.5f, 1.5f, -2.5f, 127.0f, -127.0f, 6e-5f, 3e-8f};
    if (how == HIGHEST)
        return x * 1e15f;
    if (how == LOWEST)
        return x * 1e-38f;
    return how == MIXED && next_random() % 4 == 0 ? special[next_random() % 11] : x;
}

/* With what only a hostile file can bring about. */
static float hostile_float(fill how) {
    static const float special[] = {NAN, INFINITY, -INFINITY, 65504.0f, 65519.0f, 65520.0f, -65536.0f, 3e38f};
    return how == MIXED && next_random() % 8 == 0 ? special[next_random() % 8] : random_float(how);
}

/* x [n], filled up to a multiple of 64 with zeros, and nothing behind that. */
static float *new_floats(size_t n, float (*random)(fill how), fill how) {
    float *x = malloc(eb_round_up(n, 64) * sizeof *x);
    for (size_t i = 0; i < eb_round_up(n, 64); i++)
        x[i] = i < n ? random(how) : 0;
    return x;
}

static int check_rmsnorm(const char *name, eb_rmsnorm_fn *kernel, uint64_t seed, fill how, size_t rows, size_t k) {
    const size_t n = k - rows;
    float *x = new_floats(n, random_float, how), *weight = malloc(n * sizeof *weight);
    for (size_t i = 0; i < n; i++)
        weight[i] = random_float(RANDOM);
    clear_outputs(4 * k);
    eb_rmsnorm_scalar((float *)outputs[0], x, weight, n, 1e-5f);
    kernel((float *)outputs[1], x, weight, n, 1e-5f);
    free(x), free(weight);
    return same_outputs(name, seed, how, rows, k);
}

static int check_quantise_i8(const char *name, eb_quantise_i8_fn *kernel, uint64_t seed, fill how, size_t rows,
                             size_t k) {
    const size_t n = k - rows;
    float *x = new_floats(n, hostile_float, how);
    clear_outputs(4 * k);
    eb_quantise_i8_fn *const kernels[2] = {eb_quantise_i8_scalar, kernel};
    for (int i = 0; i < 2; i++)
        kernels[i]((int8_t *)outputs[i] + 64, (float *)outputs[i], (int32_t *)outputs[i] + 1, x, n);
    free(x);
    return same_outputs(name, seed, how, rows, k);
}

static int check_quantise_i15(const char *name, eb_quantise_i15_fn *kernel, uint64_t seed, fill how, size_t rows,
                              size_t k) {
    const size_t n = k - rows;
    float *x = new_floats(n, hostile_float, how);
    clear_outputs(4 * k);
    eb_quantise_i15_fn *const kernels[2] = {eb_quantise_i15_scalar, kernel};
    for (int i = 0; i < 2; i++) {
        int8_t *bytes = (int8_t *)outputs[i] + 64;
        kernels[i](bytes, bytes + k, (float *)outputs[i], x, n);
    }
    free(x);
    return same_outputs(name, seed, how, rows, k);
}

static int check_quantise_kv(const char *name, eb_quantise_kv_fn *kernel, uint64_t seed, fill how, size_t rows,
                             size_t k) {
    const size_t n = k - rows / 4 % 4 * 16;
    float *x = new_floats(n, hostile_float, how);
    clear_outputs(4 * k);
    eb_quantise_kv_scalar((int8_t *)outputs[0] + 64, (float *)outputs[0], x, n);
    kernel((int8_t *)outputs[1] + 64, (float *)outputs[1], x, n);
    free(x);
    return same_outputs(name, seed, how, rows, k);
}

static int check_round_f16(const char *name, eb_round_f16_fn *kernel, uint64_t seed, fill how, size_t rows, size_t k) {
    const size_t n = k - rows / 4 % 4 * 16;
    float *x = new_floats(n, hostile_float, how);
    clear_outputs(4 * k);
    eb_round_f16_scalar((uint16_t *)outputs[0], x, n);
    kernel((uint16_t *)outputs[1], x, n);
    free(x);
    return same_outputs(name, seed, how, rows, k);
}

static int32_t random_dot(fill how) {
    if (how == HIGHEST || how == LOWEST)
        return how == HIGHEST ? INT32_MAX : INT32_MIN;
    return (int32_t)(next_random() << 1) >> (how == MIXED ? next_random() % 31 : 0);
}

/* Room for the dots of one projection, to the last number; with two planes or one. */
static eb_scaled_dots new_dots(size_t n, size_t n_tokens, int by_row, int planes, fill how) {
    const size_t stride = n + 3, n_dots = (n_tokens - 1) * stride + n, n_scales = by_row ? n : 1;
    int32_t *dots = malloc(n_dots * sizeof *dots), *lo = planes > 1 ? malloc(n_dots * sizeof *lo) : NULL;
    float *scales = malloc(n_scales * sizeof *scales);
    for (size_t i = 0; i < n_dots; i++) {
        dots[i] = random_dot(how);
        if (lo)
            lo[i] = random_dot(how);
    }
    for (size_t i = 0; i < n_scales; i++)
        scales[i] = random_float(RANDOM) * 1e-7f;
    return (eb_scaled_dots){dots, stride, scales, by_row, lo};
}

static void free_dots(eb_scaled_dots of) { free((void *)of.dots), free((void *)of.scales), free((void *)of.lo); }

static int check_scale_dots(const char *name, eb_scale_dots_fn *kernel, uint64_t seed, fill how, size_t rows,
                            size_t k) {
    const size_t n_tokens = 1 + rows / 4 % 3, n = (k - rows) / n_tokens - 5, y_stride = n + 5;
    const eb_scaled_dots of = new_dots(n, n_tokens, (int)(k / 64 & 1), 1 + (int)(k / 256 & 1), how);
    const float scales[3] = {0.37f, 1.0f, 3.3f};
    eb_scale_dots_fn *const kernels[2] = {eb_scale_dots_scalar, kernel};
    clear_outputs(4 * k);
    for (size_t i = 0; i < n_tokens * y_stride; i++)
        ((float *)outputs[0])[i] = ((float *)outputs[1])[i] = random_float(RANDOM);
    for (int i = 0; i < 2; i++)
        kernels[i]((float *)outputs[i], y_stride, &of, scales, n, n_tokens, (int)(k / 128 & 1));
    free_dots(of);
    return same_outputs(name, seed, how, rows, k);
}

static int check_gate_dots(const char *name, eb_gate_dots_fn *kernel, uint64_t seed, fill how, size_t rows, size_t k) {
    const size_t n_tokens = 1 + rows / 4 % 3, n = (k - rows) / n_tokens - 5;
    const eb_scaled_dots gate = new_dots(n, n_tokens, (int)(k / 64 & 1), 1, how);
    const eb_scaled_dots up = new_dots(n, n_tokens, (int)(k / 128 & 1), 1, RANDOM);
    const float scales[3] = {0.37f, 1.0f, 3.3f};
    eb_gate_dots_fn *const kernels[2] = {eb_gate_dots_scalar, kernel};
    clear_outputs(4 * k);
    for (int i = 0; i < 2; i++)
        kernels[i]((float *)outputs[i], n + 5, &gate, &up, scales, n, n_tokens, (int)(k / 256 & 1));
    free_dots(gate), free_dots(up);
    return same_outputs(name, seed, how, rows, k);
}

static int check_gate_values(const char *name, eb_gate_values_fn *kernel, uint64_t seed, fill how, size_t rows,
                             size_t k) {
    const size_t n = k - rows;
    float *gate = malloc(n * sizeof *gate), *up = malloc(n * sizeof *up);
    for (size_t i = 0; i < n; i++)
        gate[i] = random_float(how), up[i] = random_float(RANDOM);
    clear_outputs(4 * k);
    eb_gate_values_scalar((float *)outputs[0], gate, up, n, (int)(k / 64 & 1));
    kernel((float *)outputs[1], gate, up, n, (int)(k / 64 & 1));
    free(gate), free(up);
    return same_outputs(name, seed, how, rows, k);
}

static int check_rope_rotate(const char *name, eb_rope_rotate_fn *kernel, uint64_t seed, fill how, size_t rows,
                             size_t k) {
    const size_t half = k / 2 - rows;
    float *x = malloc(2 * half * sizeof *x), *cosines = malloc(half * sizeof *x), *sines = malloc(half * sizeof *x);
    for (size_t i = 0; i < half; i++) {
        x[i] = random_float(how), x[half + i] = random_float(how);
        cosines[i] = random_float(RANDOM), sines[i] = random_float(RANDOM);
    }
    clear_outputs(4 * k);
    eb_rope_rotate_scalar((float *)outputs[0], x, cosines, sines, half);
    kernel((float *)outputs[1], x, cosines, sines, half);
    free(x), free(cosines), free(sines);
    return same_outputs(name, seed, how, rows, k);
}

static int check_merge_attention(const char *name, eb_merge_attention_fn *kernel, uint64_t seed, fill how, size_t rows,
                                 size_t k) {
    const size_t n = k - rows / 4 % 4 * 16;
    float *into = new_floats(n, random_float, how), *part = new_floats(n, random_float, how);
    const eb_softmax of_into = {random_float(RANDOM), 3.0f},
                     of_part = {how == MIXED ? 200.0f : random_float(RANDOM), 5};
    clear_outputs(4 * k);
    eb_merge_attention_fn *const kernels[2] = {eb_merge_attention_scalar, kernel};
    for (int i = 0; i < 2; i++) {
        memcpy(outputs[i], &of_into, sizeof of_into), memcpy(outputs[i] + 64, into, n * sizeof *into);
        kernels[i]((eb_softmax *)outputs[i], (float *)outputs[i] + 16, &of_part, part, n);
    }
    free(into), free(part);
    return same_outputs(name, seed, how, rows, k);
}

/* ---- attention ---- */

/* Everything random: head sizes, heads of a token, tokens, positions; what nobody sees is not a number. */
static int check_attend(const char *name, eb_attend_f16_fn *kernel, eb_attend_f16_fn *scalar, eb_kv_type type,
                        uint64_t seed, fill how, size_t rows, size_t k) {
    if ((rows + k / 64) % 4)
        return 0; /* enough of them */
    static const size_t dims[] = {2, 6, 10, 16, 20, 34, 64, 80, 128, 200}, head_counts[] = {1, 2, 3, 4, 5, 8, 32};
    const size_t head_dim = dims[next_random() % 10], heads = head_counts[next_random() % 7];
    const size_t tokens = 1 + next_random() % (EB_ATTEND_ROWS / heads), n_rows = tokens * heads;
    const size_t more = next_random() % 4 != 0;
    const size_t count = more ? 1 + next_random() % (EB_SEGMENT - tokens) : EB_SEGMENT,
                 most = count + more * (tokens - 1);
    const eb_ukernels kernels = eb_dispatch(0);
    eb_kv_cache kv;
    eb_kv_cache_plan(&kv, type, head_dim, EB_SEGMENT);
    const size_t stride = kv.layout.stride;
    unsigned char *groups = malloc(eb_round_up(most, EB_KV_GROUP) / EB_KV_GROUP * kv.layout.group_bytes);
    memset(groups, 0xff, eb_round_up(most, EB_KV_GROUP) / EB_KV_GROUP * kv.layout.group_bytes);
    float *q = malloc(n_rows * stride * sizeof *q), *scores = malloc(n_rows * EB_SEGMENT * sizeof *scores);
    int16_t *q15 = malloc(n_rows * 2 * stride * sizeof *q15);
    float key[256], value[256];
    for (size_t i = 0; i < n_rows * stride; i++)
        q[i] = i % stride < head_dim ? random_float(how == HIGHEST ? RANDOM : how) : 0;
    for (size_t t = 0; t < most; t++) {
        for (size_t d = 0; d < stride; d++) {
            key[d] = d < head_dim ? random_float(how) : 0;
            value[d] = d < head_dim ? random_float(how) : 0;
        }
        eb_kv_store(&kv, &kernels, groups, t, key, value);
    }
    clear_outputs((2 * EB_ATTEND_ROWS + n_rows * stride) * sizeof(float));
    for (int i = 0; i < 2; i++) {
        const eb_attend a = {kv.layout,
                             groups,
                             q,
                             n_rows,
                             heads,
                             count,
                             more,
                             (eb_softmax *)outputs[i],
                             (float *)outputs[i] + 2 * EB_ATTEND_ROWS,
                             scores,
                             q15};
        (i ? kernel : scalar)(&a);
    }
    free(groups), free(q), free(scores), free(q15);
    for (size_t i = 0; i < 2 * n_rows + n_rows * stride; i++) /* in words that say more */
        if (isnan(((float *)outputs[0])[i < 2 * n_rows ? i : i - 2 * n_rows + 2 * EB_ATTEND_ROWS]))
            return fail("the scalar variant gives what is not a number", seed, (int)how, rows, k, i, 0, 0);
    return same_outputs(name, seed, how, rows, k);
}

static int check_attend_f16(const char *name, eb_attend_f16_fn *kernel, uint64_t seed, fill how, size_t rows,
                            size_t k) {
    return check_attend(name, kernel, eb_attend_f16_scalar, EB_KV_F16, seed, how, rows, k);
}

static int check_attend_i8(const char *name, eb_attend_i8_fn *kernel, uint64_t seed, fill how, size_t rows, size_t k) {
    return check_attend(name, kernel, eb_attend_i8_scalar, EB_KV_I8, seed, how, rows, k);
}

static int check_attend_f32(const char *name, eb_attend_f32_fn *kernel, uint64_t seed, fill how, size_t rows,
                            size_t k) {
    return check_attend(name, kernel, eb_attend_f32_scalar, EB_KV_F32, seed, how, rows, k);
}
