/* ops.c - norms, quantisation, RoPE and gates. */
#include "ops.h"
#include "vec4.h"

/* In double, where each square is exact, so that the mean is that of real numbers, rounded once: a float sum is off by
 * a unit or two of its last place, and a value that stands on a tie (58.5 of 127) then falls to the other side than in
 * the reference. See docs/decisions/norm-in-double.md. */
static double sum_of_squares(const float *x, size_t n) {
    double part[16] = {0};
    for (size_t i = 0; i < n; i += 16)
        for (int lane = 0; lane < 16; lane++) {
            const double v = (double)x[i + lane];
            part[lane] += v * v;
        }
    for (int width = 8; width; width /= 2)
        for (int lane = 0; lane < width; lane++)
            part[lane] += part[lane + width];
    return part[0];
}

void eb_rmsnorm(float *y, const float *x, const float *weight, size_t n, float eps) {
    const float mean = (float)(sum_of_squares(x, eb_round_up(n, 16)) / (double)n);
    const float inverse = 1.0f / __builtin_sqrtf(mean + eps);
    const eb_f4 inverse4 = eb_f4_splat(inverse);
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        eb_f4_store(y + i, eb_f4_load(weight + i) * (eb_f4_load(x + i) * inverse4));
    for (; i < n; i++)
        y[i] = weight[i] * (x[i] * inverse);
    for (; i < eb_round_up(n, 64); i++)
        y[i] = 0;
}

static float absmax(const float *x, size_t n) {
    eb_f4 most = {0};
    for (size_t i = 0; i < n; i += 4)
        most = eb_f4_max(eb_f4_abs(eb_f4_load(x + i)), most);
    return eb_f4_highest(most);
}

/* round_half_even(x * factor) in [low, high]; `low` for what is not a number */
static inline eb_i4 quantised(const float *x, eb_f4 factor, float low, float high) {
    eb_f4 v = eb_f4_load(x) * factor;
    v = eb_f4_max(v, eb_f4_splat(low));
    v = eb_f4_min(v, eb_f4_splat(high));
    return __builtin_convertvector(eb_f4_round(v), eb_i4);
}

void eb_quantise_i8(int8_t *q, float *scale, int32_t *sum, const float *x, size_t n) {
    const size_t padded = eb_round_up(n, 64);
    float most = absmax(x, padded);
    if (!(most > 1e-5f))
        most = 1e-5f;
    const eb_f4 factor = eb_f4_splat(127.0f / most);
    eb_i4 total = {0};
    for (size_t i = 0; i < padded; i += 4) {
        const eb_i4 v = quantised(x + i, factor, -128.0f, 127.0f);
        total += v;
        for (int j = 0; j < 4; j++)
            q[i + j] = (int8_t)v[j];
    }
    *scale = most / 127.0f;
    *sum = total[0] + total[1] + total[2] + total[3];
}

void eb_quantise_i15(int8_t *hi, int8_t *lo, float *scale, const float *x, size_t n) {
    const size_t padded = eb_round_up(n, 64);
    float most = absmax(x, padded);
    if (!(most > 1e-20f)) /* a vector of zeros: any scale will do */
        most = 1e-20f;
    const eb_f4 factor = eb_f4_splat(16256.0f / most);
    for (size_t i = 0; i < padded; i += 4) {
        const eb_i4 v = quantised(x + i, factor, -16256.0f, 16256.0f);
        for (int j = 0; j < 4; j++) {
            const int32_t high = (v[j] + 64) >> 7;
            hi[i + j] = (int8_t)high;
            lo[i + j] = (int8_t)(v[j] - 128 * high);
        }
    }
    *scale = most / 16256.0f;
}

void eb_scale_dots(float *y, const int32_t *dot, float scale, const float *scales, int by_row, size_t n, int add) {
    if (!by_row)
        scale *= scales[0];
    for (size_t i = 0; i < n; i++) {
        const float value = (float)dot[i] * (by_row ? scale * scales[i] : scale);
        y[i] = add ? y[i] + value : value;
    }
}

/* sin and cos of a double of at most 2^24 in magnitude, to about 1e-15: reduction by pi/2 in three parts, the first two
 * of which have 29 bits, so that their products with the quotient are exact; then Taylor series to the 17th power. */
static void sin_cos(double angle, double *sine, double *cosine) {
    const double half_pi_1 = 0x1.921fb54p+0, half_pi_2 = 0x1.10b4611p-30, half_pi_3 = 0x1.4c4c6628b80dcp-59;
    const double big = 6755399441055744.0; /* 1.5 * 2^52 */
    const double quotient = (angle * 0x1.45f306dc9c883p-1 + big) - big;
    const double r = ((angle - quotient * half_pi_1) - quotient * half_pi_2) - quotient * half_pi_3;
    const double z = r * r;
    const double s =
        r * (1 + z * (-1.0 / 6 +
                      z * (1.0 / 120 +
                           z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800 +
                                                                       z * (1.0 / 6227020800.0 +
                                                                            z * (-1.0 / 1307674368000.0 +
                                                                                 z * (1.0 / 355687428096000.0)))))))));
    const double c =
        1 + z * (-1.0 / 2 +
                 z * (1.0 / 24 +
                      z * (-1.0 / 720 +
                           z * (1.0 / 40320 +
                                z * (-1.0 / 3628800 + z * (1.0 / 479001600 + z * (-1.0 / 87178291200.0 +
                                                                                  z * (1.0 / 20922789888000.0))))))));
    switch ((int64_t)quotient & 3) {
    case 0:
        *sine = s, *cosine = c;
        break;
    case 1:
        *sine = c, *cosine = -s;
        break;
    case 2:
        *sine = -s, *cosine = -c;
        break;
    default:
        *sine = -c, *cosine = s;
    }
}

void eb_rope_angles(float *cosines, float *sines, const float *inv_freq, uint32_t position, size_t half) {
    for (size_t i = 0; i < half; i++) {
        const float angle = (float)position * inv_freq[i]; /* the model file's check: inv_freq is 0 to 1 */
        double sine, cosine;
        sin_cos(angle, &sine, &cosine);
        sines[i] = (float)sine;
        cosines[i] = (float)cosine;
    }
}

void eb_rope_rotate(float *restrict y, const float *restrict x, const float *cosines, const float *sines, size_t half) {
    for (size_t i = 0; i < half; i++) {
        y[i] = x[i] * cosines[i] - x[half + i] * sines[i];
        y[half + i] = x[half + i] * cosines[i] + x[i] * sines[i];
    }
}

void eb_gate_relu2(float *f, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float positive = gate[i] > 0 ? gate[i] : 0;
        f[i] = positive * positive * up[i];
    }
}

static inline eb_f4 silu4(eb_f4 x) { return x / (eb_f4_splat(1.0f) + eb_f4_exp(-x)); }

void eb_gate_silu(float *f, const float *gate, const float *up, size_t n) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        eb_f4_store(f + i, silu4(eb_f4_load(gate + i)) * eb_f4_load(up + i));
    for (; i < n; i++)
        f[i] = silu4(eb_f4_splat(gate[i]))[0] * up[i];
}

/* 2^n * e^r with n = round(a / ln 2), ln 2 in two parts so that r is nearly exact, and a polynomial for e^r on
 * |r| <= ln 2 / 2 (Taylor to r^7: the first term left out is below 6e-9 relative). */
eb_f4 eb_f4_exp(eb_f4 a) {
    const eb_i4 in_range = a >= eb_f4_splat(-87.0f);
    const eb_f4 x = eb_f4_min(eb_f4_max(a, eb_f4_splat(-87.0f)), eb_f4_splat(88.0f));
    const eb_f4 n = eb_f4_round(x * eb_f4_splat(1.44269504088896341f));
    const eb_f4 r = (x - n * eb_f4_splat(0.693359375f)) - n * eb_f4_splat(-2.12194440e-4f);
    eb_f4 p = eb_f4_splat(1.0f / 5040);
    p = p * r + eb_f4_splat(1.0f / 720);
    p = p * r + eb_f4_splat(1.0f / 120);
    p = p * r + eb_f4_splat(1.0f / 24);
    p = p * r + eb_f4_splat(1.0f / 6);
    p = p * r + eb_f4_splat(0.5f);
    p = p * r * r + r + eb_f4_splat(1.0f);
    const eb_i4 bias = {127, 127, 127, 127};
    const eb_i4 power = (__builtin_convertvector(n, eb_i4) + bias) << 23;
    return (eb_f4)((eb_i4)(p * (eb_f4)power) & in_range);
}
