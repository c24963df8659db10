/* ops.c - the angles of RoPE. */
#include "ops.h"

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
