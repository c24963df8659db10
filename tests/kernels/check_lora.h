/* check_lora.h - the checks of check_ukernels.c for low-rank side paths: equal bits to the scalar variant's, and the scalar
 * variant's to the order of additions that ukernel.h promises, written out in plain C. */

/* Finite halves of any kind: normal, subnormal, the largest, zeros of both signs. */
static uint16_t random_half(fill how) {
    static const uint16_t special[] = {0, 0x8000, 1, 0x83ff, 0x0400, 0x7bff, 0xfbff, 0x3c00};
    if (how == MIXED && next_random() % 4 == 0)
        return special[next_random() % 8];
    if (how == HIGHEST || how == LOWEST)
        return how == HIGHEST ? 0x7bff : (uint16_t)(next_random() & 0x83ff);
    const uint16_t half = (uint16_t)next_random();
    return (half & 0x7c00) == 0x7c00 ? half & 0xbfff : half;
}

static float value_of_half(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 0x3ff;
    const float size = exponent ? ldexpf(1024 + (float)fraction, exponent - 25) : ldexpf((float)fraction, -24);
    return half & 0x8000 ? -size : size;
}

/* [n] values of one or two bytes, and their scales where they have one byte: [n_scales]. */
typedef struct lora_values {
    void *values;
    float *scales;
    int is_i8;
} lora_values;

static lora_values new_lora_values(size_t n, size_t n_scales, int is_i8, fill how) {
    lora_values of = {malloc(n * (is_i8 ? 1 : 2)), is_i8 ? malloc(n_scales * sizeof(float)) : NULL, is_i8};
    for (size_t i = 0; i < n; i++)
        if (is_i8)
            ((int8_t *)of.values)[i] = how == HIGHEST ? 127 : how == LOWEST ? -127 : (int8_t)next_random();
        else
            ((uint16_t *)of.values)[i] = random_half(how);
    for (size_t i = 0; is_i8 && i < n_scales; i++)
        of.scales[i] = random_float(RANDOM) * 1e-3f;
    return of;
}

static float lora_value(const lora_values *of, size_t i) {
    return of->is_i8 ? (float)((const int8_t *)of->values)[i] : value_of_half(((const uint16_t *)of->values)[i]);
}

static int check_lora_a(const char *name, eb_lora_a_f16_fn *scalar, eb_lora_a_f16_fn *kernel, int is_i8, uint64_t seed,
                        fill how, size_t rows, size_t k) {
    const size_t n = rows / 4 + 2, columns = k - rows, stride = eb_round_up(columns, 16);
    const lora_values a = new_lora_values(n * stride, n, is_i8, how);
    float *x = new_floats(columns, random_float, how == HIGHEST ? RANDOM : how);
    clear_outputs(4 * n);
    scalar((float *)outputs[0], a.values, a.scales, x, n, columns);
    kernel((float *)outputs[1], a.values, a.scales, x, n, columns);
    int failed = same_outputs(name, seed, how, rows, k);
    for (size_t j = 0; j < n; j++) {
        float part[16] = {0};
        for (size_t i = 0; i < stride; i++)
            part[i % 16] += lora_value(&a, j * stride + i) * x[i];
        for (int width = 8; width; width /= 2)
            for (int i = 0; i < width; i++)
                part[i] += part[i + width];
        const float wanted_sum = is_i8 ? part[0] * a.scales[j] : part[0];
        if (memcmp(&wanted_sum, (float *)outputs[0] + j, sizeof wanted_sum))
            failed |= fail("the order of lora_a", seed, (int)how, rows, k, j, 0, 1);
    }
    free(a.values), free(a.scales), free(x);
    return failed;
}

static int check_lora_b(const char *name, eb_lora_b_f16_fn *scalar, eb_lora_b_f16_fn *kernel, int is_i8, uint64_t seed,
                        fill how, size_t rows, size_t k) {
    const size_t rank = rows / 2 - 1, n = k / 4 - rows / 4;
    const float scale = 0.37f;
    const lora_values b = new_lora_values(eb_round_up(n, 16) * rank, n, is_i8, how);
    float *x = malloc(rank * sizeof *x), *y = malloc(n * sizeof *y);
    for (size_t j = 0; j < rank; j++)
        x[j] = random_float(how == HIGHEST ? RANDOM : how);
    for (size_t i = 0; i < n; i++)
        y[i] = random_float(RANDOM);
    clear_outputs(4 * n);
    memcpy(outputs[0], y, n * sizeof *y), memcpy(outputs[1], y, n * sizeof *y);
    scalar((float *)outputs[0], b.values, b.scales, scale, x, n, rank);
    kernel((float *)outputs[1], b.values, b.scales, scale, x, n, rank);
    int failed = same_outputs(name, seed, how, rows, k);
    for (size_t i = 0; i < n; i++) {
        float sum = 0;
        for (size_t j = 0; j < rank; j++)
            sum += lora_value(&b, (i / 16 * rank + j) * 16 + i % 16) * x[j];
        const float wanted_y = y[i] + (is_i8 ? sum * (b.scales[i] * scale) : sum * scale);
        if (memcmp(&wanted_y, (float *)outputs[0] + i, sizeof wanted_y))
            failed |= fail("the order of lora_b", seed, (int)how, rows, k, i, 0, 1);
    }
    free(b.values), free(b.scales), free(x), free(y);
    return failed;
}

#define CHECK_LORA(op, side, is_i8)                                                                                    \
    static int check_##op(const char *name, eb_##op##_fn *kernel, uint64_t seed, fill how, size_t rows, size_t k) {    \
        return check_lora_##side(name, eb_##op##_scalar, kernel, is_i8, seed, how, rows, k);                           \
    }
CHECK_LORA(lora_a_f16, a, 0)
CHECK_LORA(lora_a_i8, a, 1)
CHECK_LORA(lora_b_f16, b, 0)
CHECK_LORA(lora_b_i8, b, 1)
