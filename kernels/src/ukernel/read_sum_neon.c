/* read_sum_neon.c - one stream of plain loads, a cache line a turn. */
#include "ukernel.h"

#include <arm_neon.h>

uint64_t eb_read_sum_neon(const uint64_t *words, size_t n) {
    uint64x2_t a = vdupq_n_u64(0), b = a, c = a, d = a;
    for (size_t i = 0; i < n; i += 8) {
        a = vaddq_u64(a, vld1q_u64(words + i));
        b = vaddq_u64(b, vld1q_u64(words + i + 2));
        c = vaddq_u64(c, vld1q_u64(words + i + 4));
        d = vaddq_u64(d, vld1q_u64(words + i + 6));
    }
    return vaddvq_u64(vaddq_u64(vaddq_u64(a, b), vaddq_u64(c, d)));
}
