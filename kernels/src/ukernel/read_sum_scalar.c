/* read_sum_scalar.c - the definition. Eight sums side by side, so that no addition waits for the one before it. */
#include "ukernel.h"

uint64_t eb_read_sum_scalar(const uint64_t *words, size_t n) {
    uint64_t sums[8] = {0};
    for (size_t i = 0; i < n; i += 8)
        for (size_t s = 0; s < 8; s++)
            sums[s] += words[i + s];
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}
