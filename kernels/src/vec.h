/* vec.h - several floats at once, in the vector extension of gcc and clang, the same bits at every width.
 *
 * EB_LANES, 4 unless set before this is included, is how many: 4 for SSE2 and NEON, 8 for AVX2, 16 for AVX-512. Only
 * operations that IEEE 754 defines to the last bit are used, none fused; intrinsics stand in where a compiler makes
 * poor code of the plain form, and compute the same.
 *
 * Sums over a vector have one order everywhere: 16 partial sums, number i of elements i, i + 16, i + 32, ..., and then
 * a tree (i with i + 8, then 4, 2, 1). */
#ifndef EB_VEC_H
#define EB_VEC_H

#include "mem.h"

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

#ifndef EB_LANES
#define EB_LANES 4
#endif

/* Files of an ISA level must not leave a function behind that another level might run: all of theirs are inlined. */
#define EB_INLINE static inline __attribute__((always_inline))

enum { EB_VECTORS = 16 / EB_LANES }; /* that 16 floats take */

typedef float eb_vf __attribute__((vector_size(4 * EB_LANES)));
typedef int32_t eb_vi __attribute__((vector_size(4 * EB_LANES)));
typedef uint32_t eb_vu __attribute__((vector_size(4 * EB_LANES)));

EB_INLINE eb_vf eb_v_load(const float *from) {
    eb_vf value;
    eb_memcpy(&value, from, sizeof value);
    return value;
}

EB_INLINE void eb_v_store(float *to, eb_vf value) { eb_memcpy(to, &value, sizeof value); }

/* The first n lanes, at least one; the rest is zero, and nothing beyond is read or written. */
EB_INLINE eb_vf eb_v_load_n(const float *from, size_t n) {
    if (n >= EB_LANES)
        return eb_v_load(from);
#if EB_LANES == 16
    return (eb_vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), from);
#else
    float lane[EB_LANES] = {0};
    for (size_t i = 0; i < n; i++)
        lane[i] = from[i];
    return eb_v_load(lane);
#endif
}

EB_INLINE void eb_v_store_n(float *to, eb_vf value, size_t n) {
    if (n >= EB_LANES) {
        eb_v_store(to, value);
        return;
    }
#if EB_LANES == 16
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << n) - 1), (__m512)value);
#else
    float lane[EB_LANES];
    eb_v_store(lane, value);
    for (size_t i = 0; i < n; i++)
        to[i] = lane[i];
#endif
}

EB_INLINE eb_vi eb_vi_load(const int32_t *from) {
    eb_vi value;
    eb_memcpy(&value, from, sizeof value);
    return value;
}

EB_INLINE eb_vi eb_vi_load_n(const int32_t *from, size_t n) {
    if (n >= EB_LANES)
        return eb_vi_load(from);
#if EB_LANES == 16
    return (eb_vi)_mm512_maskz_loadu_epi32((__mmask16)((1u << n) - 1), from);
#else
    int32_t lane[EB_LANES] = {0};
    for (size_t i = 0; i < n; i++)
        lane[i] = from[i];
    return eb_vi_load(lane);
#endif
}

EB_INLINE eb_vf eb_v_splat(float x) {
#if EB_LANES == 16
    return (eb_vf){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x};
#elif EB_LANES == 8
    return (eb_vf){x, x, x, x, x, x, x, x};
#else
    return (eb_vf){x, x, x, x};
#endif
}

/* a where the mask's lane is all ones (the result of a comparison), else b */
EB_INLINE eb_vf eb_v_select(eb_vi mask, eb_vf a, eb_vf b) { return (eb_vf)(((eb_vi)a & mask) | ((eb_vi)b & ~mask)); }

/* The larger one; b where a is not a number. */
EB_INLINE eb_vf eb_v_max(eb_vf a, eb_vf b) {
#if EB_LANES == 16
    return (eb_vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif EB_LANES == 8
    return (eb_vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (eb_vf)_mm_max_ps((__m128)a, (__m128)b);
#else
    return eb_v_select(a > b, a, b);
#endif
}

EB_INLINE eb_vf eb_v_min(eb_vf a, eb_vf b) {
#if EB_LANES == 16
    return (eb_vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif EB_LANES == 8
    return (eb_vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (eb_vf)_mm_min_ps((__m128)a, (__m128)b);
#else
    return eb_v_select(a < b, a, b);
#endif
}

EB_INLINE eb_vf eb_v_abs(eb_vf a) { return (eb_vf)((eb_vi)a & INT32_MAX); }

/* The largest lane. */
EB_INLINE float eb_v_highest(eb_vf a) {
    float lane[EB_LANES];
    eb_v_store(lane, a);
    for (int width = EB_LANES / 2; width; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
    return lane[0];
}

/* Nearest integer, halves to even, for |a| below 2^22. */
EB_INLINE eb_vf eb_v_round(eb_vf a) {
    const eb_vf big = eb_v_splat(12582912.0f); /* 1.5 * 2^23: no bits are left behind the point */
    return (a + big) - big;
}

/* e^a within two units in the last place, for -87 to 88; 0 below and for what is not a number; e^88 above.
 * 2^n * e^r with n = round(a / ln 2), ln 2 in two parts so that r is nearly exact, and a polynomial for e^r on
 * |r| <= ln 2 / 2 (Taylor to r^7: the first term left out is below 6e-9 relative). */
EB_INLINE eb_vf eb_v_exp(eb_vf a) {
    const eb_vi in_range = a >= eb_v_splat(-87.0f);
    const eb_vf x = eb_v_min(eb_v_max(a, eb_v_splat(-87.0f)), eb_v_splat(88.0f));
    const eb_vf n = eb_v_round(x * 1.44269504088896341f);
    const eb_vf r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    eb_vf p = eb_v_splat(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    const eb_vi power = (__builtin_convertvector(n, eb_vi) + 127) << 23;
    return (eb_vf)((eb_vi)(p * (eb_vf)power) & in_range);
}

/* ---- sums ---- */

/* Sixteen partial sums and their tree. */
typedef struct eb_sum16 {
    eb_vf part[EB_VECTORS];
} eb_sum16;

EB_INLINE float eb_sum16_total(const eb_sum16 *sum) {
    float lane[16];
    for (int v = 0; v < EB_VECTORS; v++)
        eb_v_store(lane + v * EB_LANES, sum->part[v]);
    for (int width = 8; width; width /= 2)
        for (int i = 0; i < width; i++)
            lane[i] += lane[i + width];
    return lane[0];
}

/* ---- 16-bit floats: IEEE binary16, finite numbers only ---- */

EB_INLINE eb_vf eb_v_load_f16(const uint16_t *from) {
#if EB_LANES == 16
    return (eb_vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)from));
#elif EB_LANES == 8
    return (eb_vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)from));
#elif defined(__aarch64__)
    return (eb_vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
#else
    typedef uint16_t halves __attribute__((vector_size(2 * EB_LANES)));
    halves packed;
    eb_memcpy(&packed, from, sizeof packed);
    const eb_vu wide = __builtin_convertvector(packed, eb_vu);
    /* The exponent's bias grows by 112; a subnormal becomes one of float, and its product is exact. */
    const eb_vf magnitude = (eb_vf)((wide & 0x7fff) << 13) * 0x1p112f;
    return (eb_vf)((eb_vu)magnitude | (wide & 0x8000) << 16);
#endif
}

/* Round to nearest, halves to even; what is beyond +-65504 becomes that, what is not a number -65504. */
EB_INLINE void eb_v_store_f16(uint16_t *to, eb_vf value) {
    const eb_vf a = eb_v_min(eb_v_max(value, eb_v_splat(-65504.0f)), eb_v_splat(65504.0f));
#if EB_LANES == 16
    _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtps_ph((__m512)a, _MM_FROUND_TO_NEAREST_INT));
#elif EB_LANES == 8
    _mm_storeu_si128((__m128i *)(void *)to, _mm256_cvtps_ph((__m256)a, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
    vst1_u16(to, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)a)));
#else
    const eb_vu bits = (eb_vu)eb_v_abs(a);
    const eb_vu normal = (bits + 0xfff + (bits >> 13 & 1) - (112u << 23)) >> 13;
    const eb_vu subnormal = (eb_vu)((eb_vf)bits + 0.5f) - (126u << 23); /* the sum's last bit is worth 2^-24 */
    const eb_vu is_normal = (eb_vu)((eb_vf)bits >= 0x1p-14f);
    const eb_vu half = (normal & is_normal) | (subnormal & ~is_normal) | ((eb_vu)a >> 16 & 0x8000);
    for (int i = 0; i < EB_LANES; i++)
        to[i] = (uint16_t)half[i];
#endif
}

/* ---- small integers ---- */

EB_INLINE eb_vf eb_v_load_i8(const int8_t *from) {
#if EB_LANES == 16
    return (eb_vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)from)));
#elif EB_LANES == 8
    return (eb_vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)from)));
#else
    typedef int8_t bytes __attribute__((vector_size(EB_LANES)));
    bytes packed;
    eb_memcpy(&packed, from, sizeof packed);
    return __builtin_convertvector(__builtin_convertvector(packed, eb_vi), eb_vf);
#endif
}

/* The largest magnitude of x, or `least` where that is larger; [n], a multiple of 16. */
EB_INLINE float eb_absmax(const float *x, size_t n, float least) {
    eb_vf most[EB_VECTORS] = {{0}};
    for (size_t i = 0; i < n; i += 16)
        for (int v = 0; v < EB_VECTORS; v++)
            most[v] = eb_v_max(eb_v_abs(eb_v_load(x + i + v * EB_LANES)), most[v]);
    for (int v = 1; v < EB_VECTORS; v++)
        most[0] = eb_v_max(most[v], most[0]);
    const float highest = eb_v_highest(most[0]);
    return highest > least ? highest : least;
}

/* round_half_even(x * factor) in [low, high]; `low` for what is not a number */
EB_INLINE eb_vi eb_v_quantised(const float *x, float factor, float low, float high) {
    const eb_vf v = eb_v_min(eb_v_max(eb_v_load(x) * factor, eb_v_splat(low)), eb_v_splat(high));
    return __builtin_convertvector(eb_v_round(v), eb_vi);
}

/* The 16 numbers of v, each in int8's range. */
EB_INLINE void eb_store16_i8(int8_t *to, const eb_vi v[EB_VECTORS]) {
#if EB_LANES == 16
    _mm_storeu_si128((__m128i *)(void *)to, _mm512_cvtepi32_epi8((__m512i)v[0]));
#elif EB_LANES == 8
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)v[0], (__m256i)v[1]), 0xd8);
    _mm_storeu_si128((__m128i *)(void *)to,
                     _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
#elif defined(__SSE2__)
    const __m128i low = _mm_packs_epi32((__m128i)v[0], (__m128i)v[1]);
    const __m128i high = _mm_packs_epi32((__m128i)v[2], (__m128i)v[3]);
    _mm_storeu_si128((__m128i *)(void *)to, _mm_packs_epi16(low, high));
#elif defined(__ARM_NEON)
    const int16x8_t low = vcombine_s16(vmovn_s32((int32x4_t)v[0]), vmovn_s32((int32x4_t)v[1]));
    const int16x8_t high = vcombine_s16(vmovn_s32((int32x4_t)v[2]), vmovn_s32((int32x4_t)v[3]));
    vst1q_s8(to, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
#else
    for (int i = 0; i < 16; i++)
        to[i] = (int8_t)v[i / EB_LANES][i % EB_LANES];
#endif
}

/* The same for int16. */
EB_INLINE void eb_store16_i16(int16_t *to, const eb_vi v[EB_VECTORS]) {
#if EB_LANES == 16
    _mm256_storeu_si256((__m256i *)(void *)to, _mm512_cvtepi32_epi16((__m512i)v[0]));
#elif EB_LANES == 8
    _mm256_storeu_si256((__m256i *)(void *)to,
                        _mm256_permute4x64_epi64(_mm256_packs_epi32((__m256i)v[0], (__m256i)v[1]), 0xd8));
#elif defined(__SSE2__)
    _mm_storeu_si128((__m128i *)(void *)to, _mm_packs_epi32((__m128i)v[0], (__m128i)v[1]));
    _mm_storeu_si128((__m128i *)(void *)(to + 8), _mm_packs_epi32((__m128i)v[2], (__m128i)v[3]));
#else
    for (int i = 0; i < 16; i++)
        to[i] = (int16_t)v[i / EB_LANES][i % EB_LANES];
#endif
}

#endif
