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

/* The bits of `mask` of each byte, as a number: not for masks with bit 7. */
static inline __attribute__((always_inline)) int8x16_t eb_masked(uint8x16_t bytes, uint8_t mask) {
    return vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(mask)));
}

/* The two high bits of each byte. */
static inline __attribute__((always_inline)) int8x16_t eb_top_field(uint8x16_t bytes) {
    return vreinterpretq_s8_u8(vshrq_n_u8(bytes, 6));
}

/* The sum of each row's four int32. */
static inline __attribute__((always_inline)) int32x4_t eb_four_sums(const int32x4_t rows[4]) {
    return vpaddq_s32(vpaddq_s32(rows[0], rows[1]), vpaddq_s32(rows[2], rows[3]));
}

#endif
