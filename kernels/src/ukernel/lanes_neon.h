/* lanes_neon.h - what the NEON micro-kernels share: a register is 16 bytes of one row, a tile is four of them. */
#ifndef EB_LANES_NEON_H
#define EB_LANES_NEON_H

#include <arm_neon.h>
#include <stdint.h>

/* Weights are prefetched this far ahead: over the end of a page, where the hardware's prefetchers stop. */
enum { EB_PREFETCH_BYTES = 1024 };

static inline __attribute__((always_inline)) void eb_prefetch(const uint8_t *w) {
    __builtin_prefetch(w + EB_PREFETCH_BYTES, 0, 3);
}

/* Nothing is moved across: compilers, gcc above all, load far ahead of the use, and then run out of registers. */
static inline __attribute__((always_inline)) void eb_in_this_order(void) { __asm__ volatile(""); }

/* The bits of `mask` of each byte, as a number: not for masks with bit 7. */
static inline __attribute__((always_inline)) int8x16_t eb_masked(uint8x16_t bytes, uint8_t mask) {
    return vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(mask)));
}

/* What stands from bit 4 or bit 6 of each byte upwards. */
static inline __attribute__((always_inline)) int8x16_t eb_from_bit4(uint8x16_t bytes) {
    return vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4));
}
static inline __attribute__((always_inline)) int8x16_t eb_from_bit6(uint8x16_t bytes) {
    return vreinterpretq_s8_u8(vshrq_n_u8(bytes, 6));
}

/* The sum of each row's four int32. */
static inline __attribute__((always_inline)) int32x4_t eb_four_sums(const int32x4_t rows[4]) {
    return vpaddq_s32(vpaddq_s32(rows[0], rows[1]), vpaddq_s32(rows[2], rows[3]));
}

/* y[r] = 128 * hi[r] + lo[r], r 0 to 3 */
static inline __attribute__((always_inline)) void eb_store_planes(int64_t *y, int32x4_t hi, int32x4_t lo) {
    vst1q_s64(y, vaddw_s32(vshll_n_s32(vget_low_s32(hi), 7), vget_low_s32(lo)));
    vst1q_s64(y + 2, vaddw_s32(vshll_n_s32(vget_high_s32(hi), 7), vget_high_s32(lo)));
}

/* The codes of the first `n` two-bit fields of each byte, 3 or 4, as unpack_t2 and unpack_t1 lay them out. */
static inline __attribute__((always_inline)) void eb_store_fields(uint8_t *codes, uint8x16_t fields, int n) {
    const uint8x16_t low2 = vdupq_n_u8(3);
    vst1q_u8(codes, vandq_u8(fields, low2));
    vst1q_u8(codes + 64, vandq_u8(vshrq_n_u8(fields, 2), low2));
    vst1q_u8(codes + 128, vandq_u8(vshrq_n_u8(fields, 4), low2));
    if (n == 4)
        vst1q_u8(codes + 192, vshrq_n_u8(fields, 6));
}

#endif
