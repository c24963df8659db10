/* floats.c - 16-bit floats by integer operations, so that no helper of a compiler's library is called. */
#include "floats.h"
#include "mem.h"

static uint32_t bits_of(float x) {
    uint32_t bits;
    eb_memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits) {
    float x;
    eb_memcpy(&x, &bits, sizeof x);
    return x;
}

/* The exponent's bias grows by 112: a product that is exact for subnormals too. Exponent 31 is infinity, or not a number. */
static float of_f16(uint16_t half) {
    const uint32_t magnitude = half & 0x7fffu, sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t special = magnitude >= 0x7c00 ? 0x7f800000u : 0;
    return float_of(bits_of(float_of(magnitude << 13) * 0x1p112f) | special | sign);
}

static uint16_t to_f16(float x) {
    const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23)) >> 13;
    const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - (126u << 23); /* its last bit is worth 2^-24 */
    const uint32_t finite = magnitude >= 0x38800000u ? normal : subnormal;         /* 2^-14 and more */
    const uint32_t above = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u; /* 65,520 and more, or not a number */
    return (uint16_t)(sign | (magnitude < 0x477ff000u ? finite : above));
}

static uint16_t to_bf16(float x) {
    const uint32_t bits = bits_of(x), rounded = bits + 0x7fff + (bits >> 16 & 1);
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40 : rounded >> 16);
}

size_t eb_float_size(eb_float_kind kind) { return kind == EB_FLOAT32 ? 4 : 2; }

void eb_floats_load(float *y, const void *x, eb_float_kind kind, size_t n) {
    const char *half = x;
    if (kind == EB_FLOAT32)
        eb_memcpy(y, x, n * sizeof *y);
    else if (kind == EB_FLOAT16)
        for (size_t i = 0; i < n; i++)
            y[i] = of_f16(eb_load_u16(half + 2 * i));
    else
        for (size_t i = 0; i < n; i++)
            y[i] = float_of((uint32_t)eb_load_u16(half + 2 * i) << 16);
}

void eb_floats_store(void *y, eb_float_kind kind, const float *x, size_t n) {
    uint16_t *half = y;
    if (kind == EB_FLOAT32)
        eb_memcpy(y, x, n * sizeof *x);
    else if (kind == EB_FLOAT16)
        for (size_t i = 0; i < n; i++)
            half[i] = to_f16(x[i]);
    else
        for (size_t i = 0; i < n; i++)
            half[i] = to_bf16(x[i]);
}
