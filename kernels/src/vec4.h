/* vec4.h - four floats at once, in the vector extension of gcc and clang: SSE2 on x86-64, NEON on AArch64, the same
 * bits on both. Only operations that IEEE 754 defines to the last bit are used, none fused.
 *
 * Sums over a vector have one order everywhere: 16 partial sums, number i of elements i, i + 16, i + 32, ..., and then
 * a tree (i with i + 8, then 4, 2, 1). */
#ifndef EB_VEC4_H
#define EB_VEC4_H

#include "mem.h"

typedef float eb_f4 __attribute__((vector_size(16)));
typedef int32_t eb_i4 __attribute__((vector_size(16)));

static inline eb_f4 eb_f4_load(const float *from) {
    eb_f4 value;
    eb_memcpy(&value, from, sizeof value);
    return value;
}

static inline void eb_f4_store(float *to, eb_f4 value) { eb_memcpy(to, &value, sizeof value); }
static inline eb_f4 eb_f4_splat(float value) { return (eb_f4){value, value, value, value}; }

/* a where the mask's lane is all ones (the result of a comparison), else b */
static inline eb_f4 eb_f4_select(eb_i4 mask, eb_f4 a, eb_f4 b) {
    return (eb_f4)(((eb_i4)a & mask) | ((eb_i4)b & ~mask));
}

/* The larger one; b where a is not a number. */
static inline eb_f4 eb_f4_max(eb_f4 a, eb_f4 b) { return eb_f4_select(a > b, a, b); }
static inline eb_f4 eb_f4_min(eb_f4 a, eb_f4 b) { return eb_f4_select(a < b, a, b); }
static inline eb_f4 eb_f4_abs(eb_f4 a) {
    return (eb_f4)((eb_i4)a & (eb_i4){INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX});
}

/* Sixteen partial sums and their tree. */
typedef struct eb_sum16 {
    eb_f4 part[4];
} eb_sum16;

static inline float eb_sum16_total(const eb_sum16 *sum) {
    const eb_f4 four = (sum->part[0] + sum->part[2]) + (sum->part[1] + sum->part[3]);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

/* The largest lane. */
static inline float eb_f4_highest(eb_f4 a) {
    const float x = a[0] > a[1] ? a[0] : a[1], y = a[2] > a[3] ? a[2] : a[3];
    return x > y ? x : y;
}

/* Nearest integer, halves to even, for |a| below 2^22. */
static inline eb_f4 eb_f4_round(eb_f4 a) {
    const eb_f4 big = eb_f4_splat(12582912.0f); /* 1.5 * 2^23: no bits are left behind the point */
    return (a + big) - big;
}

/* e^a within two units in the last place, for -87 to 88; 0 below and for what is not a number; e^88 above. */
eb_f4 eb_f4_exp(eb_f4 a);

#endif
